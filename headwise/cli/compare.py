"""compare on the command line: options → CompareSettings → `jobs.compare` → a table of methods.

In: arguments. Out: printed rows, or compare.json on standard output. Every search, learned rung and baseline has one name for all
its edits.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from headwise.cli.command import grouped
from headwise.cli.crewed import Crewed
from headwise.cli.options import (
    Aim,
    DryRunOption,
    ExactOption,
    KeepOption,
    LevelOption,
    MaxHeadsOption,
    MinutesOption,
    ModelArgument,
    OperatorOption,
    OutOption,
    PairsArgument,
    SplitByOption,
    SplitColumns,
    given,
    names,
)

SeedOption = Annotated[int, typer.Option("--seed", help="Of the splits and statistics.")]


@grouped
def compare(
    model: ModelArgument,
    pairs: PairsArgument,
    out: OutOption,
    strategy: Annotated[
        str | None,
        typer.Option(
            "--strategy",
            help="Comma-separated, of: greedy, ga, bp (searches), scale, spectral (learned edits of every head), lora, adapter, layernorm, "
            "projection, svd, logit (baselines). By default all.",
        ),
    ] = None,
    keep_domain: KeepOption = None,
    repeats: Annotated[
        int, typer.Option("--repeats", help="Runs, with other seeds, of what draws random numbers.")
    ] = 5,
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            help="Most FFE of each search before the test split, what it starts from included, and of each training.",
        ),
    ] = None,
    max_minutes: MinutesOption = None,
    dry_run: DryRunOption = False,
    exact: ExactOption = False,
    max_heads: MaxHeadsOption = None,
    operator: OperatorOption = "uniform",
    epochs: Annotated[
        int | None, typer.Option(help="Most epochs of AAT-BP, of learned edits and of the baselines.")
    ] = None,
    write: Annotated[
        str | None,
        typer.Option(
            "--write", help="Baselines to leave as model folders: lora, layernorm, projection, svd; comma-separated."
        ),
    ] = None,
    level: LevelOption = 0.05,
    seed: SeedOption = 0,
    split_by: SplitByOption = "auto",
    *,
    columns: SplitColumns,
    aim: Aim,
    where: Crewed,
) -> None:
    """Every search, learned edits, and what people would train instead, on the same splits, in one table.

    Example: headwise compare demo demo -o compared/ --budget 60
    """
    from headwise.cli import console
    from headwise.jobs.compare import compare as run
    from headwise.jobs.steps.contest_settings import CompareSettings

    base = CompareSettings()
    search = replace(
        base.search,
        operators=names(operator),
        level=level,
        seed=seed,
        budget=budget,
        max_minutes=max_minutes,
        exact=exact,
        max_heads=max_heads,
    )
    search = replace(
        search,
        gradient=replace(search.gradient, **given({"epochs": epochs})),
        values=replace(search.values, **given({"epochs": epochs})),
    )
    settings = replace(
        base,
        repeats=repeats,
        write=names(write) if write is not None else (),
        search=search,
        training=replace(base.training, **given({"epochs": epochs})),
        **given({"strategies": names(strategy) if strategy is not None else None}),
    )
    found = run(
        model,
        pairs,
        out,
        settings=settings,
        keep=keep_domain or (),
        goal=aim.goal,
        machine=where.machine,
        split_by=split_by,
        dry_run=dry_run,
        reporter=where.reporter,
        **columns.keywords,
    )
    if where.as_json:
        console.print_json(found)
    elif dry_run:
        console.print_plan(found, "of each method")
    else:
        console.print_comparison(found, out)

"""compare on the command line: options → CompareSettings → `jobs.compare` → a table of methods."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from headwise.cli.options import (
    Aim,
    LevelOption,
    ModelArgument,
    OperatorOption,
    OutOption,
    PairsArgument,
    SplitColumns,
    Where,
    given,
    grouped,
    names,
)

SeedOption = Annotated[int, typer.Option("--seed", help="Of the splits and statistics.")]
SplitByOption = Annotated[str, typer.Option("--split-by", help="auto, given, group or image.")]


@grouped
def compare(
    model: ModelArgument,
    pairs: PairsArgument,
    out: OutOption,
    methods: Annotated[
        str | None,
        typer.Option(
            "--methods",
            help="Comma-separated, of: best single head, greedy, genetic, screened, taylor, bp, bp soft, lora, adapter, "
            "layernorm, logit. By default all.",
        ),
    ] = None,
    off_domain: Annotated[
        list[str] | None,
        typer.Option("--off-domain", help="Another source that the change must not break; may be given several times."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", help="Runs of every method that draws random numbers.")] = 5,
    budget: Annotated[
        float, typer.Option("--budget", help="Most FFE of a search or training, beyond the sweep.")
    ] = 200.0,
    operator: OperatorOption = "uniform",
    epochs: Annotated[int | None, typer.Option(help="Most epochs of AAT-BP and of the baselines.")] = None,
    level: LevelOption = 0.05,
    seed: SeedOption = 0,
    split_by: SplitByOption = "auto",
    *,
    columns: SplitColumns,
    aim: Aim,
    where: Where,
) -> None:
    """Every search and what people would train instead, on the same splits, in one table.

    Example: headwise compare demo demo -o compared/ --budget 60
    """
    from headwise.cli import console
    from headwise.jobs.compare import compare as run
    from headwise.jobs.steps.contest import CompareSettings

    base = CompareSettings()
    search = replace(base.search, operators=names(operator), level=level, seed=seed)
    search = replace(search, gradient=replace(search.gradient, **given({"epochs": epochs})))
    settings = replace(
        base,
        seeds=seeds,
        budget=budget,
        search=search,
        training=replace(base.training, **given({"epochs": epochs})),
        **given({"methods": names(methods) if methods is not None else None}),
    )
    found = run(
        model,
        pairs,
        out,
        settings=settings,
        off_domain=off_domain or (),
        goal=aim.goal,
        machine=where.machine,
        split_by=split_by,
        reporter=where.reporter,
        **columns.keywords,
    )
    if where.as_json:
        console.print_json(found)
    else:
        console.print_comparison(found, out)

"""front on the command line: options → FrontSettings → `jobs.front` → the points of the front.

In: arguments. Out: a row for each mask and the verdict, or front.json on standard output.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from headwise.cli.command import grouped
from headwise.cli.crewed import Crewed
from headwise.cli.options import (
    BUDGET,
    Aim,
    DryRunOption,
    KeepOption,
    LevelOption,
    MinutesOption,
    ModelArgument,
    OneOperatorOption,
    OutOption,
    PairsArgument,
    SplitByOption,
    SplitColumns,
    given,
)


@grouped
def front(
    model: ModelArgument,
    pairs: PairsArgument,
    out: OutOption,
    keep_domain: KeepOption = None,
    max_heads: Annotated[
        int | None, typer.Option("--max-heads", help="Most heads to suppress, and write the mask with most of them.")
    ] = None,
    max_loss: Annotated[
        float | None,
        typer.Option("--max-loss", help="Write the mask that gains most and costs kept domains at most these points."),
    ] = None,
    operator: OneOperatorOption = "uniform",
    budget: Annotated[
        float | None,
        typer.Option(
            "--budget",
            help=f"{BUDGET}; by default the sweep, 200 more, 13 for the pick split, and 37 for that of each kept domain.",
        ),
    ] = None,
    max_minutes: MinutesOption = None,
    dry_run: DryRunOption = False,
    population: Annotated[int | None, typer.Option(help="Masks per generation.")] = None,
    generations: Annotated[int | None, typer.Option(help="Most generations.")] = None,
    level: LevelOption = 0.05,
    seed: Annotated[int, typer.Option("--seed", help="Of the splits, the search and the statistics.")] = 0,
    split_by: SplitByOption = "auto",
    *,
    columns: SplitColumns,
    aim: Aim,
    where: Crewed,
) -> None:
    """The front of score against number of suppressed heads; with --keep-domain, against loss on other pairs.

    Example: headwise front hf:openai/clip-vit-base-patch32 new.csv -o front/ --keep-domain old.csv --max-loss 0.5
    """
    from headwise.cli import console
    from headwise.jobs.front import FrontSettings
    from headwise.jobs.front import front as run
    from headwise.reports.front import COLUMNS, heading, shown_rows, verdict

    base = FrontSettings()
    settings = replace(
        base,
        operator=operator,
        budget=budget,
        max_minutes=max_minutes,
        genetic=replace(base.genetic, **given({"population": population, "generations": generations})),
        max_heads=max_heads,
        max_loss=max_loss,
        level=level,
        seed=seed,
    )
    found = run(
        model,
        pairs,
        out,
        keep=keep_domain or (),
        settings=settings,
        goal=aim.goal,
        machine=where.machine,
        split_by=split_by,
        dry_run=dry_run,
        reporter=where.reporter,
        **columns.keywords,
    )
    if where.as_json:
        console.print_json(found.results)
        return
    if dry_run:
        console.print_plan(found.results)
        return
    console.print_table(heading(found.results), COLUMNS[found.results["kind"]], shown_rows(found.results))
    console.say(verdict(found.results))
    mask = ", mask/" if found.mask is not None else ""
    console.say(f"Written to {out}: front.md, front.json, front.png{mask}")

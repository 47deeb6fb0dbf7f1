"""transfer on the command line: options → `jobs.transfer` → masks × data sets.

In: masks and sources, each given several times. Out: the matrix and the mask that serves all best, or transfer.json.
"""

from __future__ import annotations

from typing import Annotated

import typer

from headwise.cli.command import grouped
from headwise.cli.crewed import Crewed
from headwise.cli.options import (
    Aim,
    AllowOption,
    CheckOption,
    LevelOption,
    ModelArgument,
    OutOption,
    SplitColumns,
)

SeedOption = Annotated[int, typer.Option("--seed", help="Of the splits and statistics.")]
SplitByOption = Annotated[str, typer.Option("--split-by", help="auto, given, group or image.")]


@grouped
def transfer(
    model: ModelArgument,
    out: OutOption,
    mask: Annotated[
        list[str],
        typer.Option("--mask", help="A mask's folder, or text such as L10.H3=zero; may be given several times."),
    ],
    on: Annotated[list[str], typer.Option("--on", help="A source to test on; may be given several times.")],
    seed: SeedOption = 0,
    split_by: SplitByOption = "auto",
    level: LevelOption = 0.05,
    *,
    columns: SplitColumns,
    aim: Aim,
    where: Crewed,
    check_weights: CheckOption = True,
    allow_searched: AllowOption = False,
) -> None:
    """Every mask on every data set: found on × tested on, and the one mask that serves all of them best.

    Example: headwise transfer demo --mask refined-a/ --mask refined-b/ --on a.csv --on b.csv -o transfer/
    """
    from headwise.cli import console
    from headwise.jobs.transfer import transfer as run

    found = run(
        model,
        mask,
        on,
        out,
        goal=aim.goal,
        machine=where.machine,
        split_by=split_by,
        seed=seed,
        level=level,
        check_weights=check_weights,
        allow_searched=allow_searched,
        reporter=where.reporter,
        **columns.keywords,
    )
    if where.as_json:
        console.print_json(found)
    else:
        console.print_transfer(found, out)

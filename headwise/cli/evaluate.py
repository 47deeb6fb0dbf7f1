"""evaluate on the command line: options → `jobs.evaluate` → metrics.

In: a model and one or more sources. Out: a table, or clip_benchmark's JSON (a list for several sources).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from headwise.cli.command import grouped
from headwise.cli.crewed import Crewed
from headwise.cli.options import (
    Aim,
    AllowOption,
    CheckOption,
    ModelArgument,
    SplitColumns,
)


def foreign(one: Mapping) -> dict[str, int]:
    """The distractors among what images search, where there are any."""
    return {"distractors": one["distractors"]["texts"]} if "distractors" in one else {}


@grouped
def evaluate(
    model: ModelArgument,
    pairs: Annotated[list[str], typer.Argument(help="One or more sources; see headwise data --help.")],
    mask: Annotated[
        str | None, typer.Option("--mask", help="A mask's folder, or text such as L10.H3=zero, L11.H0=zero.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="Compare the mask with identity (the unchanged model) or another mask, paired."),
    ] = None,
    by: Annotated[
        str | None, typer.Option("--by", help="With --against: the change of each class, or of each group (--group).")
    ] = None,
    only_split: Annotated[
        str | None, typer.Option("--only-split", help="Evaluate this split of the source alone.")
    ] = None,
    per_query: Annotated[
        Path | None,
        typer.Option("--per-query", help="A Parquet file to write, with the rank of every query of every source."),
    ] = None,
    *,
    columns: SplitColumns,
    aim: Aim,
    where: Crewed,
    check_weights: CheckOption = True,
    allow_searched: AllowOption = False,
) -> None:
    """Retrieval or zero-shot metrics of a model, with or without a mask, on any sources."""
    from headwise.cli import console
    from headwise.jobs.evaluate import measured
    from headwise.jobs.steps.opening import load_model
    from headwise.scoring.per_query import check_place, write_per_query
    from headwise.scoring.recall import clip_benchmark_json

    if per_query is not None:
        check_place(per_query)
    place = where.machine
    loaded = load_model(model, place)
    both = [
        measured(
            loaded,
            source,
            mask,
            against=against,
            by=by,
            only_split=only_split,
            goal=aim.goal,
            queries=per_query is not None,
            machine=place,
            check_weights=check_weights,
            allow_searched=allow_searched,
            reporter=where.reporter,
            **columns.keywords,
        )
        for source in pairs
    ]
    found = [one for one, _ in both]
    printed = [
        clip_benchmark_json(
            one["metrics"],
            dataset=one["dataset"],
            model=one["model"],
            task=one["task"],
            gallery={"images": one["images"], "captions": one["captions"], **foreign(one)},
        )
        | {
            key: one[key]
            for key in (
                "mask",
                "overrides",
                "reference",
                "searched",
                "test_reads_cache",
                "equal_captions",
                "distractors",
                "against",
            )
            if key in one
        }
        for one in found
    ]
    if where.as_json:
        console.print_json(printed[0] if len(printed) == 1 else printed)
    else:
        console.print_evaluations(found)
    if per_query is not None:  # last: a file that cannot be written costs no number
        write_per_query([table for _, table in both if table is not None], per_query)

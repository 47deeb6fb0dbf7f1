"""explain on the command line: options → `jobs.explain` → its main findings, a sentence each.

In: arguments. Out: sentences, or explanation.json on standard output.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwise.cli.command import grouped
from headwise.cli.options import (
    Aim,
    CheckOption,
    ModelArgument,
    OneOperatorOption,
    OutOption,
    PairsArgument,
    SplitColumns,
    Where,
)


@grouped
def explain(
    model: ModelArgument,
    pairs: PairsArgument,
    out: OutOption,
    mask: Annotated[
        str | None,
        typer.Option(
            "--mask", help="Compare its heads with the others: a folder, or text such as L10.H3=zero, L11.H0=zero."
        ),
    ] = None,
    operator: OneOperatorOption = "zero",
    texts: Annotated[
        Path | None, typer.Option("--texts", help="A file of texts to label heads with, one a line.")
    ] = None,
    most_images: Annotated[
        int, typer.Option("--most-images", help="Most images for labelling, and as many again for checking.")
    ] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Of the splits, rotations and permutations.")] = 0,
    split_by: Annotated[str, typer.Option("--split-by", help="auto, given, group or image.")] = "auto",
    *,
    columns: SplitColumns,
    aim: Aim,
    where: Where,
    check_weights: CheckOption = True,
) -> None:
    """What every head does: labels that are tested, attributes of pictures, attention, examples.

    Labels are found on the search split and checked on the pick split; the test split is never read.
    """
    from headwise.cli import console
    from headwise.jobs.explain import explain as run
    from headwise.reports.explanation import summary

    results = run(
        model,
        pairs,
        out,
        mask=mask,
        operator=operator,
        texts=texts,
        most_images=most_images,
        goal=aim.goal,
        machine=where.machine,
        split_by=split_by,
        seed=seed,
        check_weights=check_weights,
        reporter=where.reporter,
        **columns.keywords,
    )
    if where.as_json:
        console.print_json(results)
        return
    for sentence in [*summary(results), *results["patterns"]["sentences"]]:
        console.say(sentence)
    console.say(f"Written to {out}: explanation.md, explanation.json, explanation.safetensors")

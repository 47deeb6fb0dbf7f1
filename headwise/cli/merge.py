"""merge on the command line: options → `jobs.merge` → where the model is.

In: a model, a mask, a folder. Out: one sentence with how close the folder is to the masked model, or JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwise.cli.command import grouped
from headwise.cli.options import (
    CheckOption,
    Columns,
    DeviceOption,
    JsonOption,
    Loading,
    ModelArgument,
    machine,
)


@grouped
def merge(
    model: ModelArgument,
    mask: Annotated[str, typer.Argument(help="A mask's folder, or text such as L10.H3=zero, L11.H0=zero.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The model folder to write.")],
    means_from: Annotated[
        str | None, typer.Option("--means-from", help="Edits mean: pairs to compute the constants on.")
    ] = None,
    check_weights: CheckOption = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a former merge.")] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    *,
    columns: Columns,
    loading: Loading,
) -> None:
    """Fold a mask into the weights: an ordinary model folder with no extra inference cost."""
    from headwise.cli import console
    from headwise.cli.telling import Terminal
    from headwise.jobs.merge import merge as run

    report = run(
        model,
        mask,
        out,
        means_from=means_from,
        machine=machine("float32", device, None, overrides=loading.overrides),
        check_weights=check_weights,
        overwrite=overwrite,
        **columns.keywords,
        reporter=Terminal(quiet=as_json),
    )
    if as_json:
        console.print_json(
            {
                "folder": str(report.folder),
                "largest_difference": report.largest_difference,
                "relative_difference": report.relative_difference,
                "dtype": report.dtype,
                "images": report.images,
                "rounding": report.rounding,
            }
        )
        return
    console.say(f"Written to {report.folder} {report.sentence}")

"""export on the command line: options → `jobs.export` → where the export is, and how close.

In: a model, edits, a form, a folder. Out: one sentence, or JSON.
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

EditsOption = Annotated[
    str | None,
    typer.Option("--edits", help="A mask's folder, or text such as L10.H3=zero, L11.H0=zero; none: as it is."),
]


@grouped
def export(
    model: ModelArgument,
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder to write.")],
    edits: EditsOption = None,
    to: Annotated[
        str,
        typer.Option(
            "--to", help="onnx, openvino, torch, pruned, hf, open_clip, timm, sentence-transformers, safetensors-delta."
        ),
    ] = "onnx",
    precision: Annotated[
        str, typer.Option("--precision", help="Of onnx: float32, float16 or int8; of openvino: float32 or float16.")
    ] = "float32",
    prune: Annotated[bool, typer.Option("--prune/--no-prune", help="Cut out heads that the edits remove.")] = True,
    on: Annotated[
        str | None, typer.Option("--on", help="Pairs to compare on; int8 is calibrated on them and held to its recall.")
    ] = None,
    most_loss: Annotated[float, typer.Option("--most-loss", help="int8: most points of fitness to lose.")] = 0.5,
    licence: Annotated[str, typer.Option("--licence", help="For the card, such as mit.")] = "",
    check_weights: CheckOption = True,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a former export.")] = False,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
    *,
    columns: Columns,
    loading: Loading,
) -> None:
    """Write the model, edited or not, as ONNX or for another library, checked against the live one."""
    from headwise.cli import console
    from headwise.cli.telling import Terminal
    from headwise.jobs.export import export as run

    report = run(
        model,
        out,
        edits=edits,
        to=to,
        precision=precision,
        prune=prune,
        on=on,
        most_loss=most_loss,
        licence=licence,
        machine=machine("float32", device, None, overrides=loading.overrides),
        check_weights=check_weights,
        overwrite=overwrite,
        **columns.keywords,
        reporter=Terminal(quiet=as_json),
    )
    if as_json:
        console.print_json({"folder": str(report.folder), "to": report.to, **report.facts})
        return
    console.say(f"Written to {report.folder}: {report.sentence}")

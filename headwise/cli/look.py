"""Commands that look and change nothing: inspect, models, data check.

In: a model's name, nothing, or a source. Out: tables, or JSON. They share a file because each is a few lines.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

import typer

from headwise.cli.command import grouped
from headwise.cli.options import (
    CaptionOption,
    DeviceOption,
    GroupOption,
    ImageOption,
    ImagesOption,
    JsonOption,
    LabelOption,
    Loading,
    ModelArgument,
    PairsArgument,
    RemoteOption,
    SplitOption,
    machine,
)

data = typer.Typer(
    no_args_is_help=True,
    help="Look at a source of pairs. Forms: demo (packaged), FILE.csv|tsv|json|jsonl|parquet, a folder of images, "
    "karpathy:FILE?images=DIR, coco:FILE?images=DIR, cna:FILE?images=DIR, chinese-clip:DIR?split=test, "
    "wds:DIR?split=test, cola:FILE?images=DIR, mix:FILE (several sources), hf:REPO?split=test&image=image&captions=raw.",
)


@grouped
def inspect(
    model: ModelArgument, device: DeviceOption = "auto", as_json: JsonOption = False, *, loading: Loading
) -> None:
    """What a model is made of: heads, tokens, pooling, which edits apply and fold, what a sweep costs."""
    from headwise.cli import console
    from headwise.jobs.inspect import inspect as describe

    facts = describe(model, machine=machine("auto", device, None, overrides=loading.overrides))
    if as_json:
        console.print_json(facts)
        return
    plain = [(key.replace("_", " "), f"{value:,}" if type(value) is int else str(value))
             for key, value in facts.items() if key not in ("edits", "ffe")]  # fmt: skip
    plain += [(f"FFE of a {key.replace('_', ' ')}", f"{value:,.1f}") for key, value in facts["ffe"].items()]
    console.print_table(model, ("", "value"), plain, text=True)
    rows = [
        (name, one["side"], one["what"], one["applies"], _where(one["rows"])) for name, one in facts["edits"].items()
    ]
    title = ("edit", "side", "an edited head", "applies to", "folds exactly")
    console.print_table("What can be done to a head", title, rows, text=True)


def _where(rows: Mapping[str, str]) -> str:
    """Which rows of heads an edit folds into: all that can have it, none, or their names."""
    folding = [row for row, what in rows.items() if what == "folds"]
    if not folding or len(folding) == len(rows):
        return "yes" if folding else "no"
    return f"{folding[0]} to {folding[-1]}" if len(folding) > 3 else ", ".join(folding)


@grouped
def models(as_json: JsonOption = False) -> None:
    """Which libraries are installed, and how to name a model of each."""
    from headwise.cli import console
    from headwise.towers.describe import families

    if as_json:
        console.print_json([asdict(library) for library in families()])
        return
    for library in families():  # plain lines, not a table: a name has to be copied whole
        state = library.version or f"not installed: pip install 'headwise[{library.extra}]'"
        lines = [f"{library.name} {state}", f"  {', '.join(library.families)}"]
        lines += [f"  {form:32}  {meaning}" for form, meaning in library.forms.items()]
        lines += [f"    for example {example}" for example in library.examples]
        console.say("\n".join(lines) + "\n")


@data.command()
@grouped
def check(
    source: PairsArgument,
    image: ImageOption = None,
    caption: CaptionOption = None,
    label: LabelOption = None,
    split_column: SplitOption = None,
    group: GroupOption = None,
    images: ImagesOption = None,
    remote: RemoteOption = False,
    as_json: JsonOption = False,
) -> None:
    """Counts, captions per image, duplicates, bad rows and samples of a source. Writes nothing; exits 1 if rows are bad."""
    from headwise.cli import console
    from headwise.cli.telling import Terminal
    from headwise.data.check import check as run
    from headwise.jobs.steps.progress import counted

    with counted(Terminal(quiet=as_json), "Checking images", "images") as tell:
        report = run(
            source,
            image=image,
            caption=caption,
            split=split_column,
            group=group,
            label=label,
            images=images,
            remote=remote,
            progress=tell,
        )
    if as_json:
        console.print_json(asdict(report) | {"ok": report.ok})
    else:
        console.print_check(report)
    if not report.ok:
        raise typer.Exit(1)

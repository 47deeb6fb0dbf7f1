"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

ModelArgument = Annotated[
    str, typer.Argument(help="hf:HUB_ID (hf:openai/clip-vit-base-patch32), a local model folder, or demo.")
]
PairsArgument = Annotated[
    str,
    typer.Argument(
        help="Images with captions or labels: a .csv, .tsv, .jsonl or .parquet file, a folder of images, or a named "
        "form such as karpathy:FILE?images=DIR (headwise data --help lists them)."
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Output folder. The same command continues there.")]
OperatorOption = Annotated[
    str,
    typer.Option(
        "--operator",
        help="What suppressed heads emit: zero, mean, uniform, cls, self, cls_row; several "
        "separated by commas compete.",
    ),
]
DtypeOption = Annotated[str, typer.Option("--dtype", help="auto, float32 or bfloat16.")]
DeviceOption = Annotated[str, typer.Option("--device", help="cpu, cuda, cuda:1, or auto.")]
ChunkOption = Annotated[int | None, typer.Option("--chunk", help="Images a chunk; by default what fits the processor.")]
CacheOption = Annotated[
    str | None,
    typer.Option(
        "--cache-size",
        envvar="HEADWISE_CACHE_SIZE",
        show_envvar=True,
        help="Most space for decoded images, such as 20GB; what was used least recently goes first.",
    ),
]
KeepOption = Annotated[
    list[str] | None,
    typer.Option("--keep-domain", help="Pairs that a mask must not break; may be given several times."),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the results as JSON and nothing else.")]
ImageOption = Annotated[str | None, typer.Option("--image", help="The image column, if its name is unusual.")]
CaptionOption = Annotated[str | None, typer.Option("--caption", help="The caption column(s), comma-separated.")]
SplitOption = Annotated[str | None, typer.Option("--split-column", help="A column that names each row's split.")]
GroupOption = Annotated[str | None, typer.Option("--group", help="A column whose values never straddle splits.")]
ImagesOption = Annotated[str | None, typer.Option("--images", help="The folder that relative image paths start from.")]
SkipOption = Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out and count them.")]
CheckOption = Annotated[
    bool, typer.Option("--check-weights/--no-check-weights", help="Refuse a mask found on other weights.")
]


FitnessOption = Annotated[
    str,
    typer.Option(
        "--fitness",
        help="What counts: auto, mean_recall (captions), acc1, mean_per_class_recall, group_mean_acc, worst_group_acc "
        "(labels), multi_object_acc, mean_average_precision (Cola); a mix: file gives it for each part.",
    ),
]
TemplatesOption = Annotated[
    str | None, typer.Option("--templates", help="Labels: openai80, openai7, siglip, plain, or a file.")
]
ClassNamesOption = Annotated[str | None, typer.Option("--class-names", help="Labels: imagenet, or a file.")]
LabelOption = Annotated[str | None, typer.Option("--label", help="The label column, if its name is unusual.")]


def given(options: dict[str, object]) -> dict[str, Any]:
    """The options that were set."""
    return {name: value for name, value in options.items() if value is not None}


def names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def machine(dtype: str, device: str, chunk: int | None, cache_size: str | None = None):
    """The `Machine` of the options; device auto takes a GPU where there is one."""
    import torch

    from headwise.data.cache import parse_size
    from headwise.jobs.verbs import Machine

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return Machine(dtype, device, chunk, cache_size=None if cache_size is None else parse_size(cache_size))


def goal(fitness: str, templates: str | None, class_names: str | None):
    """The `Goal` of the options."""
    from headwise.jobs.tasks import Goal

    return Goal(fitness, templates, class_names)

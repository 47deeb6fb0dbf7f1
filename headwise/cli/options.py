"""Arguments and options that several commands share.

Each option is an annotated type; groups of them are dataclasses, which `command.py` turns into options of a command.
Each group knows how a job takes it. Names that options once had are in `FORMER`, with what to write instead.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headwise.errors import HeadwiseError

if TYPE_CHECKING:
    from headwise.cli.telling import Terminal
    from headwise.jobs.steps.opening import Machine
    from headwise.jobs.steps.tasks import Goal
    from headwise.towers.overrides import Overrides

RUNGS = "mask,scale,spectral"  # the default of --rungs
ModelArgument = Annotated[
    str, typer.Argument(help="hf:HUB_ID (hf:openai/clip-vit-base-patch32), a local model folder, or demo.")
]
PairsArgument = Annotated[
    str,
    typer.Argument(
        help="Images with captions or labels: a .csv, .tsv, .json, .jsonl or .parquet file, a folder of images, or a named "
        "form such as karpathy:FILE?images=DIR (headwise data --help lists them)."
    ),
]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Output folder. The same command continues there.")]
OperatorOption = Annotated[
    str,
    typer.Option(
        "--operator",
        help="What is done to a head of a mask: zero, mean, uniform, cls, self, cls_row, keys, queries, scale(1.5) and others "
        "(headwise inspect lists them); several separated by commas compete.",
    ),
]
OneOperatorOption = Annotated[
    str,
    typer.Option("--operator", help="What is done to a head: zero, mean, uniform, scale(1.5), … (headwise inspect)."),
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
StrategyOption = Annotated[
    str,
    typer.Option("--strategy", help="Searches, in this order: greedy, ga (AAT-GA), bp (AAT-BP, learned gates)."),
]
RungsOption = Annotated[
    str,
    typer.Option(
        "--rungs",
        help="Rungs of the ladder that compete on the pick split: mask (heads suppressed), and what is learned of every head: "
        "scale, temperature, shift, spectral, or several joined by a plus; projection and lora train weights, too.",
    ),
]
ChooseOption = Annotated[
    str,
    typer.Option("--choose", help="safe: the fewest values within one standard error of the best; best: the best."),
]
BUDGET = "Most FFE (passes of the whole tower over a split) of everything before the test split"
BudgetOption = Annotated[
    float | None,
    typer.Option(
        "--budget",
        help=f"{BUDGET}; by default the sweep, 100 more for each edit, and what learned rungs, finalists and learning "
        "again take.",
    ),
]
MinutesOption = Annotated[
    float | None, typer.Option("--max-minutes", help="Most minutes of everything before the test split.")
]
ExactOption = Annotated[
    bool, typer.Option("--exact", help="AAT-GA runs every mask instead of estimating most while estimates agree.")
]
MaxHeadsOption = Annotated[int | None, typer.Option("--max-heads", help="Most heads to suppress.")]
DryRunOption = Annotated[
    bool, typer.Option("--dry-run", help="Print what each stage will cost in FFE and minutes here, and stop.")
]
SplitByOption = Annotated[str, typer.Option("--split-by", help="auto, given, group or image.")]
KeepOption = Annotated[
    list[str] | None,
    typer.Option("--keep-domain", help="Pairs that a mask must not break; may be given several times."),
]
LevelOption = Annotated[
    float, typer.Option("--level", help="Chance of choosing a mask on the pick split where none is better.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print the results as JSON and nothing else.")]
ImageOption = Annotated[str | None, typer.Option("--image", help="The image column, if its name is unusual.")]
CaptionOption = Annotated[str | None, typer.Option("--caption", help="The caption column(s), comma-separated.")]
SplitOption = Annotated[str | None, typer.Option("--split-column", help="A column that names each row's split.")]
GroupOption = Annotated[str | None, typer.Option("--group", help="A column whose values never straddle splits.")]
ImagesOption = Annotated[
    str | None,
    typer.Option("--images", help="The folder of the images: relative paths start there, and no others are read."),
]
RemoteOption = Annotated[
    bool, typer.Option("--remote", help="Let a local source name images elsewhere: https, s3, gs, hf.")
]
SkipOption = Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out and count them.")]
EqualOption = Annotated[
    str,
    typer.Option("--equal-captions", help="Captions equal word for word on several images: shared (one text) or own."),
]
AllowOption = Annotated[
    bool, typer.Option("--allow-searched", help="Score images, too, that a mask was searched or picked on.")
]
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
DistractorsOption = Annotated[
    str | None,
    typer.Option(
        "--distractors",
        help="Captions: a file of texts, one a line, that belong to no image and join the captions as wrong answers; or "
        "phrases, the list that is shipped.",
    ),
]
ClassNamesOption = Annotated[str | None, typer.Option("--class-names", help="Labels: imagenet, or a file.")]
ImageSizeOption = Annotated[
    int | None, typer.Option("--image-size", help="Pixels a side; the model's positions are interpolated.")
]
MeanOption = Annotated[str | None, typer.Option("--mean", help="Of pixels in 0..1: one number, or R,G,B.")]
StdOption = Annotated[str | None, typer.Option("--std", help="Of pixels in 0..1: one number, or R,G,B.")]
InterpolationOption = Annotated[str | None, typer.Option("--interpolation", help="bicubic or bilinear.")]
ResizeOption = Annotated[
    str | None, typer.Option("--resize-mode", help="shortest (then cropped), longest (then filled) or squash.")
]
ContextOption = Annotated[int | None, typer.Option("--context-length", help="Captions are cut at so many tokens.")]
ProcessorOption = Annotated[
    str | None, typer.Option("--processor", help="A folder with a transformers processor, in place of the model's own.")
]
LabelOption = Annotated[str | None, typer.Option("--label", help="The label column, if its name is unusual.")]


def given(options: dict[str, object]) -> dict[str, Any]:
    """The options that were set."""
    return {name: value for name, value in options.items() if value is not None}


FORMER = {
    "--race": "Racing saved nothing and is gone; leave --race out.",
    "--methods": "Write --strategy.",
    "--off-domain": "Write --keep-domain.",
    "--size": "Write --max-heads.",
    "--seeds": "Write --repeats.",
    "--taylor": "Write --first-order.",
}


def refuse_former(arguments: Sequence[str]) -> None:
    """
    Raises:
        HeadwiseError: an option by a name that it no longer has, with what to write instead.
    """
    for argument in arguments:
        if (name := argument.partition("=")[0]) in FORMER:
            raise HeadwiseError(f"There is no option {name} any more. {FORMER[name]}")


def names(text: str) -> tuple[str, ...]:
    """The parts of a comma-separated option."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


# ---- groups of options


@dataclass(frozen=True)
class Columns:
    """How a source is read."""

    image: ImageOption = None
    caption: CaptionOption = None
    label: LabelOption = None
    group: GroupOption = None
    images: ImagesOption = None
    remote: RemoteOption = False
    skip_bad: SkipOption = False
    equal_captions: EqualOption = "shared"

    @property
    def keywords(self) -> dict[str, object]:
        """As `headwise.read` takes them."""
        return asdict(self)


@dataclass(frozen=True)
class SplitColumns(Columns):
    """How a source is read that is to be split."""

    split_column: SplitOption = None

    @property
    def keywords(self) -> dict[str, object]:
        """As `headwise.read` takes them."""
        found = asdict(self)
        return found | {"split": found.pop("split_column")}


@dataclass(frozen=True)
class Aim:
    """What counts."""

    fitness: FitnessOption = "auto"
    templates: TemplatesOption = None
    class_names: ClassNamesOption = None
    distractors: DistractorsOption = None

    @property
    def goal(self) -> Goal:
        """What is to be maximised, as the jobs take it."""
        from headwise.jobs.steps.tasks import Goal

        return Goal(self.fitness, self.templates, self.class_names, self.distractors)


@dataclass(frozen=True)
class Loading:
    """What a model does otherwise than its files say."""

    image_size: ImageSizeOption = None
    mean: MeanOption = None
    std: StdOption = None
    interpolation: InterpolationOption = None
    resize_mode: ResizeOption = None
    context_length: ContextOption = None
    processor: ProcessorOption = None

    @property
    def overrides(self) -> Overrides:
        """As `headwise.load` takes them."""
        from headwise.towers.overrides import Overrides

        return Overrides(
            self.image_size,
            None if self.mean is None else names(self.mean),  # type: ignore[arg-type]  # made numbers there
            None if self.std is None else names(self.std),  # type: ignore[arg-type]
            self.interpolation,
            self.resize_mode,
            self.context_length,
            self.processor,
        )


@dataclass(frozen=True)
class Where(Loading):
    """How the model is loaded, where to run, in what precision, and how to print."""

    dtype: DtypeOption = "auto"
    device: DeviceOption = "auto"
    chunk: ChunkOption = None
    cache_size: CacheOption = None
    as_json: JsonOption = False

    @property
    def machine(self) -> Machine:
        """Device auto takes a GPU where there is one."""
        return machine(self.dtype, self.device, self.chunk, self.cache_size, self.overrides)

    @property
    def reporter(self) -> Terminal:
        """Where progress goes: the terminal, or nowhere where JSON is printed."""
        from headwise.cli.telling import Terminal

        return Terminal(quiet=self.as_json)


def machine(
    dtype: str,
    device: str,
    chunk: int | None,
    cache_size: str | None = None,
    overrides: Overrides | None = None,
) -> Machine:
    """The `Machine` of the options."""
    import torch

    from headwise.data.cache import parse_size
    from headwise.jobs.steps.opening import Machine
    from headwise.towers.overrides import Overrides

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    size = None if cache_size is None else parse_size(cache_size)
    return Machine(dtype, device, chunk, cache_size=size, overrides=overrides or Overrides())

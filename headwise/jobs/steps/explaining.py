"""What `explain` works on, and its steps one after the other.

In: a `Subject`: a model, its tower in float32, images for labelling and for checking. Out: effects, direct
contributions, attributes, labels, attention. Each step knows its room in `explanation/` alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from headwise.checked import Damaged, read_results
from headwise.data.cache import PixelCache
from headwise.data.pairs import Pairs, drawn
from headwise.data.splits import Splits
from headwise.edits.edit import unbound
from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import embed, ffe, head_means
from headwise.evaluation.evaluator import Objective
from headwise.evaluation.layout import Plan
from headwise.evaluation.study import Study
from headwise.explanation.associations import Associations, associate
from headwise.explanation.attention import Looks, attention_maps, attention_statistics, patch_grid
from headwise.explanation.attributes import MEASURED, measure, own_columns
from headwise.explanation.direct import direct_contributions, direct_heads, why_not
from headwise.explanation.effects import Effects, total_effects
from headwise.explanation.evidence import captions_of, label_evidence, vocabulary
from headwise.explanation.labels import DRAWS, text_span
from headwise.explanation.store import Arrays
from headwise.explanation.texts import Candidates, candidates
from headwise.jobs.steps.opening import ModelLike
from headwise.jobs.steps.progress import Reporter
from headwise.jobs.steps.tasks import Task, embed_texts
from headwise.towers.base import Model, Tower
from headwise.wording import option

MaskLike = Mask | str | Path | None

ARRAYS = "explanation.safetensors"
STUDY = "explanation.sqlite"
MAPS = 4  # pictures whose attention is kept for each head
LOOKED_AT = 256  # pictures that attention is averaged over


@dataclass(frozen=True)
class Subject:
    """A model and pairs to explain it on.

    Arguments:
        tower: on the plan's device, in float32.
        pairs: all of the source's.
        label: images that labels are found on (of the search split), ascending.
        check: images that they are checked on (of the pick split), ascending.
        task: what is measured; None for captions and a model without text tower.
        operator: what a removed head emits.
        edited: heads that a mask suppresses.
    """

    model: Model
    tower: Tower
    pairs: Pairs
    label: tuple[int, ...]
    check: tuple[int, ...]
    task: Task | None
    cache: PixelCache
    layout: Plan
    reporter: Reporter
    operator: str = "zero"
    edited: Mask | None = None

    @property
    def images(self) -> tuple[int, ...]:
        """Those for labelling, then those for checking."""
        return (*self.label, *self.check)

    @property
    def heads(self) -> tuple[Head, ...]:
        """Those that are explained: all that can be removed so."""
        return self.tower.able(self.operator)

    @property
    def pixels(self) -> PixelCache:
        """The images' pixels, those for labelling first."""
        return self.cache.take(self.images)

    @property
    def checked(self) -> Pairs:
        """The pairs that labels are checked on."""
        return self.pairs.subset(self.check)

    def objective(self) -> Objective | None:
        """About the images for checking."""
        return self.task and self.task.objective(self.model, self.pairs, self.check, self.layout.device)


def of_study(model: ModelLike, mask: MaskLike) -> tuple[ModelLike, MaskLike]:
    """Of a folder that `refine` wrote the name of its model, and its mask where none is given; any other model as it is.

    Raises:
        HeadwiseError: its results.json cannot be read.
    """
    if not isinstance(model, str) or not (path := Path(model) / "results.json").is_file():
        return model, mask
    try:
        name = read_results(path)["model"]["name"]
    except (OSError, Damaged, LookupError, TypeError) as error:
        raise HeadwiseError(
            f"{path} is not what refine wrote ({error}). Give the model itself, and the mask with {option('mask', 'MASK')}."
        ) from error
    return name, Path(model) if mask is None else mask


def draw(splits: Splits, pairs: Pairs, most: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Images for labelling (of `search`) and for checking (of `pick`): at most so many of each, by their hashes.

    The test split is never read.
    """

    def some(indices: Sequence[int]) -> tuple[int, ...]:
        if len(indices) <= most:
            return tuple(indices)
        return tuple(sorted(drawn(pairs, indices, most)))

    return some(splits.search), some(splits.pick)


def arrays_for(subject: Subject, folder: Path, width: int) -> Arrays:
    """The file for all large arrays, at its final size."""
    n, heads = len(subject.images), len(subject.heads)
    names, _ = own_columns(subject.pairs)
    shapes = {
        "total": ("F16", (heads, n, width)),
        "direct": ("F16", (len(direct_heads(subject.tower)), n, width)),
        "identity": ("F32", (n, width)),
        "attributes": ("F32", (n, len(MEASURED) + len(names))),
    }
    if (side := patch_grid(subject.tower)[0]) is not None:
        shapes["attention"] = ("F16", (heads, MAPS, side, side))
    return Arrays(folder / ARRAYS, shapes)


def width_of(subject: Subject) -> int:
    """E."""
    one = [Mask.identity(subject.tower.grid)]
    return next(iter(embed(subject.tower, subject.pixels.take([0]), one, subject.layout)))[1].shape[1]


def find_effects(subject: Subject, arrays: Arrays, study: Study) -> Effects:
    """Remove every head alone."""
    tower, pixels = subject.tower, subject.pixels
    means = (
        head_means(tower, subject.cache.take(subject.label), subject.layout) if unbound([subject.operator]) else None
    )
    masks = [Mask.identity(tower.grid), *(Mask.suppress(tower.grid, [one], subject.operator) for one in subject.heads)]
    with subject.reporter.stage("Removing every head", ffe(tower, masks), "FFE") as advance:
        return total_effects(
            tower,
            pixels,
            subject.layout,
            subject.operator,
            arrays,
            study,
            label=len(subject.label),
            objective=subject.objective(),
            means=means,
            progress=advance,
            say=subject.reporter.say,
        )


@dataclass(frozen=True)
class Direct:
    """Direct contributions: of which heads, how exact, or why there are none."""

    heads: tuple[Head, ...]
    values: np.ndarray
    error: float | None
    why_not: str | None


def find_direct(subject: Subject, arrays: Arrays) -> Direct:
    """Every head's own part of the embeddings."""
    tower, values = subject.tower, arrays.open("direct")
    if reason := why_not(tower, subject.pixels):
        return Direct((), values, None, reason)
    with subject.reporter.stage("Direct contributions", len(subject.images), "images") as advance:
        error = direct_contributions(tower, subject.pixels, values, chunk=subject.layout.chunk, progress=advance)
    values.flush()
    return Direct(direct_heads(tower), values, error, None)


@dataclass(frozen=True)
class Measured:
    """Attributes of all images, (N, A), and which of them heads carry."""

    names: tuple[str, ...]
    values: np.ndarray
    unreadable: tuple[int, ...]
    found: Associations


def find_attributes(subject: Subject, arrays: Arrays, effects: Effects) -> Measured:
    """Measure every picture; which attributes heads carry."""
    images = [subject.pairs.images[i] for i in subject.images]
    with subject.reporter.stage("Measuring pictures", len(images), "images") as advance:
        pictures, unreadable = measure(images, progress=advance)
    if unreadable:
        subject.reporter.say(f"{len(unreadable):,} pictures cannot be read any more; their attributes are left out.")
    names, columns = own_columns(subject.pairs)
    values = arrays.open("attributes")
    values[:] = np.concatenate([pictures, columns[list(subject.images)]], axis=1)
    values.flush()
    found = associate(effects.of, effects.identity, effects.sizes(), values, effects.label)
    return Measured((*MEASURED, *names), values, unreadable, found)


@dataclass(frozen=True)
class Labelled:
    """Labels of every head, and TextSpan's."""

    evidence: list[dict]
    spans: list[dict]
    words: Candidates


def find_labels(
    subject: Subject, effects: Effects, direct: Direct, own_texts: Sequence[str], cache_dir: Path | None, seed: int
) -> Labelled | None:
    """None without a text tower."""
    if subject.model.encode_texts is None:
        return None
    label = subject.pairs.subset(subject.label)
    words = candidates(captions_of(label), own_texts)
    texts = embed_texts(subject.model, words.texts, cache_dir=cache_dir, reporter=subject.reporter)
    known = vocabulary(words, texts, captions_of(subject.checked))
    total = len(effects.heads) + DRAWS
    with subject.reporter.stage("Labelling heads", total, "heads and rotations") as advance:
        evidence = label_evidence(effects, known, seed=seed, progress=advance)
    unit, places = torch.nn.functional.normalize(texts.float(), dim=1), {h: i for i, h in enumerate(direct.heads)}
    spans = []
    with subject.reporter.stage("TextSpan", len(effects.heads), "heads") as advance:
        for row, head in enumerate(effects.heads):
            of = "direct" if head in places else "total"
            values = direct.values[places[head]] if head in places else effects.of(row)
            chosen = text_span(np.asarray(values[: effects.label], np.float32), unit)
            spans.append({"of": of, "texts": [words.texts[i] for i in chosen]})
            advance(1)
    return Labelled(evidence, spans, words)


def find_attention(subject: Subject, arrays: Arrays, shown: Mapping[Head, Sequence[int]]) -> dict[Head, Looks]:
    """Statistics of every head, and maps of the pictures in `shown` (their places among the images)."""
    tower, pixels = subject.tower, subject.pixels
    some = pixels.take(range(min(LOOKED_AT, len(subject.label))))
    with subject.reporter.stage("Attention", len(some), "images") as advance:
        looks = attention_statistics(tower, some, progress=advance)
    if "attention" in arrays.shapes:
        union = sorted({image for images in shown.values() for image in images})
        place = {image: i for i, image in enumerate(union)}
        wanted = {head: [place[image] for image in images] for head, images in shown.items()}
        maps, values = attention_maps(tower, pixels.take(union), wanted), arrays.open("attention")
        for row, head in enumerate(subject.heads):
            values[row] = 0
            values[row, : len(maps[head])] = maps[head]
        values.flush()
    return looks

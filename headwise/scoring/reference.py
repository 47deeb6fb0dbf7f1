"""Published results: what a known model should score on a known data set, to catch a wrong set-up.

In: names of model and data, the metrics measured. Out: published beside measured, and whether they deviate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from headwise.scoring.prompts import shipped

CLASSIFICATION: tuple[str, ...] = ("acc1",)
RETRIEVAL: tuple[str, ...] = ("image_retrieval_recall@1", "text_retrieval_recall@1")


@dataclass(frozen=True)
class Reference:
    """A published result.

    Arguments:
        model, dataset: their usual names.
        metrics: clip_benchmark's names → fractions.
        tolerance: how far a right set-up may be off, as a fraction.
        source: who published it.
    """

    model: str
    dataset: str
    metrics: dict[str, float]
    tolerance: float
    source: str


@dataclass(frozen=True)
class Compared:
    """One metric, published and measured, as fractions."""

    metric: str
    expected: float
    measured: float
    deviates: bool


def reference_for(model: str, dataset: str, images: int | None = None) -> Reference | None:
    """The published result of this model on this data set; None where there is none.

    Arguments:
        model: as the user typed it: `hf:openai/clip-vit-base-patch32`, `open_clip:ViT-B-32/openai`, …
        dataset: as the user typed it; a path or a hub id with the data set's name in it.
        images: the gallery's size. Recall depends on it, so another size than the published one has no reference.
    """
    table = shipped("reference")
    assert isinstance(table, dict)
    for row in table["models"]:
        if not re.search(row["match"], model.lower().rstrip("/")):
            continue
        for name, known in table["datasets"].items():
            text = dataset.lower()
            if not re.search(known["match"], text) or (known["not"] and re.search(known["not"], text)):
                continue
            if name in row["results"] and images in (None, known["images"]):
                values = row["results"][name]
                metrics = dict(zip(RETRIEVAL if len(values) == 2 else CLASSIFICATION, values, strict=True))
                return Reference(row["name"], name, metrics, table["tolerance"], row["source"])
    return None


def compare(reference: Reference, metrics: Mapping[str, float]) -> tuple[Compared, ...]:
    """Expected beside measured; a deviation above the tolerance is marked."""
    return tuple(
        Compared(name, value, metrics[name], abs(metrics[name] - value) > reference.tolerance + 1e-9)
        for name, value in reference.metrics.items()
        if name in metrics
    )

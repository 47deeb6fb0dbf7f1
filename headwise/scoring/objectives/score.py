"""What every objective is given and what it hands back.

In: embeddings of the images of one split, (N, E). Out: `Score`: fitness, loss, metrics, hits at each independent
unit, and the ranks from which all but the loss can be computed again. It does not know which mask made the
embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch

from headwise.errors import HeadwiseError
from headwise.scoring.design import Design
from headwise.scoring.ranking import unit

LOSS_DIGITS = 5  # of a loss count: its float32 sums agree in about seven, on any machine


@dataclass(frozen=True)
class Score:
    """How good one set of image embeddings is.

    Arguments:
        fitness: what searches maximise, 0…1.
        loss: breaks ties of fitness; lower is better.
        metrics: clip_benchmark's names → fractions.
        hits: int64 (N, P), what was counted at each independent unit (an image; for Cola a pair of images or a
            query): whole numbers, so that equal scores are equal and sums have no error. Paired differences of hits
            are what is tested.
        ranks: name → int32 ranks, 0-based, from which `metrics` and `hits` can be computed again.
        design: how hits make the fitness; None: their mean.
    """

    fitness: float
    loss: float
    metrics: dict[str, float]
    hits: np.ndarray = field(repr=False)
    ranks: dict[str, np.ndarray] = field(repr=False)
    design: Design | None = field(default=None, repr=False)

    @property
    def plan(self) -> Design:
        """How hits make the fitness."""
        return Design.mean(len(self.hits)) if self.design is None else self.design

    @property
    def units(self) -> np.ndarray:
        """What each unit contributes, float64 (N,); their mean is the fitness."""
        return self.plan.units(self.hits)

    @property
    def order(self) -> tuple[float, float]:
        """Sorts from worse to better; rounded, so that the last bits, which another machine or another number of
        threads sums otherwise, decide nothing. What is not a number is worst."""
        fitness, loss = (rounded(value, digits) for value, digits in ((self.fitness, 8), (self.loss, LOSS_DIGITS)))
        return -math.inf if math.isnan(fitness) else fitness, -math.inf if math.isnan(loss) else -loss


def rounded(value: float, digits: int) -> float:
    """A value with so many significant digits."""
    return float(f"{value:.{digits - 1}e}")


class Objective(Protocol):
    """Embeddings of the images of one split → a score."""

    @property
    def name(self) -> str:
        """What is measured, in a word."""
        ...

    @property
    def images(self) -> int:
        """N, how many images an evaluation needs."""
        ...

    @property
    def design(self) -> Design:
        """How the hits of a score make its fitness."""
        ...

    @property
    def spec(self) -> dict[str, object]:
        """What was asked for, as JSON values: part of a study's key."""
        ...

    def __call__(self, embeddings: torch.Tensor, /) -> Score:
        """Score embeddings (N, E), any float type, not normalised."""
        ...

    def score_from_ranks(self, ranks: Mapping[str, np.ndarray], loss: float) -> Score:
        """The whole score from what a study stores: ranks and loss."""
        ...


def multiply_on(device: str) -> torch.device:
    """Where exact products run: Apple's `mps` has no float64, so the CPU stands in."""
    return torch.device("cpu" if device.startswith("mps") else device)


def unit_images(embeddings: torch.Tensor, images: int, device: str) -> torch.Tensor:
    """Image embeddings at length 1, float64 (N, E).

    Raises:
        HeadwiseError: a wrong number of images, or a value that is not finite.
    """
    if len(embeddings) != images:
        raise HeadwiseError(f"The objective is about {images} images; {len(embeddings)} embeddings came.")
    return unit(embeddings.to(multiply_on(device)), "image")


def check_width(embeddings: torch.Tensor, texts: torch.Tensor) -> None:
    """
    Raises:
        HeadwiseError: image and text embeddings of different widths.
    """
    if embeddings.shape[1] != texts.shape[1]:
        shapes = f"{tuple(embeddings.shape)} and {tuple(texts.shape)}"
        raise HeadwiseError(f"Image and text embeddings must be equally wide; they are {shapes}.")

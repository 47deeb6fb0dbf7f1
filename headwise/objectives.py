"""Embeddings → a score: what a search maximises, what is reported, and what is tested per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from headwise.errors import HeadwiseError
from headwise.metrics import Units, check_loss, checked_owner, per_image_hits, recalls, retrieve, unit


@dataclass(frozen=True)
class Score:
    """How good one set of image embeddings is.

    Arguments:
        fitness: what searches maximise, 0…1.
        loss: breaks ties of fitness; lower is better.
        metrics: clip_benchmark's names → fractions.
        units: float32 (N,), each image's contribution; their paired differences are what is tested.
        ranks: name → int32 ranks, 0-based, from which `metrics` and `units` can be computed again.
    """

    fitness: float
    loss: float
    metrics: dict[str, float]
    units: np.ndarray
    ranks: dict[str, np.ndarray]

    @property
    def order(self) -> tuple[float, float]:
        """Sorts from worse to better."""
        return self.fitness, -self.loss


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Mean recall of image ↔ text retrieval, within one split.

    Arguments:
        texts: embeddings of the captions (T, E), normalised or not.
        owner: (T,), the image of each caption.
        scale, bias, loss: as `metrics.retrieve`.
        device: where to multiply.
    """

    texts: torch.Tensor
    owner: np.ndarray
    scale: float = 100.0
    bias: float = 0.0
    loss: str = "softmax"
    device: str = "cpu"
    name = "retrieval"

    def __post_init__(self) -> None:
        check_loss(self.loss, self.scale, self.bias)
        object.__setattr__(self, "owner", checked_owner(self.owner, self.images, len(self.texts)))

    @property
    def images(self) -> int:
        """N, the number of images that an evaluation needs."""
        return int(np.max(self.owner, initial=-1)) + 1

    @cached_property
    def _texts(self) -> Units:
        device = "cpu" if self.device.startswith("mps") else self.device
        return Units(unit(self.texts.to(device), "text"), "text", prepared=True)

    @property
    def spec(self) -> dict[str, object]:
        """What was asked for, as JSON values: part of a study's key."""
        return {
            "name": self.name,
            "fitness": "mean_recall",
            "ties": "pessimistic",
            "loss": self.loss,
            "scale": round(self.scale, 6),
            "bias": round(self.bias, 6),
            "images": self.images,
            "captions": len(self.owner),
        }

    def __call__(self, embeddings: torch.Tensor) -> Score:
        """
        Arguments:
            embeddings: of the split's images (N, E), any float type, not normalised.

        Raises:
            HeadwiseError: a wrong shape, or a value that is not finite.
        """
        if len(embeddings) != self.images:
            raise HeadwiseError(f"The objective is about {self.images} images; {len(embeddings)} embeddings came.")
        x = Units(unit(embeddings.to(self._texts.rows.device)), "image", prepared=True)
        found = retrieve(
            x, self._texts, self.owner, loss=self.loss, scale=self.scale, bias=self.bias, device=self.device
        )
        return self.score_from_ranks(found.ranks, found.loss)

    def score_from_ranks(self, ranks: Mapping[str, np.ndarray], loss: float) -> Score:
        """The whole score from what a study stores: ranks and loss."""
        metrics = recalls(ranks)
        return Score(metrics["mean_recall"], loss, metrics, per_image_hits(ranks, self.owner), dict(ranks))

"""Mean recall of image ↔ text retrieval.

    mean_recall = ½ · mean over k of R@k(text → image) + ½ · mean over k of R@k(image → text)       k ∈ {1, 5, 10}

In: embeddings of a split's images, (N, E); the captions' (T, E) are given once. Out: a `Score` with a rank for every
query. Recall as in Karpathy and Fei-Fei (arXiv 1412.2306) and clip_benchmark, but for ties, which count against the
query. Ranks themselves are made in `scoring/ranking.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from headwise.scoring.design import Design
from headwise.scoring.objectives.score import Score, multiply_on, unit_images
from headwise.scoring.ranking import Units, check_loss, checked_owner, retrieve, unit
from headwise.scoring.recall import per_image_hits, recalls, retrieval_design


@dataclass(frozen=True, eq=False)
class Retrieval:
    """Mean recall of image ↔ text retrieval, within one split.

    Arguments:
        texts: embeddings of the captions (T, E), normalised or not.
        owner: (T,), the image of each caption.
        same: (T,), which text each caption is, where a text is the caption of several images: it is then one query.
        scale, bias, loss: as `ranking.retrieve`.
        device: where to multiply.
        distractors: embeddings of texts that belong to no image (D, E): wrong answers to every image, and no queries.

    Raises:
        HeadwiseError: owners that do not fit, or a loss, scale or bias that no model has.
    """

    texts: torch.Tensor
    owner: np.ndarray
    scale: float = 100.0
    bias: float = 0.0
    loss: str = "softmax"
    device: str = "cpu"
    same: np.ndarray | None = None
    distractors: torch.Tensor | None = None
    name = "retrieval"

    def __post_init__(self) -> None:
        check_loss(self.loss, self.scale, self.bias)
        object.__setattr__(self, "owner", checked_owner(self.owner, self.images, len(self.texts)))

    @property
    def images(self) -> int:
        """N, how many images an evaluation needs."""
        return int(np.max(self.owner, initial=-1)) + 1

    @property
    def unique_texts(self) -> torch.Tensor:
        """Each text once, in the order of `same`."""
        return self.texts if self.same is None else self.texts[np.unique(self.same, return_index=True)[1]]

    @cached_property
    def _texts(self) -> Units:
        texts = self.unique_texts if self.distractors is None else torch.cat([self.unique_texts, self.distractors])
        return Units(unit(texts.to(multiply_on(self.device)), "text"), "text", prepared=True)

    @property
    def foreign(self) -> int:
        """D, how many texts belong to no image."""
        return 0 if self.distractors is None else len(self.distractors)

    @property
    def design(self) -> Design:
        """See `Objective.design`."""
        return self._design

    @cached_property
    def _design(self) -> Design:
        """How hits make the fitness."""
        return retrieval_design(self.owner, self.same, self.images)

    @property
    def spec(self) -> dict[str, object]:
        """See `Objective.spec`."""
        return {
            "name": self.name,
            "fitness": "mean_recall",
            "ties": "pessimistic",
            "loss": self.loss,
            "scale": round(self.scale, 6),
            "bias": round(self.bias, 6),
            "images": self.images,
            "captions": len(self.owner) if self.same is None else int(self.same.max()) + 1,
            **({"distractors": self.foreign} if self.foreign else {}),
        }

    def __call__(self, embeddings: torch.Tensor, /) -> Score:
        """
        Raises:
            HeadwiseError: a wrong shape, or a value that is not finite.
        """
        x = Units(unit_images(embeddings, self.images, self.device), "image", prepared=True)
        options = {"loss": self.loss, "scale": self.scale, "bias": self.bias, "device": self.device}
        options["distractors"] = self.foreign
        found = retrieve(x, self._texts, self.owner, of=self.same, **options)
        return self.score_from_ranks(found.ranks, found.loss)

    def score_from_ranks(self, ranks: Mapping[str, np.ndarray], loss: float) -> Score:
        """See `Objective.score_from_ranks`."""
        metrics = recalls(ranks)
        hits = per_image_hits(ranks, self.owner, self.same)
        return Score(metrics["mean_recall"], loss, metrics, hits, dict(ranks), self.design)

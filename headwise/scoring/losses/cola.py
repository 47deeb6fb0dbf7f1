"""Losses of Cola's two tasks, those by which their objectives break ties.

    multi-object   mean over captions of softplus(−scale · (cos(own image, c) − cos(other image, c)))
    single-object  mean over queries of (mean cosine of the images that count − that of the images it holds for)

In: a batch's embeddings (B, E) and which images they are. Out: terms whose sum is the loss. The task is of Ray et al.
(arXiv 2305.03689), these losses are this library's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from headwise.scoring.losses.contract import TILE, places, unit


@dataclass(frozen=True, eq=False)
class PairTexts:
    """A `Loss` for Cola's multi-object task: the mean over captions of softplus(−scale · (cosine with the own image −
    cosine with the other image of the pair)).

    Arguments:
        texts: embeddings of the captions at length 1, (N, E), one per image, on the device of the image embeddings.
        partner: (N,) int64, the other image of each image's pair, on the same device.
        scale: similarity → logit.
        units: the pairs.
    """

    texts: torch.Tensor
    partner: torch.Tensor
    scale: float
    units: Sequence[Sequence[int]]

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.partner)

    def terms(self, embeddings: torch.Tensor, numbers: torch.Tensor, *, tile: int = TILE) -> Iterator[torch.Tensor]:
        """See `Loss.terms`; one term, because it needs no matrix."""
        x = unit(embeddings)  # (B, E)
        other = x[places(numbers, self.images)[self.partner[numbers]]]  # (B, E)
        margin = ((x - other) * self.texts[numbers].to(x.dtype)).sum(1)  # (B)
        yield F.softplus(-self.scale * margin).mean()


@dataclass(frozen=True, eq=False)
class Queries:
    """A `Loss` for Cola's single-object task: the mean over queries of the mean cosine of all images that count less
    that of the images for which the query holds. Queries without such an image in the batch take no part.

    Arguments:
        texts: embeddings of the queries at length 1, (C, E), on the device of the image embeddings.
        present, counted: bool (N, C), as `headwise.scoring.objectives.SingleObject`, on the same device.
    """

    texts: torch.Tensor
    present: torch.Tensor
    counted: torch.Tensor
    units = None

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.present)

    def terms(self, embeddings: torch.Tensor, numbers: torch.Tensor, *, tile: int = TILE) -> Iterator[torch.Tensor]:
        """See `Loss.terms`."""
        counted = self.counted[numbers]  # (B, C)
        own = self.present[numbers] & counted  # (B, C)
        asked = own.any(0)  # (C)
        share = counted / counted.sum(0).clamp_min(1) - own / own.sum(0).clamp_min(1)  # (B, C)
        share = share * (asked / asked.sum().clamp_min(1))
        for part in torch.arange(len(numbers), device=numbers.device).split(max(1, tile // len(self.texts))):
            x = unit(embeddings[part])  # (b, E)
            yield ((x @ self.texts.to(x.dtype).T) * share[part].to(x.dtype)).sum()

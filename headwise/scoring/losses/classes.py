"""Cross-entropy of images with labels: against the class names' embeddings, or against the classes' own means.

    mean over n of u_n · −log softmax_c(scale · cos(x_n, w_c))[y_n]       x (B, E), w (C, E), y (B), u (N) on average 1

In: a batch's embeddings and which images they are. Out: terms whose sum is the loss. u weighs classes or groups alike
where the fitness does. With means (Snell et al., arXiv 1703.05175) w comes from the batch and leaves each image out
of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from headwise.scoring.losses.contract import TILE, unit


@dataclass(frozen=True, eq=False)
class Labels:
    """A `Loss`: the mean over the batch's images of weight · −log softmax of the own class among all classes.

    Arguments:
        classes: text embeddings at length 1, (C, E), on the device of the image embeddings.
        labels: (N,) int64, the class of each image, on the same device.
        weights: (N,), what each image counts, on average 1; see `balanced`.
        scale: similarity → logit.
    """

    classes: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor
    scale: float = 100.0
    units = None

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.labels)

    def terms(self, embeddings: torch.Tensor, numbers: torch.Tensor, *, tile: int = TILE) -> Iterator[torch.Tensor]:
        """See `Loss.terms`."""
        for part in torch.arange(len(numbers), device=numbers.device).split(max(1, tile // len(self.classes))):
            x = unit(embeddings[part])  # (b, E)
            logits = self.scale * (x @ self.classes.to(x.dtype).T)  # (b, C)
            each = F.cross_entropy(logits, self.labels[numbers[part]], reduction="none")  # (b)
            yield (each * self.weights[numbers[part]]).sum() / len(numbers)


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """A `Loss` for models without a text tower: as `Labels`, against the means of the batch's own classes.

    Each image is left out of its class's mean, as `headwise.scoring.objectives.Prototypes` does; an image whose class has no
    other in the batch takes no part. Images of one class come two by two, so that a batch of few images of many
    classes has something to say. (Learning from the classes of a batch alone: Snell et al., arXiv 1703.05175.)

    Arguments:
        count: C, the number of classes.
        labels, weights, scale: as for `Labels`.
        units: two images of one class each (one of three where their number is odd).
    """

    count: int
    labels: torch.Tensor
    weights: torch.Tensor
    scale: float
    units: Sequence[Sequence[int]]

    @property
    def images(self) -> int:
        """How many images there are."""
        return len(self.labels)

    def terms(self, embeddings: torch.Tensor, numbers: torch.Tensor, *, tile: int = TILE) -> Iterator[torch.Tensor]:
        """See `Loss.terms`."""
        own, weights = self.labels[numbers], self.weights[numbers]  # (B) each
        size = torch.bincount(own, minlength=self.count)  # (C)
        told = (size[own] > 1).to(weights.dtype)  # (B)
        for part in torch.arange(len(numbers), device=numbers.device).split(max(1, tile // self.count)):
            x = unit(embeddings)  # (B, E)
            sums = x.new_zeros(self.count, x.shape[1]).index_add(0, own, x)  # (C, E)
            label = own[part]  # (b)
            mine = (x[part] * unit(sums[label] - x[part])).sum(1, keepdim=True)  # (b, 1)
            s = (x[part] @ unit(sums).T).masked_fill(size == 0, -torch.inf).scatter(1, label[:, None], mine)  # (b, C)
            each = F.cross_entropy(self.scale * s, label, reduction="none") * told[part]  # (b)
            yield (each * weights[part]).sum() / told.sum().clamp_min(1)


def balanced(index: np.ndarray) -> np.ndarray:
    """Weights with which every value of `index` counts the same and the mean is 1, float32 (N,)."""
    _, place, count = np.unique(index, return_inverse=True, return_counts=True)
    return (len(index) / (len(count) * count[place])).astype(np.float32)


def pairs_of_a_class(labels: np.ndarray) -> tuple[tuple[int, ...], ...]:
    """All images, two by two within their classes."""
    found = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label).tolist()
        cuts = [members[start : start + 2] for start in range(0, len(members), 2)]
        if len(cuts) > 1 and len(cuts[-1]) == 1:
            cuts[-2:] = [cuts[-2] + cuts[-1]]
        found += [tuple(cut) for cut in cuts]
    return tuple(found)

"""The weighted mean of several losses, over one or several data sets.

    Σ_p w_p · (n_p / B) · (N / N_p) · loss_p(batch's images of p)       n_p: how many of the B images are of part p

In: a batch's embeddings (B, E) and which of all images they are. Out: the parts' terms, weighted. Over batches a part
counts by its weight alone. It does not know what its parts' losses are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from headwise.scoring.losses.contract import TILE, Loss


@dataclass(frozen=True, eq=False)
class Share:
    """
    Arguments:
        loss: of one part.
        start: where its images begin among all images; parts may share images.
        weight: its share, all of them together 1.
    """

    loss: Loss
    start: int
    weight: float


@dataclass(frozen=True, eq=False)
class Mixture:
    """A `Loss`: Σ weight · loss of each part.

    In a batch a part counts by how many of its images are there, n, against how many one would expect: its weight is
    multiplied by (n / B) · (N / N of the part). Over batches that is its weight again, and a part with one image in
    a batch is not heard as loudly as one with fifty.

    Arguments:
        parts: at least one.
        images: N.
    """

    parts: tuple[Share, ...]
    images: int

    @property
    def units(self) -> Sequence[Sequence[int]] | None:
        """The parts' units; those that share an image are one."""
        if all(part.loss.units is None for part in self.parts):
            return None
        found: dict[tuple[int, ...], None] = {}  # parts that share images share units
        for part in self.parts:
            units = part.loss.units or [(i,) for i in range(part.loss.images)]
            found |= {tuple(i + part.start for i in unit): None for unit in units}
        return joined(list(found))

    def terms(self, embeddings: torch.Tensor, numbers: torch.Tensor, *, tile: int = TILE) -> Iterator[torch.Tensor]:
        """See `Loss.terms`."""
        for part in self.parts:
            own = numbers - part.start
            here = (own >= 0) & (own < part.loss.images)  # (B)
            count = int(here.sum())
            if count:
                factor = part.weight * (count / len(numbers)) * (self.images / part.loss.images)
                mine = _Rows.apply(embeddings, here.nonzero()[:, 0])  # (b, E)
                for term in part.loss.terms(mine, own[here], tile=tile):
                    yield factor * term


class _Rows(torch.autograd.Function):
    """Some rows of a matrix, as indexing takes them, through which several terms can go backward one after the other:
    indexing itself frees its saved tensors after the first."""

    @staticmethod
    def forward(ctx, x: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        ctx.numbers, ctx.shape = numbers, x.shape
        return x[numbers]

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:  # type: ignore[override]
        return gradient.new_zeros(ctx.shape).index_add_(0, ctx.numbers, gradient), None


def joined(units: Sequence[Sequence[int]]) -> tuple[tuple[int, ...], ...]:
    """Units that share an image become one; every image is then in exactly one."""
    of: dict[int, list[int]] = {}
    for unit in units:
        whole = list(dict.fromkeys([i for image in unit for i in of.get(image, [image])]))
        of |= dict.fromkeys(whole, whole)
    return tuple(dict.fromkeys(tuple(sorted(unit)) for unit in of.values()))

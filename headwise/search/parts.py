"""A batch's embeddings under edits, and the gradients of the edits' numbers n, a part of the images at a time.

    e = [e_1; …; e_P]        ∂L/∂n = Σ_p (∂e_p/∂n)ᵀ ∂L/∂e_p, summed in the order of the parts

A part holds the same images whoever computes it, so that this process alone and any number of workers end with the same
bits. In: a tower, images, rows of edits. Out: embeddings with gradients to the rows' tensors. It does not know the loss,
nor what the numbers mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from headwise.edits.operators import Look, Row
from headwise.evaluation.engine import Pixels, for_others
from headwise.search.gated import frozen, gather, under
from headwise.towers.base import Tower

PART = 16  # images
KEPT = 2  # batches whose graphs are kept: a step's images and its anchors
Rows = Sequence[Row | None]


class Calls(Protocol):
    """Who computes parts: see `crew.Crew.call`; None in its place: this process."""

    def call(self, function: Callable[[Tower, Any], object], arguments: Sequence[object]) -> list[Any]: ...


@dataclass(frozen=True)
class Part:
    """Some images of a batch.

    Arguments:
        batch, number: of which batch, and which part of it.
        source: which pixels.
        images: (B) int64.
        rows: the edits.
        wanted: whether gradients will be asked for.
        gradient: ∂L/∂e, (B, E); None: embeddings are asked for.
    """

    batch: int
    number: int
    source: int
    images: torch.Tensor
    rows: Rows
    wanted: bool
    gradient: torch.Tensor | None = None


class Parts:
    """Computes parts; pickled to workers without the graphs that it keeps between forward and backward.

    Arguments:
        sources: pixels, each (N, 3, R, R).
        recompute, autocast: as `gated.under`; run the tower in bfloat16.
    """

    def __init__(self, sources: Sequence[Pixels], recompute: bool, autocast: bool):
        self.sources, self.recompute, self.autocast = tuple(sources), recompute, autocast
        self._graphs: dict[tuple[int, int], tuple[torch.Tensor, list[torch.Tensor]]] = {}

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "sources": tuple(map(for_others, self.sources)), "_graphs": {}}

    def __call__(self, tower: Tower, part: Part) -> torch.Tensor | list[torch.Tensor | None]:
        """Embeddings (B, E) float32, or the gradient of each of the rows' tensors; on the CPU."""
        if part.gradient is None:
            return self._forward(tower, part)[0].detach().cpu()
        key = (part.batch, part.number)
        e, leaves = self._graphs.pop(key) if key in self._graphs else self._forward(tower, part)
        self._graphs.pop(key, None)
        wanted = [leaf for leaf in leaves if leaf.requires_grad]
        found = iter(torch.autograd.grad(e, wanted, part.gradient.to(e), allow_unused=True))
        gradients = [next(found) if leaf.requires_grad else None for leaf in leaves]
        return [None if g is None else g.cpu() for g in gradients]

    def _forward(self, tower: Tower, part: Part) -> tuple[torch.Tensor, list[torch.Tensor]]:
        leaves = [t.detach().to(tower.device) for t in _tensors(part.rows)]
        for leaf in leaves:
            leaf.requires_grad_(part.wanted and leaf.is_floating_point())
        images = gather(tower, self.sources[part.source], part.images)  # (B, 3, R, R)
        with (
            frozen(tower.parts),
            torch.set_grad_enabled(part.wanted),
            torch.autocast(tower.device.type, torch.bfloat16, enabled=self.autocast),
        ):
            e = under(tower, images, _with(part.rows, leaves), recompute=self.recompute).float()  # (B, E)
        if part.wanted:
            self._graphs[part.batch, part.number] = e, leaves
            for old in [key for key in self._graphs if key[0] <= part.batch - KEPT]:
                del self._graphs[old]
        return e, leaves


class Embedder:
    """Embeddings of batches, with gradients.

    Arguments:
        tower: in float32.
        parts: what computes a part.
        workers: who computes parts; None: this process.
    """

    def __init__(self, tower: Tower, parts: Parts, workers: Calls | None = None):
        self.tower, self.parts, self.workers, self.batches = tower, parts, workers, 0

    def __call__(self, source: int, images: torch.Tensor, rows: Rows) -> torch.Tensor:
        """Embeddings (B, E) float32 of these images, (B) int64, on the tower's device."""
        return _Batch.apply(self, source, images, rows, *_tensors(rows))

    def run(self, parts: Sequence[Part]) -> list[Any]:
        """What `Parts` gives for each."""
        if self.workers is not None:
            return self.workers.call(self.parts, parts)
        return [self.parts(self.tower, part) for part in parts]


class _Batch(torch.autograd.Function):
    @staticmethod
    def forward(ctx, embedder: Embedder, source: int, images: torch.Tensor, rows: Rows, *tensors: torch.Tensor):
        embedder.batches += 1
        wanted = any(tensor.requires_grad for tensor in tensors)
        bare = _with(rows, [tensor.detach().cpu() for tensor in tensors])
        ctx.embedder, ctx.devices = embedder, [tensor.device for tensor in tensors]
        ctx.parts = [
            Part(embedder.batches, number, source, some, bare, wanted) for number, some in enumerate(images.split(PART))
        ]
        return torch.cat(embedder.run(ctx.parts)).to(embedder.tower.device)  # (B, E)

    @staticmethod
    def backward(ctx, *gradients: torch.Tensor):
        pieces = gradients[0].cpu().split(PART)  # (B, E) in parts
        parts = [replace(part, gradient=piece) for part, piece in zip(ctx.parts, pieces, strict=True)]
        found = ctx.embedder.run(parts)
        sums = [_sum(column) for column in zip(*found, strict=True)]
        return None, None, None, None, *(g if g is None else g.to(d) for g, d in zip(sums, ctx.devices, strict=True))


def _sum(terms: Sequence[torch.Tensor | None]) -> torch.Tensor | None:
    total = terms[0]
    for term in terms[1:]:
        total = term if total is None else total if term is None else total + term
    return total


FIELDS = ("gain", "constant", "first", "heads", "maps")  # of a row


def _tensors(rows: Rows) -> list[torch.Tensor]:
    """All tensors of rows, in the order in which `_with` takes others."""
    found = []
    for row in rows:
        if row is not None:
            found += [getattr(row, name) for name in FIELDS]
            found += [t for look in row.looks for t in (look.heads, look.numbers)]
    return [t for t in found if t is not None]


def _with(rows: Rows, tensors: Sequence[torch.Tensor]) -> list[Row | None]:
    """The same rows with other tensors in place of their own."""
    rest = iter(tensors)

    def other(t: torch.Tensor | None) -> torch.Tensor | None:
        return None if t is None else next(rest)

    def row_with(row: Row) -> Row:
        values = {name: other(getattr(row, name)) for name in FIELDS}
        return Row(tuple(Look(look.name, other(look.heads), other(look.numbers)) for look in row.looks), **values)

    return [None if row is None else row_with(row) for row in rows]

"""Heads that an edit removes, physically removed: smaller projections, uneven blocks, the same function.

    W_q, W_k, W_v, W_out without the rows and columns of removed heads; what they emitted is in W_out's bias

In: a tower, or a library's model, and a mask that folds. Out: a copy of it with fewer heads, compared with the folded
one. Where heads lie is known in `towers/shrink.py`.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.shipping.edited import folded_copy, removed
from headwise.shipping.graphs import ImageGraph
from headwise.towers.base import Tower, evaluating
from headwise.towers.shrink import shrink, shrinkable

CLOSE = 1e-4  # largest difference to the folded model, relative to the largest value: another order of sums


@dataclass(frozen=True)
class Pruned:
    """A tower with fewer heads.

    Arguments:
        tower: it walks, and its library's own forward runs, with uneven heads.
        kept: the heads that are left, per row, by their numbers before.
        gone: how many heads were cut out.
        folded: how many removed heads stayed as folded weights, since they cannot be cut out of their modules.
    """

    tower: Tower
    kept: tuple[tuple[int, ...], ...]
    gone: int
    folded: int

    @property
    def sentence(self) -> str:
        """For a terminal."""
        rest = f"; {self.folded} more stayed as folded weights" if self.folded else ""
        empty = sum(not row for row in self.kept)
        blocks = f", {empty} of {len(self.kept)} blocks without attention" if empty else ""
        return f"{self.gone} heads cut out{blocks}{rest}."


def pruned(tower: Tower, mask: Mask) -> Pruned:
    """A copy of a tower without the heads that a mask removes; everything else that it does is folded.

    Arguments:
        tower: unchanged.
        mask: for its grid, one that folds.

    Raises:
        HeadwiseError: the mask does not fold; or the smaller tower computes something else.
    """
    folded = folded_copy(tower, mask)
    wanted = _answer(folded)
    cut = cut_out(folded, removed(mask))
    difference = float((_answer(cut.tower) - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30))
    own = float((_own(cut.tower) - wanted).abs().max() / wanted.abs().max().clamp_min(1e-30))
    if not max(difference, own) <= CLOSE:  # also for NaN
        raise HeadwiseError(
            f"The pruned {tower.family} differs from the folded one by {max(difference, own):.3g} of the largest value "
            "in an embedding, so it was not kept. Please report its configuration."
        )
    return cut


def cut_out(tower: Tower, gone: Sequence[Sequence[int]]) -> Pruned:
    """Cut heads out of a tower in place; what they emit has to be folded already.

    Arguments:
        tower: a copy that may change.
        gone: heads to cut out, per row.
    """
    pairs = _returns_pair(tower)
    blocks, kept, count, left = [], [], 0, 0
    for row, (block, heads) in enumerate(zip(tower.blocks, gone, strict=True)):
        keep = tuple(head for head in range(block.heads) if head not in heads)
        if heads and not shrinkable(block):
            keep, left = tuple(range(block.heads)), left + len(heads)
        elif heads:
            count += len(heads)
            block = shrink(block, keep, pair=pairs[row])
        blocks.append(block)
        kept.append(keep)
    counts = [len(keep) for keep in kept]
    grid = Grid(tuple(counts[: len(tower.grid.layers)]), tower.grid.pool)
    return Pruned(replace(tower, blocks=tuple(blocks), grid=grid), tuple(kept), count, left)


def pruned_module(module: nn.Module, tower_of: Any, mask: Mask) -> tuple[nn.Module, Pruned]:
    """A copy of a library's model whose image tower is pruned: its own methods run as before.

    Arguments:
        module: unchanged.
        tower_of: module → its tower (`headwise.towers.tower_of`).

    Raises:
        HeadwiseError: as `pruned`.
    """
    from headwise.applied.fold import changes, check_folds

    twin = copy.deepcopy(module).to(device="cpu", dtype=torch.float32).eval()
    tower = tower_of(twin)
    check_folds(tower, mask)
    with torch.no_grad():
        for change in changes(tower, mask, twin):
            change.view.copy_(change.value)
    return twin, cut_out(tower, removed(mask))


def program(tower: Tower, mask: Mask | None = None) -> torch.export.ExportedProgram:
    """A tower as a `torch.export` program, images (B, 3, R, R) → embeddings (B, E), for any B.

    Arguments:
        tower: pruned or not, in float32 on the CPU.
        mask: what does not fold; None: nothing.
    """
    images = torch.randn(2, 3, tower.resolution, tower.resolution)
    with torch.no_grad():
        return torch.export.export(
            ImageGraph(tower, mask), (images,), dynamic_shapes={"images": {0: torch.export.Dim.DYNAMIC}}
        )


def _returns_pair(tower: Tower) -> list[bool]:
    """Whether each row's attention returns a pair: looked at while the library's own forward runs once."""
    found = [False] * len(tower.blocks)

    def look(row: int) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            found[row] = isinstance(output, tuple)

        return hook

    handles = [block.site.register_forward_hook(look(row)) for row, block in enumerate(tower.blocks)]
    try:
        _own(tower)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _probe(tower: Tower) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(2, 3, tower.resolution, tower.resolution, generator=generator)


@torch.no_grad()
def _answer(tower: Tower) -> torch.Tensor:
    """What the tower's walk gives for two random images, (2, E)."""
    return ImageGraph(tower)(_probe(tower))


@torch.no_grad()
def _own(tower: Tower) -> torch.Tensor:
    """What the library's own forward gives for two random images, (2, E)."""
    with evaluating(tower.parts):
        return tower.encode(_probe(tower))

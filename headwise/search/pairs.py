"""Which two heads to suppress at once, from what the sweep already knows of each: no FFE.

    cancel(a, b) = ‖Δ_a‖ + ‖Δ_b‖ − ‖Δ_a + Δ_b‖       loud(a, b) = ‖Δ_a‖ · ‖Δ_b‖

Δ_h, (N, E): what suppressing h alone adds to the embeddings of all images. Two heads that write nearly the same with
opposite signs look useful one by one, because suppressing either sets the other free: their Δ point away from each
other. Two of which either is enough to drown the picture look harmless one by one, yet both move the embeddings most.
Sums of Δ as estimates of a pair (`anchors.py`) find neither where a LayerNorm saturates. This library's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import combinations

import torch

from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.search.deltas import HeadDeltas


class Pairs:
    """Proposes pairs of heads on top of a mask.

    Arguments:
        changes: of every single head, (heads, N, E).
    """

    def __init__(self, changes: HeadDeltas):
        self.changes = changes

    @cached_property
    def norms(self) -> torch.Tensor:
        """‖Δ_h‖ of each head, (H) float64."""
        return self._inner.diagonal().sqrt()

    @cached_property
    def _inner(self) -> torch.Tensor:
        """⟨Δ_a, Δ_b⟩, (H, H) float64."""
        flat = self.changes.changes.flatten(1)  # (H, N·E) float16
        inner = torch.zeros(len(flat), len(flat), dtype=torch.float64)  # (H, H)
        for part in flat.split(1 << 16, dim=1):
            block = part.float()
            inner += (block @ block.T).double()
        return inner

    @cached_property
    def ranked(self) -> tuple[tuple[Head, Head], ...]:
        """All pairs of heads: in turn the one whose changes cancel most, and the loudest, of those that are left."""
        heads, inner, norm = self.changes.heads, self._inner, self.norms
        both = (inner.diagonal()[:, None] + inner.diagonal()[None] + 2 * inner).clamp_min(0).sqrt()  # (H, H)
        cancel = norm[:, None] + norm[None] - both  # (H, H)
        pairs = list(combinations(range(len(heads)), 2))
        orders = [sorted(pairs, key=lambda p, by=by: (-float(by[p]), p)) for by in (cancel, norm[:, None] * norm[None])]
        in_turn = dict.fromkeys(pair for both in zip(*orders, strict=True) for pair in both)
        return tuple((heads[a], heads[b]) for a, b in in_turn)

    def __call__(self, mask: Mask, count: int) -> Sequence[Mask]:
        """The mask with two more heads each, at most `count` of them."""
        taken = set(mask.heads)
        found: list[Mask] = []
        for pair in self.ranked:
            if len(found) == count:
                break
            if not taken & set(pair):
                found.append(mask | Mask.suppress(self.changes.grid, pair, self.changes.operator))
        return found

    def loudest(self, sizes: Iterable[int]) -> Sequence[Mask]:
        """For each size the heads with the largest ‖Δ_h‖, together: harm that many heads share is loud in each."""
        norms, heads = self.norms.tolist(), self.changes.heads
        loud = sorted(range(len(heads)), key=lambda i: (-norms[i], i))
        return [
            Mask.suppress(self.changes.grid, [heads[i] for i in loud[:size]], self.changes.operator)
            for size in sizes
            if size <= len(heads)
        ]

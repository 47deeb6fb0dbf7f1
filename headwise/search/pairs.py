"""Which two heads to change at once, from what the sweep already knows of each: no FFE.

    cancel(a, b) = ‖Δ_a‖ + ‖Δ_b‖ − ‖Δ_a + Δ_b‖       loud(a, b) = ‖Δ_a‖ · ‖Δ_b‖

Δ_h, (N, E): what the edit of h alone adds to the embeddings of all images. Two heads that write nearly the same with
opposite signs look useful one by one, because suppressing either sets the other free: their Δ point away from each
other. Two of which either is enough to drown the picture look harmless one by one, yet both move the embeddings most.
Sums of Δ as estimates of a pair (`anchors.py`) find neither where a LayerNorm saturates. This library's own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import islice

import numpy as np
import torch

from headwise.edits.edit import Edit
from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.search.alphabet import Choice
from headwise.search.deltas import Changes


class Pairs:
    """Proposes pairs of heads on top of a mask.

    Arguments:
        changes: of every single head, by one edit or several.
    """

    def __init__(self, changes: Changes):
        self.changes = changes
        self.choices: tuple[Choice, ...] = tuple(changes.rows)

    @cached_property
    def norms(self) -> torch.Tensor:
        """‖Δ_h‖ of each choice, (H) float64."""
        return self._inner.diagonal().sqrt()

    @cached_property
    def _inner(self) -> torch.Tensor:
        """⟨Δ_a, Δ_b⟩, (H, H) float64."""
        flat = [row.flatten() for row in self.changes.rows.values()]  # H of (N·E) float16
        inner = torch.zeros(len(flat), len(flat), dtype=torch.float64)  # (H, H)
        for start in range(0, len(flat[0]), 1 << 16):
            block = torch.stack([row[start : start + (1 << 16)] for row in flat]).float()
            inner += (block @ block.T).double()
        return inner

    @cached_property
    def _order(self) -> tuple[np.ndarray, np.ndarray]:
        """The choices' numbers of `ranked`, (P) each."""
        inner, norm = self._inner, self.norms
        both = (inner.diagonal()[:, None] + inner.diagonal()[None] + 2 * inner).clamp_min(0).sqrt()  # (H, H)
        cancel = norm[:, None] + norm[None] - both  # (H, H)
        first, second = np.triu_indices(len(self.choices), 1)  # (P) each
        heads = {head: number for number, head in enumerate(dict.fromkeys(head for head, _ in self.choices))}
        head = np.array([heads[head] for head, _ in self.choices])  # (H)
        apart = head[first] != head[second]
        first, second = first[apart], second[apart]
        turns = []
        for number, by in enumerate((cancel, norm[:, None] * norm[None])):
            order = np.argsort(-by.numpy()[first, second], kind="stable")  # (P); of equals the first
            place = np.empty(len(order), np.int64)
            place[order] = 2 * np.arange(len(order)) + number
            turns.append(place)
        order = np.argsort(np.minimum(*turns))  # every pair at the first of its two turns
        return first[order], second[order]

    @property
    def ranked(self) -> Iterator[tuple[Choice, Choice]]:
        """All pairs of choices of two heads: in turn the one whose changes cancel most, and the loudest, of those that are left."""
        return ((self.choices[a], self.choices[b]) for a, b in zip(*self._order, strict=True))

    def __call__(self, mask: Mask, count: int) -> Sequence[Mask]:
        """The mask with two more heads each, at most `count` of them."""
        taken = set(mask.heads)
        found: list[Mask] = []
        for pair in self.ranked:
            if len(found) == count:
                break
            if not taken & {head for head, _ in pair}:
                found.append(mask | Mask.of(self.changes.grid, dict(pair)))
        return found

    def loudest(self, sizes: Iterable[int]) -> Sequence[Mask]:
        """For each size the heads with the largest ‖Δ_h‖, together: harm that many heads share is loud in each."""
        norms = self.norms.tolist()
        loud: dict[Head, Edit] = {}
        for i in sorted(range(len(norms)), key=lambda i: (-norms[i], i)):
            loud.setdefault(*self.choices[i])
        return [Mask.of(self.changes.grid, dict(islice(loud.items(), size))) for size in sizes if size <= len(loud)]

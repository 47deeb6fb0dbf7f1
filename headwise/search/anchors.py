"""Estimates that start from the nearest mask that was run, instead of from the unchanged model alone.

ê(S) = e(A) + Σ_{h ∈ S − A} Δ_h − Σ_{h ∈ A − S} Δ_h       e, Δ: (N, E); A: the run mask with the fewest other choices

S, A: sets of choices, a head with its edit. A head whose edit differs counts twice: one choice goes, one comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch

from headwise.edits.mask import Mask
from headwise.search.alphabet import Choice, choices_of
from headwise.search.deltas import Changes

if TYPE_CHECKING:
    from headwise.scoring.objectives import Score

Embed = Callable[[Sequence[Mask]], Iterable[tuple[Mask, torch.Tensor]]]


class Anchors:
    """Masks that were run, and estimates of the others: the nearest of them, moved by the heads that differ.

    A sum of single-head changes leaves out how heads interact. A mask that was run has the interactions of its own
    heads in it; from there only the heads are added up by which another mask differs. The unchanged model is the
    first anchor. Of several that are equally near the mean is taken.

    Memory: images × E × 2 bytes for every anchor.

    Arguments:
        changes: of every single head.
        again: runs masks once more for their embeddings (N, E) float32, all in one walk: for those whose scores came
            from the study.
    """

    def __init__(self, changes: Changes, again: Embed):
        self.changes, self._again = changes, again
        self._anchors: dict[frozenset[Choice], torch.Tensor] = {frozenset(): changes.identity}
        self._seen: dict[str, torch.Tensor] = {}

    def observe(self, mask: Mask, embeddings: torch.Tensor) -> None:
        """An `Evaluator`'s hook: embeddings (N, E) of a mask that is being run."""
        self._seen[mask.key] = embeddings.half()

    def keep(self, masks: Sequence[Mask]) -> None:
        """Make anchors of masks that were just scored; single heads are estimated exactly without.

        A continued run finds the scores in the study and sees no embeddings. It runs the same masks in the same walk,
        so that the anchors have the same bits.
        """
        masks = [mask for mask in masks if mask.size > 1]
        if any(mask.key not in self._seen for mask in masks):
            self._seen = {mask.key: embeddings.half() for mask, embeddings in self._again(masks)}
        self._anchors.update({choices_of(mask): self._seen[mask.key] for mask in masks})  # (N, E) float16 each
        self._seen = {}

    def nearest(self, mask: Mask) -> int:
        """Choices by which a mask differs from the nearest that was run."""
        choices = choices_of(mask)
        return min(len(choices ^ anchor) for anchor in self._anchors)

    def distance(self, mask: Mask) -> int:
        """How many choices' changes are added up without their interactions; 0 where the estimate is exact."""
        return min(max(0, mask.size - 1), self.nearest(mask))

    def embeddings(self, mask: Mask) -> torch.Tensor:
        """Estimated embeddings of a mask, (N, E) float32.

        Raises:
            HeadwiseError: heads whose changes are not known.
        """
        choices, nearest = choices_of(mask), self.nearest(mask)
        anchors = [anchor for anchor in self._anchors if len(choices ^ anchor) == nearest]
        weights = dict.fromkeys(choices, float(len(anchors)))
        total = torch.zeros_like(self.changes.identity)  # (N, E)
        for anchor in anchors:
            total += self._anchors[anchor]
            for choice in anchor:
                weights[choice] = weights.get(choice, 0.0) - 1.0
        return self.changes.moved(total / len(anchors), {c: w / len(anchors) for c, w in weights.items() if w})


class Guesses:
    """Estimated scores for a search that asks step by step (`greedy.py`).

    Arguments:
        anchors: estimated embeddings; an evaluator's `observe`.
        objective: embeddings → score.
    """

    def __init__(self, anchors: Anchors, objective: Callable[[torch.Tensor], Score]):
        self.anchors, self.objective = anchors, objective

    def learn(self, run: Sequence[Mask]) -> None:
        """Masks that one evaluate call ran: all of them become anchors, so that a continued run makes the same."""
        self.anchors.keep(run)

    def __call__(self, masks: Sequence[Mask]) -> list[tuple[float, float]]:
        """Estimated (fitness, −loss)."""
        return [self.objective(self.anchors.embeddings(mask)).order for mask in masks]

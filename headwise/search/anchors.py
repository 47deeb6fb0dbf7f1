"""Estimates that start from the nearest mask that was run, instead of from the unchanged model alone.

ê(S) = e(A) + Σ_{h ∈ S − A} Δ_h − Σ_{h ∈ A − S} Δ_h       e, Δ: (N, E); A: the run mask with the fewest other choices

S, A: sets of choices, a head with its edit. A head whose edit differs counts twice: one choice goes, one comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol

import torch

from headwise.edits.mask import Mask
from headwise.search.alphabet import Choice, choices_of
from headwise.search.deltas import Changes

if TYPE_CHECKING:
    from headwise.scoring.objectives import Score

Embed = Callable[[Sequence[Mask]], Iterable[tuple[Mask, torch.Tensor]]]


class Shelf(Protocol):
    """Keeps the embeddings of sets of masks for a continued run."""

    def take(self, masks: Sequence[Mask], /) -> Sequence[torch.Tensor] | None:
        """Embeddings of each, (N, E) float16; None where they are not there."""
        ...

    def put(self, masks: Sequence[Mask], embeddings: Sequence[torch.Tensor], /) -> None:
        """Keep them."""
        ...


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
        shelf: where embeddings are kept so that they need not run again; None: nowhere.
    """

    def __init__(self, changes: Changes, again: Embed, shelf: Shelf | None = None):
        self.changes, self._again, self._shelf = changes, again, shelf
        self._anchors: dict[frozenset[Choice], torch.Tensor] = {frozenset(): changes.identity}
        self._seen: dict[str, torch.Tensor] = {}

    def observe(self, mask: Mask, embeddings: torch.Tensor) -> None:
        """An `Evaluator`'s hook: embeddings (N, E) of a mask that is being run."""
        self._seen[mask.key] = embeddings.half()

    def keep(self, masks: Sequence[Mask]) -> None:
        """Make anchors of masks that were just scored; single heads are estimated exactly without.

        A continued run finds the scores in the study and sees no embeddings. They are on the shelf, or it runs the same
        masks in the same walk, so that the anchors have the same bits.

        Raises:
            HeadwiseError: the shelf cannot be written.
        """
        masks = [mask for mask in masks if mask.size > 1]
        if masks:
            self._anchors.update(zip(map(choices_of, masks), self._embeddings(masks), strict=True))
        self._seen = {}

    def _embeddings(self, masks: Sequence[Mask]) -> Sequence[torch.Tensor]:
        """Of masks that were just scored, (N, E) float16 each."""
        if any(mask.key not in self._seen for mask in masks):
            if self._shelf is not None and (kept := self._shelf.take(masks)) is not None:
                return kept
            self._seen = {mask.key: embeddings.half() for mask, embeddings in self._again(masks)}
        found = [self._seen[mask.key] for mask in masks]
        if self._shelf is not None:
            self._shelf.put(masks, found)
        return found

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

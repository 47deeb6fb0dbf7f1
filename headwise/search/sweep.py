"""The exhaustive sweep: identity and every head suppressed alone.

    δ_h = f({h}) − f(∅)       h = 1 … H; f: exact fitness on the search split; δ_h > 0: the head was harmful

The ablation of Michel et al. 2019 (arXiv 1905.10650, section 3) on a frozen encoder, with a sign: what suppressing
gains is as interesting as what it costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from headwise.edits.edit import canonical
from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.search.contract import Evaluate, Found, best_of

if TYPE_CHECKING:
    from headwise.scoring.objectives import Score


@dataclass(frozen=True)
class HeadEffect:
    """What suppressing one head alone does.

    Arguments:
        head: the head.
        found: the mask that suppresses it, with its score.
        delta: fitness minus the identity's; positive: the head was harmful.
        loss_delta: loss minus the identity's; negative: the head was harmful.
    """

    head: Head
    found: Found = field(repr=False)
    delta: float
    loss_delta: float


@dataclass(frozen=True, repr=False)
class Sweep:
    """Every head's effect, in the order of the grid."""

    grid: Grid
    operator: str
    identity: Score
    heads: tuple[HeadEffect, ...]

    def __repr__(self) -> str:
        return f"Sweep({self.operator}: {len(self.heads)} heads, {len(self.improving)} better suppressed)"

    @cached_property
    def ranking(self) -> tuple[Head, ...]:
        """All heads, the most harmful first."""
        return tuple(effect.head for effect in sorted(self.heads, key=lambda effect: effect.found.order))

    @cached_property
    def improving(self) -> tuple[Head, ...]:
        """The heads whose suppression alone beats identity, best first."""
        better = {effect.head for effect in self.heads if effect.found.score.order > self.identity.order}
        return tuple(head for head in self.ranking if head in better)

    @property
    def best(self) -> Found:
        """The best single head (it may be worse than identity)."""
        return best_of(effect.found for effect in self.heads)


def sweep(evaluate: Evaluate, grid: Grid, operator: str, heads: Sequence[Head] = ()) -> Sweep:
    """Evaluate identity and every single head, in one call so that they share their work.

    Arguments:
        evaluate: exact scores on the search split.
        grid: the heads of the model.
        operator: what a suppressed head emits.
        heads: those that can have the edit, in the order of the grid; empty: all of them.
    """
    heads = tuple(heads or grid)
    masks = [Mask.identity(grid), *(Mask.suppress(grid, [head], operator) for head in heads)]
    identity, *scores = evaluate(masks)
    effects = [
        HeadEffect(head, Found(mask, score), score.fitness - identity.fitness, score.loss - identity.loss)
        for head, mask, score in zip(heads, masks[1:], scores, strict=True)
    ]
    return Sweep(grid, canonical(operator), identity, tuple(effects))

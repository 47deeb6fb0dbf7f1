"""What every search is given and what it hands back.

In: `Evaluate`, which scores masks and says what that costs. Out: `Found`, a mask with its exact score, and the one
order in which masks are compared. Also how a search keeps within what it may spend. What a score means is not known
here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from headwise.edits.mask import Mask

if TYPE_CHECKING:
    from headwise.scoring.objectives import Score

Order = tuple[float, float, int, str]
Left = Callable[[], float]  # FFE that may still be spent, by everybody together; math.inf: no limit
ROUNDING = 1e-9  # FFE: sums of fractions round


class Evaluate(Protocol):
    """Exact scores of masks on one split. Backed by the study, so that asking again costs nothing."""

    @property
    def spent(self) -> float:
        """FFE so far: a function of what was asked for alone, the same in a resumed run."""
        ...

    def __call__(self, masks: Sequence[Mask], /) -> list[Score]:
        """Scores in the order of the masks; masks of one call share their work."""
        ...

    def cost(self, masks: Sequence[Mask], /) -> float:
        """FFE that a call with these masks would add to `spent`; 0 for masks already asked for."""
        ...


@dataclass(frozen=True, eq=False)
class Found:
    """A mask with its exact score (compared by identity: scores hold arrays)."""

    mask: Mask
    score: Score

    @property
    def order(self) -> Order:
        """Sorts best first: see `order`."""
        return order(self.mask, self.score)


def order(mask: Mask, score: Score) -> Order:
    """A sort key, best first: fitness, loss, fewer heads, then the mask's text, so that no tie is left to chance.

    Fitness and loss are rounded (`Score.order`). A score that is not a number comes last.
    """
    fitness, loss = score.order
    return (-fitness, -loss, mask.size, str(mask))


def best_of(found: Iterable[Found]) -> Found:
    """The first in the one order of masks (`order`)."""
    return min(found, key=lambda item: item.order)


def purse(evaluate: Evaluate, budget: float | None, left: Left | None) -> Left:
    """What one search may still spend: its own budget from now on, and what is left of everybody's."""
    start = evaluate.spent

    def remaining() -> float:
        own = math.inf if budget is None else budget - (evaluate.spent - start)
        return own if left is None else min(own, left())

    return remaining


def affordable(evaluate: Evaluate, masks: Sequence[Mask], left: float) -> Sequence[Mask]:
    """The longest prefix of the masks whose evaluation costs at most `left` FFE."""
    if evaluate.cost(masks) <= left + ROUNDING:
        return masks
    low, high = 0, len(masks) - 1  # the cost of a prefix never falls as it grows
    while low < high:
        middle = (low + high + 1) // 2
        if evaluate.cost(masks[:middle]) <= left + ROUNDING:
            low = middle
        else:
            high = middle - 1
    return masks[:low]

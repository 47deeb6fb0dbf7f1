"""Layer-matched random masks: what suppressing as many heads at the same depths does by chance.

    P(m') equal for all m' ≠ m with, in every row, the gates of m in another order       m: (rows, H) gates

Every row of the grid keeps its own gates in a random order; none is drawn twice, and the mask itself is left out. The
null of a permutation test within layers. It evaluates nothing.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from itertools import product

from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError

Row = tuple[float, ...]


def controls(mask: Mask, count: int, seed: int = 0) -> tuple[Mask, ...]:
    """Random masks with the gates of the given one, shuffled within each row of the grid.

    Arguments:
        mask: the mask to match: same number of heads per row, same gates, same operator.
        count: how many.
        seed: the same seed gives the same masks.

    Returns:
        Different masks, none of them the given one. All there are, where that is fewer than `count`; the given
        mask alone where no other matches it.

    Raises:
        HeadwiseError: count below 1.
    """
    if count < 1:
        raise HeadwiseError(f"The number of random control masks is {count}; it must be at least 1.")
    own = mask.bare()
    total = math.prod(map(_arrangements, own.gates))
    if total == 1:
        return (own,)
    rng = random.Random(seed)
    if total <= 4 * count:
        rows = [sorted(_permutations(row)) for row in own.gates]
        others = [gates for gates in product(*rows) if gates != own.gates]
        chosen = rng.sample(others, min(count, len(others)))
    else:  # at most a quarter is ever taken, so drawing again ends soon
        seen = {own.gates: None}
        while len(seen) <= count:
            seen.setdefault(tuple(tuple(rng.sample(row, len(row))) for row in own.gates))
        chosen = list(seen)[1:]
    return tuple(Mask(own.grid, gates, own.operator) for gates in chosen)


def _arrangements(row: Row) -> int:
    """How many different orders a row's gates have."""
    return math.factorial(len(row)) // math.prod(map(math.factorial, Counter(row).values()))


def _permutations(row: Row) -> Iterator[Row]:
    """The different orders of a row's gates."""
    if not row:
        yield ()
    for gate in dict.fromkeys(row):
        rest = list(row)
        rest.remove(gate)
        for tail in _permutations(tuple(rest)):
            yield (gate, *tail)

"""Layer-matched random masks: what suppressing as many heads at the same depths does by chance.

    P(m') equal for all m' ≠ m with, in every row, the edits of m in another order       m: (rows, H) edits

Every row of the grid keeps its own edits in a random order; none is drawn twice, and the mask itself is left out. The
null of a permutation test within layers. It evaluates nothing.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterator
from itertools import product

from headwise.edits.edit import Edit
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError

Row = tuple[Edit, ...]


def controls(mask: Mask, count: int, seed: int = 0) -> tuple[Mask, ...]:
    """Random masks with the edits of the given one, shuffled within each row of the grid.

    Arguments:
        mask: the mask to match: the same edits in each row.
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
    total = math.prod(map(_arrangements, own.table))
    if total == 1:
        return (own,)
    rng = random.Random(seed)
    if total <= 4 * count:
        rows = [sorted(_permutations(row), key=_order) for row in own.table]
        others = [table for table in product(*rows) if table != own.table]
        chosen = rng.sample(others, min(count, len(others)))
    else:  # at most a quarter is ever taken, so drawing again ends soon
        seen = {own.table: None}
        while len(seen) <= count:
            seen.setdefault(tuple(tuple(rng.sample(row, len(row))) for row in own.table))
        chosen = list(seen)[1:]
    return tuple(Mask(own.grid, table) for table in chosen)


def _arrangements(row: Row) -> int:
    """How many different orders a row's edits have."""
    return math.factorial(len(row)) // math.prod(map(math.factorial, Counter(row).values()))


def _permutations(row: Row) -> Iterator[Row]:
    """The different orders of a row's edits."""
    if not row:
        yield ()
    for edit in dict.fromkeys(row):
        rest = list(row)
        rest.remove(edit)
        for tail in _permutations(tuple(rest)):
            yield (edit, *tail)


def _order(row: Row) -> tuple:
    return tuple(edit.order for edit in row)

"""Attention heads and the grid that they form in a model.

A grid has one row per block, and one for the attention pooling where there is one; rows may differ in length. Values
alone: nothing here knows a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import total_ordering

from headwise.errors import HeadwiseError

MOST = 1_000_000  # heads of a grid
POOL = -1  # the layer number of attention-pooling heads: they come after every block, as gates[-1] does
_NAME = re.compile(r"^(?:L(\d+)|(pool))\.H(\d+)$", re.IGNORECASE)


@total_ordering
@dataclass(frozen=True)
class Head:
    """One attention head, written `L10.H3` (both 0-based) or `pool.H3` for an attention-pooling head."""

    layer: int
    index: int

    @classmethod
    def parse(cls, text: str) -> Head:
        """Read `L10.H3` or `pool.H3`.

        Raises:
            HeadwiseError: the text has another form.
        """
        match = _NAME.match(text.strip())
        if match is None:
            raise HeadwiseError(
                f"{text!r} is not a head. Write the layer and the head, both counted from 0, as in L10.H3 "
                "(or pool.H3 for a head of the attention pooling)."
            )
        layer, pool, index = match.groups()
        return cls(POOL if pool else int(layer), int(index))

    def __str__(self) -> str:
        row = "pool" if self.layer == POOL else f"L{self.layer}"
        return f"{row}.H{self.index}"

    def __lt__(self, other: Head) -> bool:
        return self._order < other._order

    @property
    def _order(self) -> tuple[bool, int, int]:
        return (self.layer == POOL, self.layer, self.index)


@dataclass(frozen=True)
class Grid:
    """How many heads each block has, and how many the attention pooling has (0: it has none).

    Arguments:
        layers: heads per block, first block first.
        pool: heads of the attention pooling; they form one more row after the blocks.

    Raises:
        HeadwiseError: more heads than any model has: a table of them would fill the memory.
    """

    layers: tuple[int, ...]
    pool: int = 0

    def __post_init__(self) -> None:
        if sum(self.layers) + self.pool > MOST:
            raise HeadwiseError(f"The grid has more than {MOST:,} heads; no model has so many.")

    @classmethod
    def spanned(cls, heads: Iterable[Head]) -> Grid:
        """The grid that has all these heads and no more: of results that name every head of a model."""
        counts: dict[int, int] = {}
        for head in heads:
            counts[head.layer] = max(counts.get(head.layer, 0), head.index + 1)
        pool = counts.pop(POOL, 0)
        return cls(tuple(counts.get(layer, 0) for layer in range(max(counts, default=-1) + 1)), pool)

    @property
    def rows(self) -> tuple[int, ...]:
        """Heads per row: the blocks, then the pooling row where there is one."""
        return (*self.layers, self.pool) if self.pool else self.layers

    @property
    def size(self) -> int:
        """How many heads there are in all."""
        return sum(self.rows)

    def row_name(self, row: int) -> str:
        """`L3`, or `pool` for the row of the attention pooling."""
        return "pool" if self.pool and row == len(self.layers) else f"L{row}"

    def head(self, row: int, index: int) -> Head:
        """The head at a place of `rows`."""
        return Head(POOL if self.pool and row == len(self.layers) else row, index)

    def row_of(self, head: Head) -> int:
        """The row of a head in `rows`.

        Raises:
            HeadwiseError: the grid has no such head.
        """
        pooling = head.layer == POOL
        row = len(self.layers) if pooling else head.layer
        count = self.pool if pooling else dict(enumerate(self.layers)).get(row, 0)
        if not 0 <= head.index < count:
            raise HeadwiseError(f"Head {head} does not exist in this model: {self}. Layers and heads count from 0.")
        return row

    def __iter__(self) -> Iterator[Head]:
        for row, heads in enumerate(self.rows):
            for index in range(heads):
                yield self.head(row, index)

    def __str__(self) -> str:
        if not self.layers:
            return f"{self.pool} pooling heads"
        if len(set(self.layers)) == 1:
            text = f"{len(self.layers)} layers x {self.layers[0]} heads"
        else:
            text = f"{len(self.layers)} layers with {list(self.layers)} heads"
        return text + (f" + {self.pool} pooling heads" if self.pool else "")

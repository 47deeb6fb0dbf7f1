"""The vocabulary: heads, grids and masks as immutable values."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, total_ordering
from pathlib import Path

from headwise.edits.operators import canonical_operator
from headwise.errors import HeadwiseError

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
    """

    layers: tuple[int, ...]
    pool: int = 0

    @property
    def rows(self) -> tuple[int, ...]:
        """Heads per row: the blocks, then the pooling row where there is one."""
        return (*self.layers, self.pool) if self.pool else self.layers

    @property
    def size(self) -> int:
        return sum(self.rows)

    def row_name(self, row: int) -> str:
        return "pool" if self.pool and row == len(self.layers) else f"L{row}"

    def head(self, row: int, index: int) -> Head:
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


@dataclass(frozen=True)
class Mask:
    """An operator and one gate for every head of a grid.

    Arguments:
        grid: the heads of the model.
        gates: one row per row of the grid, values in [0, 1]; 1 keeps a head, 0 suppresses it.
        operator: what a suppressed head emits, one of `headwise.edits.operators.OPERATORS`.
        means: operator `mean` only: the constant output (d floats) of every head whose gate is below 1.
        provenance: where the mask comes from: base model, weights hash, how it was found, what it scored.
            Plain JSON values. Not used in any computation but the check that a mask fits a model.

    Raises:
        HeadwiseError: a wrong shape, a gate outside [0, 1], or an unknown operator.
    """

    grid: Grid
    gates: tuple[tuple[float, ...], ...]
    operator: str = "zero"
    means: tuple[tuple[Head, tuple[float, ...]], ...] = ()
    provenance: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "operator", canonical_operator(self.operator))
        shape = tuple(len(row) for row in self.gates)
        if shape != self.grid.rows:
            raise HeadwiseError(f"The gates have the shape {list(shape)}, the model has {list(self.grid.rows)} heads.")
        gates = tuple(tuple(float(gate) for gate in row) for row in self.gates)
        for head, gate in zip(self.grid, (gate for row in gates for gate in row), strict=True):
            if not 0.0 <= gate <= 1.0:  # also false for NaN
                raise HeadwiseError(f"The gate of {head} is {gate}; gates lie in [0, 1].")
        object.__setattr__(self, "gates", gates)

    # ---- making masks

    @classmethod
    def identity(cls, grid: Grid, operator: str = "zero") -> Mask:
        """The mask that keeps every head."""
        return cls(grid, tuple((1.0,) * heads for heads in grid.rows), operator)

    @classmethod
    def suppress(cls, grid: Grid, heads: Iterable[Head | str], operator: str = "zero", gate: float = 0.0) -> Mask:
        """The mask that gives `gate` to the named heads and keeps the others.

        Raises:
            HeadwiseError: a head that the grid does not have.
        """
        rows = [[1.0] * count for count in grid.rows]
        for item in heads:
            head = Head.parse(item) if isinstance(item, str) else item
            rows[grid.row_of(head)][head.index] = gate
        return cls(grid, tuple(map(tuple, rows)), operator)

    def with_operator(self, operator: str) -> Mask:
        return replace(self, operator=operator, means=())

    def with_provenance(self, **facts: object) -> Mask:
        """The same mask, with these facts added to its provenance."""
        return replace(self, provenance={**self.provenance, **facts})

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> Mask:
        """Load a mask from a folder or a hub repository: `headwise.edits.artefact.load_mask`."""
        from headwise.edits.artefact import load_mask

        return load_mask(source, revision=revision)

    def save_pretrained(self, folder: str | Path, *, card: str | None = None) -> Path:
        """Write `head_mask.json` and a model card into a folder: `headwise.edits.artefact.save_mask`."""
        from headwise.edits.artefact import save_mask

        return save_mask(self, folder, card=card)

    def bare(self) -> Mask:
        """Grid, operator and gates alone: what a search compares."""
        return Mask(self.grid, self.gates, self.operator)

    # ---- reading masks

    def gate(self, head: Head | str) -> float:
        head = Head.parse(head) if isinstance(head, str) else head
        return self.gates[self.grid.row_of(head)][head.index]

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """The heads whose gate is below 1, in order."""
        flat = (gate for row in self.gates for gate in row)
        return tuple(head for head, gate in zip(self.grid, flat, strict=True) if gate < 1.0)

    @property
    def size(self) -> int:
        """How many heads are suppressed, wholly or in part."""
        return len(self.heads)

    @property
    def is_identity(self) -> bool:
        return not self.heads

    @property
    def is_binary(self) -> bool:
        return all(gate in (0.0, 1.0) for row in self.gates for gate in row)

    @cached_property
    def key(self) -> str:
        """A short text that is equal for masks with equal effect (identity has one key for every operator)."""
        if self.is_identity:
            return "identity"
        text = json.dumps([self.operator, self.grid.rows, self.gates, [[str(h), m] for h, m in self.means]])
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    # ---- set operations on the suppressed heads

    def __or__(self, other: Mask) -> Mask:
        """Suppress what either mask suppresses (the smaller gate)."""
        return self._combine(other, min)

    def __and__(self, other: Mask) -> Mask:
        """Suppress what both masks suppress (the larger gate)."""
        return self._combine(other, max)

    def __sub__(self, other: Mask) -> Mask:
        """Keep again what the other mask suppresses."""
        return self._combine(other, lambda mine, theirs: 1.0 if theirs < 1.0 else mine)

    def __xor__(self, other: Mask) -> Mask:
        """Suppress what exactly one of the masks suppresses."""
        return self._combine(other, lambda a, b: 1.0 if (a < 1.0) == (b < 1.0) else min(a, b))

    def _combine(self, other: Mask, rule) -> Mask:
        if self.grid != other.grid:
            raise HeadwiseError(f"Masks of different grids cannot be combined: {self.grid} and {other.grid}.")
        operator = other.operator if self.is_identity else self.operator
        if not self.is_identity and not other.is_identity and self.operator != other.operator:
            raise HeadwiseError(
                f"Masks of different operators cannot be combined: {self.operator} and {other.operator}."
            )
        rows = zip(self.gates, other.gates, strict=True)
        return Mask(self.grid, tuple(tuple(map(rule, a, b)) for a, b in rows), operator)

    def __hash__(self) -> int:
        return hash((self.grid, self.operator, self.gates))

    def __str__(self) -> str:
        if self.is_identity:
            return "identity"
        names = ",".join(f"{h}" if self.gate(h) == 0.0 else f"{h}={self.gate(h):.3g}" for h in self.heads)
        return f"{self.operator}:{names}"

    @classmethod
    def parse(cls, grid: Grid, text: str) -> Mask:
        """Read what `str(mask)` prints: `identity`, `zero:L0.H1,L3.H2` or `zero:L0.H1=0.5`.

        Soft gates are printed with three digits, so for them this is close, not equal: save masks with
        `save_pretrained`.

        Raises:
            HeadwiseError: another form, an unknown operator or a head that the grid does not have.
        """
        if text.strip() == "identity":
            return cls.identity(grid)
        operator, colon, names = text.partition(":")
        if not colon:
            raise HeadwiseError(f"{text!r} is not a mask. Write the operator and the heads, as in zero:L10.H3,L11.H0.")
        rows = [[1.0] * count for count in grid.rows]
        for item in filter(None, (part.strip() for part in names.split(","))):
            name, equals, value = item.partition("=")
            head = Head.parse(name)
            try:
                gate = float(value) if equals else 0.0
            except ValueError:
                gate = math.nan
            rows[grid.row_of(head)][head.index] = gate
        return cls(grid, tuple(map(tuple, rows)), operator)

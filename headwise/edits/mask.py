"""A mask: an operator and a gate for every head of a grid, as an immutable value.

In: names of heads, gates, or the text that a mask prints. Out: a value that compares, hashes, combines (|, &, −, ^) and
saves itself. What a gate does to a head is in `operators.py`; how it is run, in `evaluation/` and `applied/`.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from headwise.edits import artefact
from headwise.edits.heads import Grid, Head
from headwise.edits.operators import canonical_operator
from headwise.edits.shown import gates_html
from headwise.errors import HeadwiseError


@dataclass(frozen=True, repr=False)
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
        """The same gates with another operator; constants of `mean` are dropped."""
        return replace(self, operator=operator, means=())

    def with_provenance(self, **facts: object) -> Mask:
        """The same mask, with these facts added to its provenance."""
        return replace(self, provenance={**self.provenance, **facts})

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> Mask:
        """Load what `save_pretrained` wrote.

        Arguments:
            source: a folder, its `head_mask.json`, or the id of a Hugging Face hub repository that holds one
                (`user/name` or `hf:user/name`).
            revision: branch, tag or commit of a hub repository.

        Returns:
            A mask equal to the one that was saved.

        Raises:
            HeadwiseError: nothing there, or a broken file; the message names the file and the field.
        """
        return cls.from_json(*artefact.read(source, revision=revision))

    @classmethod
    def from_json(cls, text: str, where: str) -> Mask:
        """The mask in the text of a `head_mask.json`; `where` names the file in messages.

        Raises:
            HeadwiseError: not JSON, a field that is missing or wrong, or a checksum that differs.
        """
        fields = artefact.loads(text, where)
        try:
            mask = cls(*fields)
        except HeadwiseError as error:
            raise HeadwiseError(f"{where}: the field 'gates' is wrong. {error}") from error
        artefact.verify(text, where)
        return mask

    def save_pretrained(self, folder: str | Path, *, card: str | None = None) -> Path:
        """Write `head_mask.json` and a model card into a folder, made where it is missing; other files stay.

        Arguments:
            folder: where they go.
            card: the text of the model card; None writes a short one, unless a README of the user's own is there.

        Returns:
            The path of `head_mask.json`.

        Raises:
            HeadwiseError: the folder cannot be written, or the provenance is not JSON. Then the folder is as it was.
        """
        return artefact.save(self, folder, card=card)

    def bare(self) -> Mask:
        """Grid, operator and gates alone: what a search compares."""
        return Mask(self.grid, self.gates, self.operator)

    # ---- reading masks

    def gate(self, head: Head | str) -> float:
        """The gate of one head, in [0, 1]."""
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
        """Whether it keeps every head whole."""
        return not self.heads

    @property
    def is_binary(self) -> bool:
        """Whether every gate is 0 or 1."""
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

    def __repr__(self) -> str:
        return f"Mask({str(self)[:200]!r}, {self.size} of {self.grid.size} heads)"

    def _repr_html_(self) -> str:
        title = f"{self.size} of {self.grid.size} heads, operator {self.operator}"
        return gates_html(self.grid, self.gates, title)

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

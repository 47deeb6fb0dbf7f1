"""The edits of a model: for every head of a grid what is done to it. Immutable values.

In: a grid and an edit for each of its heads, or their text or file. Out: the same, combined, ordered, printed, saved (the
files are `artefact.py`). A mask knows neither a model nor data: what an edit means is in `edit.py`, how it is computed in
`operators.py`, how it is run in `evaluation/` and `applied/`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

from headwise.edits import artefact, hub
from headwise.edits.arrays import Array
from headwise.edits.edit import KEEP, Edit, Letter
from headwise.edits.heads import Grid, Head
from headwise.edits.shown import edits_html
from headwise.errors import HeadwiseError


@dataclass(frozen=True, repr=False)
class Mask:
    """An edit for every head of a grid.

    Arguments:
        grid: the heads of the model.
        table: one row per row of the grid, an `Edit` for each head.
        provenance: where the edits come from: base model, weights hash, how they were found, what they scored.
            Plain JSON values. Not used in any computation but the check that they fit a model.

    Raises:
        HeadwiseError: a wrong shape.
    """

    grid: Grid
    table: tuple[tuple[Edit, ...], ...]
    provenance: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = tuple(len(row) for row in self.table)
        if shape != self.grid.rows:
            raise HeadwiseError(f"The edits have the shape {list(shape)}, the model has {list(self.grid.rows)} heads.")

    # ---- making them

    @classmethod
    def identity(cls, grid: Grid) -> Mask:
        """Every head as it is."""
        return cls(grid, tuple((KEEP,) * heads for heads in grid.rows))

    @classmethod
    def of(cls, grid: Grid, edits: Mapping[Head, Edit | str] | Mapping[str, Edit | str]) -> Mask:
        """These heads with these edits, every other head as it is.

        Raises:
            HeadwiseError: a head that the grid does not have, or a text that is no edit.
        """
        rows = [[KEEP] * count for count in grid.rows]
        for item, edit in edits.items():
            head = Head.parse(item) if isinstance(item, str) else item
            rows[grid.row_of(head)][head.index] = Edit.parse(edit) if isinstance(edit, str) else edit
        return cls(grid, tuple(map(tuple, rows)))

    @classmethod
    def suppress(cls, grid: Grid, heads: Iterable[Head | str], edit: Edit | str = "zero") -> Mask:
        """The named heads with one and the same edit.

        Raises:
            HeadwiseError: a head that the grid does not have, or a text that is no edit.
        """
        one = Edit.parse(edit) if isinstance(edit, str) else edit
        return cls.of(grid, {Head.parse(head) if isinstance(head, str) else head: one for head in heads})

    @classmethod
    def gated(cls, grid: Grid, gates: Iterable[Iterable[float]], name: str = "zero") -> Mask:
        """One gate per head, rows of the grid, each the number of the same letter: 1 keeps a head.

        Raises:
            HeadwiseError: a letter without a number, a number out of its range, or a wrong shape.
        """
        return cls(grid, tuple(tuple(letter_edit(name, gate) for gate in row) for row in gates))

    def with_provenance(self, **facts: object) -> Mask:
        """The same edits, with these facts added to their provenance."""
        return replace(self, provenance={**self.provenance, **facts})

    @classmethod
    def from_pretrained(cls, source: str | Path, *, revision: str | None = None) -> Mask:
        """Load what `save_pretrained` wrote.

        Arguments:
            source: a folder, its `head_mask.json`, or the id of a Hugging Face hub repository that holds one
                (`user/name` or `hf:user/name`).
            revision: branch, tag or commit of a hub repository.

        Returns:
            Edits equal to those that were saved.

        Raises:
            HeadwiseError: nothing there, or a broken file; the message names the file and the field.
        """
        return cls.from_json(*artefact.read(source, revision=revision))

    @classmethod
    def from_json(cls, text: str, where: str, arrays: artefact.Arrays | None = None) -> Mask:
        """The edits in the text of a `head_mask.json`; `where` names the file in messages.

        Arguments:
            arrays: the content of the safetensors file beside it, by name; None: there is none.

        Raises:
            HeadwiseError: not JSON, a field that is missing or wrong, or a checksum that differs.
        """
        fields = artefact.loads(text, where, arrays)
        try:
            mask = cls.of(fields.grid, fields.edits)
        except HeadwiseError as error:
            raise HeadwiseError(f"{where}: the field 'edits' is wrong. {error}") from error
        artefact.verify(text, where)
        return replace(mask, provenance=fields.provenance)

    def save_pretrained(self, folder: str | Path, *, card: str | None = None) -> Path:
        """Write `head_mask.json`, a safetensors file where edits carry arrays, and a model card into a folder.

        Arguments:
            folder: where they go; made where it is missing; other files stay.
            card: the text of the model card; None writes a short one, unless a README of the user's own is there.

        Returns:
            The path of `head_mask.json`.

        Raises:
            HeadwiseError: the folder cannot be written, or the provenance is not JSON. Then the folder is as it was.
        """
        return artefact.save(self, folder, card=card)

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool = False,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload head edits",
        licence: str = "",
        card: str | None = None,
    ) -> str:
        """Put the edits and a card into a repository of the hub; `from_pretrained(repo_id)` gets them.

        Arguments:
            repo_id: `org/name`; the repository is made where it is missing.
            private: make it private where it is made.
            token: None: the one that the hub's client finds (`hf auth login`, HF_TOKEN).
            revision: a branch, made where it is missing.
            commit_message: one line.
            licence: an identifier for the card, such as `mit`; empty: the base model's applies.
            card: the text of the card; None writes one that says how to apply the edits in each library.

        Returns:
            The address of the commit.

        Raises:
            HeadwiseError: no such name, no right, no network, or a provenance that is not JSON.
        """
        return hub.push(
            self,
            repo_id,
            licence=licence,
            text=card,
            private=private,
            token=token,
            revision=revision,
            commit_message=commit_message,
        )

    def bare(self) -> Mask:
        """Without provenance: what a search compares."""
        return Mask(self.grid, self.table)

    def shrunk(self, alpha: float) -> Mask:
        """identity + alpha · (edits − identity), head by head (WiSE-FT, arXiv 2109.01903, for edits of heads)."""
        return Mask(self.grid, tuple(tuple(edit.shrunk(alpha) for edit in row) for row in self.table))

    def bound(self, means: Callable[[Head], object]) -> Mask:
        """With the constants of edits `mean` that have none yet; `means` gives a head's (d values)."""

        def attach(head: Head, edit: Edit) -> Edit:
            letter = edit.value
            if letter is None or letter.bound:
                return edit
            return Edit(edit.attention, Letter(letter.name, letter.number, (("constant", Array.of(means(head))),)))

        return self if self.is_bound else replace(self._map(attach), provenance=self.provenance)

    def _map(self, change: Callable[[Head, Edit], Edit]) -> Mask:
        rows = (
            tuple(change(self.grid.head(i, j), edit) if not edit.keeps else edit for j, edit in enumerate(row))
            for i, row in enumerate(self.table)
        )
        return Mask(self.grid, tuple(rows))

    # ---- reading them

    def edit(self, head: Head | str) -> Edit:
        """What is done to one head."""
        head = Head.parse(head) if isinstance(head, str) else head
        return self.table[self.grid.row_of(head)][head.index]

    @property
    def edits(self) -> Mapping[Head, Edit]:
        """The heads that are changed, in order, with what is done to them."""
        return self._edits

    @cached_property
    def _edits(self) -> dict[Head, Edit]:
        flat = (edit for row in self.table for edit in row)
        return {head: edit for head, edit in zip(self.grid, flat, strict=True) if not edit.keeps}

    @cached_property
    def heads(self) -> tuple[Head, ...]:
        """The heads that are changed, in order."""
        return tuple(self.edits)

    @property
    def size(self) -> int:
        """How many heads are changed."""
        return len(self.edits)

    @property
    def is_identity(self) -> bool:
        """Whether it keeps every head."""
        return not self.edits

    @property
    def is_bound(self) -> bool:
        """Whether every edit has the arrays that it needs; constants of `mean` are attached from data."""
        return all(letter.bound for edit in self.edits.values() for letter in edit.letters)

    @property
    def is_binary(self) -> bool:
        """Whether every head is kept or suppressed whole: a mask as AAT has it."""
        return all(edit.suppresses and edit.gate in (0.0, 1.0) for edit in self.edits.values())

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The letters in use, each once, in the order of heads."""
        return tuple(dict.fromkeys(letter.name for edit in self.edits.values() for letter in edit.letters))

    @cached_property
    def kinds(self) -> str:
        """The different edits in use, each once, as people read them: `zero`, `keys, scale(1.5)`."""
        return ", ".join(dict.fromkeys(map(str, self.edits.values()))) or "identity"

    @cached_property
    def values(self) -> int:
        """How many numbers were chosen: one a letter that has one, and those of shifts and spectral scales."""
        counts = {"shift": "constant", "spectral": "scales"}
        letters = [letter for edit in self.edits.values() for letter in edit.letters]
        large = [letter.array(counts[one]) for letter in letters if (one := letter.name) in counts]
        return sum(array.shape[0] for array in large) + sum(letter.name not in counts for letter in letters)

    @cached_property
    def key(self) -> str:
        """A short text that is equal for edits with equal effect."""
        if self.is_identity:
            return "identity"
        text = json.dumps([self.grid.rows, [[str(head), edit.order] for head, edit in self.edits.items()]])
        return hashlib.sha256(text.encode()).hexdigest()[:24]

    @cached_property
    def order(self) -> tuple:
        """Sorts masks by their rows, first rows first; the identity is the first of all."""
        return tuple(tuple(edit.order for edit in row) for row in self.table)

    # ---- set operations on the heads that are changed

    def __or__(self, other: Mask) -> Mask:
        """The edits of both; of a head that both change, the other's."""
        return self._combined(other, lambda mine, theirs: mine if theirs.keeps else theirs)

    def __and__(self, other: Mask) -> Mask:
        """The edits of heads that both change; this one's."""
        return self._combined(other, lambda mine, theirs: KEEP if theirs.keeps else mine)

    def __sub__(self, other: Mask) -> Mask:
        """Without the heads that the other changes."""
        return self._combined(other, lambda mine, theirs: mine if theirs.keeps else KEEP)

    def __xor__(self, other: Mask) -> Mask:
        """The edits of heads that exactly one of them changes."""
        return self._combined(other, lambda a, b: a if b.keeps else b if a.keeps else KEEP)

    def _combined(self, other: Mask, rule: Callable[[Edit, Edit], Edit]) -> Mask:
        if self.grid != other.grid:
            raise HeadwiseError(f"Edits of different grids cannot be combined: {self.grid} and {other.grid}.")
        rows = zip(self.table, other.table, strict=True)
        return Mask(self.grid, tuple(tuple(map(rule, a, b)) for a, b in rows))

    def __hash__(self) -> int:
        return hash((self.grid, self.key))

    def __repr__(self) -> str:
        return f"Mask({str(self)[:200]!r}, {self.size} of {self.grid.size} heads)"

    def _repr_html_(self) -> str:
        return edits_html(self.grid, self.table, f"{self.size} of {self.grid.size} heads: {self.kinds}")

    def __str__(self) -> str:
        return ", ".join(f"{head}={edit}" for head, edit in self.edits.items()) or "identity"

    @classmethod
    def parse(cls, grid: Grid, text: str) -> Mask:
        """Read what `str(mask)` prints: `identity`, `L0.H1=zero, L3.H2=scale(1.42)`.

        Numbers are printed with three digits and arrays not at all, so this is close, not equal: save edits with
        `save_pretrained`.

        Raises:
            HeadwiseError: another form, an unknown edit or a head that the grid does not have or that comes twice.
        """
        if text.strip() == "identity":
            return cls.identity(grid)
        edits: dict[Head, Edit] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, equals, edit = item.partition("=")
            if not equals:
                raise HeadwiseError(
                    f"{item!r} is not an edit of a head. Write each head with what is done to it, as in "
                    "L10.H3=zero, L11.H0=scale(1.4)."
                )
            head = Head.parse(name)
            if head in edits:
                raise HeadwiseError(f"{text!r} names {head} twice.")
            edits[head] = Edit.parse(edit)
        return cls.of(grid, edits)


def letter_edit(name: str, number: float) -> Edit:
    """The edit of one letter with this number.

    Raises:
        HeadwiseError: no such letter, or a number out of its range.
    """
    letter = Letter(name, number)
    return Edit(**{letter.kind.side: letter})

"""What a search may write on heads: every head is kept or carries one of a few edits, its letters.

In: a grid, one edit or several, perhaps the heads that may have them. Out: numbers for the choices that there are, and
masks made of them. With one edit a choice has the number of its head.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headwise.edits.edit import Edit
from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask

Choice = tuple[Head, Edit]  # one head with one edit


def choices_of(mask: Mask) -> frozenset[Choice]:
    """The heads that a mask changes, each with its edit."""
    return frozenset(mask.edits.items())


def toggled(mask: Mask, single: Mask) -> Mask:
    """The mask with a single head's edit, or with this head kept where it has this very edit."""
    ((head, edit),) = single.edits.items()
    return mask - single if mask.edit(head) == edit else mask | single


class Alphabet:
    """
    Arguments:
        grid: the heads of the model.
        edits: one or several, as texts.
        allowed: what may be chosen: heads, of one edit alone, or heads with edits; empty: everything.
    """

    def __init__(self, grid: Grid, edits: str | Sequence[str], allowed: Iterable[Head | Choice] = ()):
        self.grid = grid
        self.edits = tuple(map(Edit.parse, (edits,) if isinstance(edits, str) else edits))
        self.choices = [(head, edit) for head in grid for edit in self.edits]
        self._number = {choice: i for i, choice in enumerate(self.choices)}
        self._able = frozenset({self.number(item) for item in allowed} or range(len(self.choices)))
        self.allowed = sorted(self._able)

    def number(self, item: Head | Choice) -> int:
        """The number of a choice, in the order of heads and then of edits; of a head alone that with the first edit."""
        return self._number[(item, self.edits[0]) if isinstance(item, Head) else item]

    def head(self, number: int) -> int:
        """The place of a choice's head in the grid."""
        return number // len(self.edits)

    def mask(self, numbers: Iterable[int]) -> Mask:
        """The mask of these choices, at most one a head."""
        return Mask.of(self.grid, dict(self.choices[i] for i in numbers))

    def numbers(self, mask: Mask) -> tuple[int, ...] | None:
        """A mask's choices, ascending; None where it has edits, or heads, that are not among the allowed."""
        if mask.grid != self.grid:
            return None
        found = [self._number.get(choice, -1) for choice in mask.edits.items()]
        return tuple(found) if self._able.issuperset(found) else None

"""What is known of masks before any block runs: an answer to a click at once, for all images.

    ê(S) = e(A) + Σ_{h ∈ S − A} Δ_h − Σ_{h ∈ A − S} Δ_h       Δ_h(g) ≈ (1 − g) / (1 − g₀) · Δ_h(g₀)

A: the mask that a click computed, or the unchanged model, from which the fewest heads differ (`search/anchors.py`); S, A: heads with
their edits. In: the folder of a run, which of its search images are shown, their unchanged embeddings; later what clicks computed.
Out: embeddings of a mask, or None. Of one head with an edit that was seen they are exact up to half precision; otherwise they leave
out how heads interact that no click had together, and of another number of an edit how the blocks above bend a straight line.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from headwise.edits.edit import Edit
from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.alphabet import Choice
from headwise.search.deltas import HeadDeltas

LARGEST = 1 << 30  # bytes of a file that is read
LEARNED = 1 << 28  # bytes of what clicks computed of one head that are kept, and as many of several
ALIKE = 0.99  # cosine of an image's embedding there and here, whatever the precisions
Key = TypeVar("Key", bound=Hashable)


class Guesses:
    """The changes of single heads, which sweeps left and clicks computed, and those of masks of several that clicks computed.

    Arguments:
        before: the unchanged embeddings, (N, E).
        swept: head and edit → its change, (N, E) float16.
    """

    def __init__(self, before: torch.Tensor, swept: dict[Choice, torch.Tensor] | None = None):
        self.before = before.float()
        self._swept = swept or {}
        self._learned: dict[Choice, torch.Tensor] = {}
        self._ran: dict[Mask, torch.Tensor] = {}

    def learn(self, mask: Mask, after: torch.Tensor) -> None:
        """Keep what a mask did to all images, if that is finite; the oldest of one head, and of several, make room.

        Arguments:
            after: its embeddings, (N, E).
        """
        change = (after.float() - self.before).half()  # (N, E)
        if not bool(change.isfinite().all()):
            return
        if len(mask.edits) == 1:
            (choice,) = mask.edits.items()
            self._learned = _latest({**self._learned, choice: change})
        elif mask.edits:
            self._ran = _latest({**self._ran, mask: change})

    def embeddings(self, mask: Mask) -> torch.Tensor | None:
        """The embeddings that changes add up to, (N, E) float32; None where too little is known, nothing is changed, or they
        would not be finite."""
        rows, nothing = self._swept | self._learned, Mask.identity(mask.grid)
        if mask.is_identity:
            return None
        starts = {nothing: torch.zeros_like(self.before), **self._ran}  # mask → its change, (N, E)
        for start in sorted(starts, key=lambda one: len(_differing(one, mask))):
            changes = [
                (sign, _change(rows, head, edit))
                for head in _differing(start, mask)
                for sign, edit in ((-1.0, start.edit(head)), (1.0, mask.edit(head)))
                if not edit.keeps
            ]
            if all(change for _, change in changes):
                e = self.before + starts[start].float()  # (N, E)
                for sign, change in changes:
                    assert change
                    e.add_(change[1].float(), alpha=sign * change[0])
                return e if bool(e.isfinite().all()) else None
        return None


def _differing(a: Mask, b: Mask) -> list[Head]:
    """The heads to which two masks do different things."""
    return [head for head in {**a.edits, **b.edits} if a.edit(head) != b.edit(head)]


def _latest(kept: dict[Key, torch.Tensor]) -> dict[Key, torch.Tensor]:
    """The last of these that memory is for: a new dictionary, as another click may be reading the old one."""
    each = max((2 * change.numel() for change in kept.values()), default=1)
    return dict(list(kept.items())[-max(1, LEARNED // each) :])


def _change(rows: Mapping[Choice, torch.Tensor], head: Head, edit: Edit) -> tuple[float, torch.Tensor] | None:
    """A change and how much of it: of the edit itself, else of the nearest number of the same edit."""
    if (head, edit) in rows:
        return 1.0, rows[head, edit]
    if (wanted := _line(edit)) is None:
        return None
    seen = [
        (abs(line[1] - wanted[1]), line[1], change)
        for (other, one), change in rows.items()
        if other == head and (line := _line(one)) is not None and line[0] == wanted[0]
    ]
    if not seen:
        return None
    _, number, change = min(seen, key=lambda one: one[:2])
    return (1 - wanted[1]) / (1 - number), change


def _line(edit: Edit) -> tuple[str, float] | None:
    """The line on which an edit moves its head's output z, and where on it: z(g) = z' + g (z − z'). None where it moves on none:
    two letters, a temperature, one without a number."""
    if len(edit.letters) != 1:
        return None
    (letter,) = edit.letters
    if letter.kind.keeps is None or letter.number is None or letter.name == "temperature":
        return None
    return "scale" if letter.name == "zero" else letter.name, letter.number


def swept_changes(folder: Path, rows: Sequence[int], before: torch.Tensor) -> dict[Choice, torch.Tensor]:
    """The changes that the run's sweeps left for these images: head and edit → (N, E) float16. A file that is damaged, very
    large, or of other images or weights is left out.

    Arguments:
        folder: of the run.
        rows: of every image that is shown its place in the search split.
        before: their unchanged embeddings, (N, E).
    """
    found: dict[Choice, torch.Tensor] = {}
    for path in sorted(folder.glob("deltas-*.safetensors")):
        try:
            if path.stat().st_size > LARGEST:
                continue
            deltas = HeadDeltas.load(path, None)
        except (HeadwiseError, OSError, LookupError, TypeError, ValueError):
            continue  # nothing depends on it: the click is computed
        if max(rows) >= len(deltas.identity) or deltas.identity.shape[1] != before.shape[1]:
            continue
        identity = deltas.identity[list(rows)]  # (N, E)
        if bool((torch.cosine_similarity(identity, before.float(), dim=1) > ALIKE).all()):
            found |= {choice: change[list(rows)] for choice, change in deltas.rows.items()}
    return found

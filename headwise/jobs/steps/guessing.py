"""What is known of single heads before any block runs: an answer to a click at once, for all images.

    ê(S) = e(∅) + Σ_{h ∈ S} Δ_h       Δ_h(g) ≈ (1 − g) / (1 − g₀) · Δ_h(g₀)       (`search/deltas.py`)

In: the folder of a run, which of its search images are shown, their unchanged embeddings; later what clicks computed. Out: embeddings
of a mask, or None. Of one head with an edit that was seen they are exact up to half precision; of several they leave out how heads
interact, of another number of an edit how the blocks above bend a straight line.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from headwise.edits.edit import Edit
from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.alphabet import Choice
from headwise.search.deltas import HeadDeltas

LARGEST = 1 << 30  # bytes of a file that is read
LEARNED = 1 << 28  # bytes of what clicks computed that are kept
ALIKE = 0.99  # cosine of an image's embedding there and here, whatever the precisions


class Guesses:
    """The changes of single heads: what sweeps left, and what clicks computed.

    Arguments:
        before: the unchanged embeddings, (N, E).
        swept: head and edit → its change, (N, E) float16.
    """

    def __init__(self, before: torch.Tensor, swept: dict[Choice, torch.Tensor] | None = None):
        self.before = before.float()
        self._swept = swept or {}
        self._learned: dict[Choice, torch.Tensor] = {}

    def learn(self, mask: Mask, after: torch.Tensor) -> None:
        """Keep what a mask of one head did to all images; the oldest make room.

        Arguments:
            after: its embeddings, (N, E).
        """
        if len(mask.edits) != 1:
            return
        (choice,) = mask.edits.items()
        learned = {**self._learned, choice: (after.float() - self.before).half()}  # (N, E)
        most = max(1, LEARNED // (2 * after.numel()))
        self._learned = dict(list(learned.items())[-most:])  # at once: another click may be reading

    def embeddings(self, mask: Mask) -> torch.Tensor | None:
        """The embeddings that changes of single heads add up to, (N, E) float32; None where nothing is known of one of them."""
        rows = self._swept | self._learned
        changes = [_change(rows, *choice) for choice in mask.edits.items()]
        known = [change for change in changes if change is not None]
        if not known or len(known) < len(changes):
            return None
        e = self.before.clone()  # (N, E)
        for share, change in known:
            e.add_(change.float(), alpha=share)
        return e


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

"""What a finished run knows of single heads: an answer to a click at once, for all images, before any block runs.

    ê(S) = e(∅) + Σ_{h ∈ S} Δ_h       (`search/deltas.py`)

In: the folder of a run, which of its search images are shown, their unchanged embeddings. Out: the changes that sweeps left there,
or None. Of one head they are exact up to half precision; of several they leave out how heads interact.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.deltas import Changes, HeadDeltas, Joined

LARGEST = 1 << 30  # bytes of a file that is read
ALIKE = 0.99  # cosine of an image's embedding there and here, whatever the precisions


def known_changes(folder: Path, rows: Sequence[int], before: torch.Tensor) -> Changes | None:
    """The changes of the run's sweeps for these images.

    Arguments:
        folder: of the run.
        rows: of every image that is shown its place in the search split.
        before: their unchanged embeddings, (N, E).

    Returns:
        None where there are none: no sweep, a file that is damaged, very large, or of other images or weights.
    """
    found = []
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
            changes = deltas.changes[:, list(rows)]  # (heads, N, E)
            found.append(HeadDeltas(deltas.grid, deltas.operator, before.float(), changes, deltas.heads))
    return Joined(found) if found else None


def estimate(known: Changes | None, mask: Mask) -> torch.Tensor | None:
    """The embeddings that changes of single heads add up to, (N, E) float32; None where one of them is not known."""
    edits = list(mask.edits.items())
    if known is None or not edits or any(choice not in known.rows for choice in edits):
        return None
    return known.moved(known.identity.clone(), dict.fromkeys(edits, 1.0))

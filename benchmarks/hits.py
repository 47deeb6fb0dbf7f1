"""Hits of a score as the ladder keeps them: a byte each.

In: integers, (…). Out: the same in the other form.
"""

from __future__ import annotations

import numpy as np
import torch


def whole(hits: torch.Tensor) -> np.ndarray:
    """Hits as they are counted, int64 of their shape: differences of single bytes would wrap around."""
    return hits.numpy().astype(np.int64)


def packed(hits: np.ndarray) -> torch.Tensor:
    """Hits in a byte each: a few at every image."""
    assert hits.min() >= 0
    assert hits.max() < 256
    return torch.from_numpy(hits.astype(np.uint8))

"""The exact McNemar test on hits at k.

    p = two-sided binomial test of `gained` among gained + lost, at one half

In: ranks of the same queries before and after, (Q). Out: gained, lost, p. McNemar 1947 (Psychometrika 12), exact.
Queries count as independent here; `flips.py` takes an image with all its captions as one unit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headwise.errors import HeadwiseError


@dataclass(frozen=True)
class McNemar:
    """How many queries were gained and lost, and the exact two-sided p."""

    gained: int
    lost: int
    p: float


def mcnemar(before: np.ndarray, after: np.ndarray, *, k: int = 1) -> McNemar:
    """Exact McNemar test on hits at k.

    Arguments:
        before, after: 0-based ranks of the same queries.

    Raises:
        HeadwiseError: ranks of different queries.
    """
    from scipy.stats import binomtest

    before, after = np.asarray(before), np.asarray(after)
    if before.shape != after.shape or before.ndim != 1:
        raise HeadwiseError(f"McNemar compares the same queries; the ranks are {before.shape} and {after.shape}.")
    gained = int(((before >= k) & (after < k)).sum())
    lost = int(((before < k) & (after >= k)).sum())
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return McNemar(gained, lost, p)

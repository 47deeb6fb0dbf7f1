"""Spearman's rank correlation: how well one order of values predicts another.

ρ = Pearson's r of rank(a) and rank(b)       a, b (n); equal values share their mean rank
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np


def spearman(a: Sequence[float], b: Sequence[float]) -> float:
    """ρ: Pearson's correlation of the ranks; equal values share their mean rank. nan where one side is constant."""
    from scipy.stats import rankdata

    if len(set(a)) < 2 or len(set(b)) < 2:
        return math.nan
    return float(np.corrcoef(rankdata(a), rankdata(b))[0, 1])

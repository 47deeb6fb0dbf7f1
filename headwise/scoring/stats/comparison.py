"""A mask against the unchanged model on the same images: how much, how sure, and what may be claimed.

In: scores of the same images after and before. Out: `Comparison`: change, standard error, interval, p, how many
images changed, and the claim that all of these together allow. The words for it are in `reports/words.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from headwise.errors import HeadwiseError
from headwise.scoring.design import Design, columns
from headwise.scoring.stats.flips import PValue, sign_flip
from headwise.scoring.stats.resampling import Interval, bootstrap, standard_error

CLAIM_LEVEL = 0.05  # two-sided: "better" is claimed by chance in at most 2.5 % of cases
FEWEST_CHANGED = 10  # images that must have changed before anything is claimed


class Scored(Protocol):
    """What is compared: hits of the same images under one design (`headwise.scoring.objectives.Score`)."""

    @property
    def fitness(self) -> float:
        """The metric, a fraction."""
        ...

    @property
    def loss(self) -> float:
        """Breaks ties of the metric; lower is better."""
        ...

    @property
    def hits(self) -> np.ndarray:
        """What was counted at each image, int64 (N, P)."""
        ...

    @property
    def plan(self) -> Design:
        """How hits make the metric."""
        ...


@dataclass(frozen=True)
class Comparison:
    """
    Arguments:
        delta: the change of the printed metric, a fraction; of several masks the mean.
        error: its paired standard error.
        interval: 95 %, bootstrap over images.
        p: sign-flip, two-sided.
        changed: images whose contribution changed.
    """

    delta: float
    error: float
    interval: Interval
    p: PValue
    changed: int

    @property
    def claim(self) -> str:
        """`better`, `worse`, `not shown`, or `too few changed images`: interval and p must agree on it."""
        return claimed(self.interval.low, self.interval.high, self.p.p, self.changed)

    def json(self) -> dict[str, object]:
        """As results hold it: docs/results-format.md."""
        return {
            "delta": self.delta,
            "se": self.error if np.isfinite(self.error) else None,
            "interval": [self.interval.low, self.interval.high],
            "p": self.p.p,
            "p_error": self.p.error,
            "changed": self.changed,
            "claim": self.claim,
        }


def claimed(low: float, high: float, p: float, changed: int) -> str:
    """What an interval, a p and a number of changed images allow to claim: see `Comparison.claim`."""
    if changed < FEWEST_CHANGED:
        return "too few changed images"
    if p <= CLAIM_LEVEL and (low > 0 or high < 0):
        return "better" if low > 0 else "worse"
    return "not shown"


def compared(after: Scored | Sequence[Scored], before: Scored, *, seed: int = 0) -> Comparison:
    """One mask, or the mean of several, against the unchanged model.

    Raises:
        HeadwiseError: scores of different images.
    """
    several = list(after) if isinstance(after, Sequence) else [after]
    d, design = differences(several, before), before.plan
    found = bootstrap(d, design, masks=len(several), seed=seed)
    counts = design.counts(d)
    p = sign_flip(counts, slack=design.slack * len(several), seed=seed)
    return Comparison(
        found.mean, standard_error(d, design, masks=len(several)), found, p, int(np.count_nonzero(counts))
    )


def differences(after: Sequence[Scored], before: Scored) -> np.ndarray:
    """Hits after minus hits before, summed over masks, int64 (N, P).

    Raises:
        HeadwiseError: scores of different images.
    """
    base = columns(before.hits)
    d = np.zeros_like(base)
    for one in after:
        hits = columns(one.hits)
        if hits.shape != base.shape:
            raise HeadwiseError(f"Only the same images can be compared; hits are {hits.shape} and {base.shape}.")
        d += hits - base
    return d

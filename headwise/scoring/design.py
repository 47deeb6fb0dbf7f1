"""How whole numbers counted at each image become the metric that is printed: one estimand for everything.

The metric is Σ over strata and columns of share · Σ hits / Σ weights. Mean recall has two columns: text → image hits
over captions, and image → text hits over images. Where images have unequally many captions the first is a ratio of
two sums that both vary with the images drawn; where they have equally many it is a plain mean over images. Change,
interval, p, the choice on the pick split and the searches are all about this one number.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np

from headwise.errors import HeadwiseError

MOST = 2**62  # sums of whole numbers stay below this
GRID = 2**50  # stands in for a common denominator that is larger
FINE = 2**40  # the grid of hits that are no whole numbers (average precision)
SLACK = 1e-9  # sums on a grid that differ by less than this share of the metric's range are equal


@dataclass(frozen=True, eq=False)
class Design:
    """
    Arguments:
        weights: int64 (N, P), what each image adds to each column's denominator.
        shares: (S, P), each column's factor within each stratum.
        stratum: int64 (N,), the stratum of each image: of a mixture its part; None: all are one. Strata have fixed
            sizes: images are resampled within them.
        rounded: hits are on a grid, as they have no common denominator of a usable size.
        steps: (P,), the fewest hits that an image which changes adds to each column; None: one.
    """

    weights: np.ndarray
    shares: tuple[tuple[Fraction, ...], ...]
    stratum: np.ndarray | None = None
    rounded: bool = False
    steps: tuple[int, ...] | None = None

    @classmethod
    def mean(cls, images: int, share: Fraction = Fraction(1), *, rounded: bool = False, step: int = 1) -> Design:
        """share · the mean over images of one column of hits, which come in steps."""
        return cls(np.ones((images, 1), np.int64), ((share,),), None, rounded, (step,))

    @cached_property
    def strata(self) -> np.ndarray:
        """(N,)"""
        return np.zeros(len(self.weights), np.int64) if self.stratum is None else self.stratum

    @cached_property
    def totals(self) -> np.ndarray:
        """Each stratum's denominators, int64 (S, P); 1 where a column has none."""
        totals = np.zeros((len(self.shares), self.weights.shape[1]), np.int64)
        np.add.at(totals, self.strata, self.weights)
        return np.maximum(totals, 1)

    @cached_property
    def factors(self) -> list[list[Fraction]]:
        """What one hit adds to the metric, of each stratum and column (S, P)."""
        return [
            [share / int(total) for share, total in zip(*row, strict=True)]
            for row in zip(self.shares, self.totals, strict=True)
        ]

    @property
    def least(self) -> float:
        """The smallest change of the metric that one image can make, a fraction."""
        steps = self.steps or (1,) * self.weights.shape[1]
        return min(float(f) * step for row in self.factors for f, step in zip(row, steps, strict=True) if f)

    @cached_property
    def _common(self) -> tuple[np.ndarray, int, bool]:
        """Factors over a common denominator (S, P), that denominator, and whether they are whole numbers. Where no
        denominator of a usable size makes them whole they are floats: hits that are fine steps themselves have factors of
        a few steps of any grid, which rounding would distort."""
        denominator = math.lcm(*(f.denominator for row in self.factors for f in row))
        exact = denominator < MOST
        denominator = denominator if exact else GRID
        whole = [[f * denominator for f in row] for row in self.factors]
        return np.array(whole, np.int64 if exact else np.float64), denominator, exact

    @property
    def denominator(self) -> int:
        """What the sum of `counts` is divided by."""
        return self._common[1]

    @property
    def slack(self) -> int:
        """Sums of `counts` that differ by no more than this are equal; 0: they are exact."""
        return 0 if self._common[2] and not self.rounded else max(1, int(SLACK * self.denominator))

    def counts(self, hits: np.ndarray) -> np.ndarray:
        """What each image adds to the metric, as whole numbers over `denominator`, int64 (N,): rounded to them where that
        denominator is a grid.

        Arguments:
            hits: int64 (N, P), or differences of such.

        Raises:
            HeadwiseError: hits of another number of images or columns.
        """
        hits = columns(hits)
        if hits.shape != self.weights.shape:
            raise HeadwiseError(f"Hits of shape {hits.shape} do not fit a design of {self.weights.shape}.")
        factors, _, exact = self._common
        added = hits * factors[self.strata]  # (N, P)
        return (added if exact else np.rint(added).astype(np.int64)).sum(1)

    def value(self, hits: np.ndarray) -> float:
        """The metric: equal hits in sum give the same float, whichever images they are of."""
        return int(self.counts(hits).sum()) / self.denominator

    def units(self, hits: np.ndarray) -> np.ndarray:
        """What each image contributes, float64 (N,): their mean is the metric."""
        return self.counts(hits) * (len(self.weights) / self.denominator)


def columns(hits: np.ndarray) -> np.ndarray:
    """Hits as int64 (N, P).

    Raises:
        HeadwiseError: hits that are not whole numbers.
    """
    hits = np.asarray(hits)
    whole = hits.astype(np.int64)
    if not np.array_equal(whole, hits):
        raise HeadwiseError("Hits are counted: they must be whole numbers.")
    return whole[:, None] if whole.ndim == 1 else whole


def common_multiple(numbers: np.ndarray) -> tuple[int, bool]:
    """The least common multiple of whole numbers, and whether it is exact: a grid stands in for a very large one."""
    found = math.lcm(*(int(n) for n in np.unique(numbers)))
    return (found, True) if found <= FINE else (FINE, False)

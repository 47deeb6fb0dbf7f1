"""How uncertain a paired change is: bootstrap intervals and standard errors, images as clusters of their captions.

    change = Σ over strata and columns of share · Σ_n d_n / Σ_n w_n       d, w (N, P): differences of hits, weights

In: differences (N, P) and their `Design`. Out: an interval, or a standard error. The percentile bootstrap is Efron's
(1979); images are drawn with all their captions, and both sums vary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headwise.errors import HeadwiseError
from headwise.scoring.design import Design, columns
from headwise.scoring.stats.flips import _parts

DRAWS = 10_000


@dataclass(frozen=True)
class Interval:
    """A change and its interval."""

    mean: float
    low: float
    high: float


def bootstrap(
    differences: np.ndarray, design: Design, *, masks: int = 1, draws: int = DRAWS, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile bootstrap interval of a paired change, images drawn with replacement within each stratum.

    An image brings its captions: where images have unequally many, numerator and denominator of the change both
    vary. Drawing N images with replacement gives multinomial counts of the distinct rows of hits and weights;
    drawing those counts directly is the same distribution at a fraction of the work, as rows take few values.

    Arguments:
        differences: int64 (N, P), hits after minus hits before, summed over masks.
        design: of the hits.
        masks: how many masks were summed; the change is their mean.

    Raises:
        HeadwiseError: no images, or hits that do not fit the design.
    """
    d = _fitting(differences, design)
    rng = np.random.default_rng(seed)
    values = np.zeros(draws)
    width = d.shape[1]
    for number, shares in enumerate(design.shares):
        here = design.strata == number
        if not here.any():
            continue
        rows = np.hstack([d[here], design.weights[here]])  # (n, 2P)
        rows, counts = np.unique(rows, axis=0, return_counts=True)  # (K, 2P)
        factor = np.array([float(share) for share in shares]) / masks  # (P)
        size = int(counts.sum())
        for part in _parts(draws, len(rows)):
            drawn = rng.multinomial(size, counts / size, size=part.stop - part.start)  # (draws, K)
            sums = drawn @ rows  # (draws, 2P), exact: int64
            values[part] += (sums[:, :width] / np.maximum(sums[:, width:], 1)) @ factor
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return Interval(int(design.counts(d).sum()) / design.denominator / masks, float(low), float(high))


def standard_error(differences: np.ndarray, design: Design, *, masks: int = 1) -> float:
    """Paired standard error of a change, by each image's influence on the ratio; infinite for a stratum of one image.

    With equally many captions an image it is the standard error of a mean. (Cochran, Sampling Techniques, 1977,
    section 6.3: the linearised variance of a ratio of two sums over clusters.)

    Arguments:
        differences, design, masks: as for `bootstrap`.
    """
    d = _fitting(differences, design)
    variance = 0.0
    for number, shares in enumerate(design.shares):
        here = design.strata == number
        size = int(here.sum())
        if not size:
            continue
        if size == 1:
            return float("inf")
        total = design.totals[number]  # (P)
        ratio = d[here].sum(0) / total  # (P)
        influence = (d[here] - ratio * design.weights[here]) * (size / total)  # (n, P)
        own = influence @ np.array([float(share) for share in shares]) / masks  # (n)
        variance += float(own.var(ddof=1)) / size
    return float(np.sqrt(variance))


def _fitting(differences: np.ndarray, design: Design) -> np.ndarray:
    d = columns(differences)
    if not len(d) or d.shape != design.weights.shape:
        raise HeadwiseError(
            f"Statistics need the hits of at least one image, {design.weights.shape} of this design; got {d.shape}."
        )
    return d

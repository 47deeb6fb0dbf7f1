"""Paired statistics over images: is a difference real, after everything that was tried?

The image is the unit. Queries are resampled against a fixed gallery: the intervals say how much a result would
move with other queries, not with another gallery. Everything is seeded, and independent of how it is chunked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headwise.errors import HeadwiseError

DRAWS = 10_000
CELLS = 4_000_000  # numbers of one random block held at once


@dataclass(frozen=True)
class Interval:
    """A mean and its interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class McNemar:
    """How many queries were gained and lost, and the exact two-sided p."""

    gained: int
    lost: int
    p: float


@dataclass(frozen=True)
class Choice:
    """What `choose` found, per finalist in the order given.

    Arguments:
        index: the chosen finalist.
        best: the finalist with the highest mean.
        delta, error: mean difference to identity and its paired standard error.
        gap, gap_error: the best's mean minus this one's, and its paired standard error.
        eligible: gap ≤ gap_error.
    """

    index: int
    best: int
    delta: tuple[float, ...]
    error: tuple[float, ...]
    gap: tuple[float, ...]
    gap_error: tuple[float, ...]
    eligible: tuple[bool, ...]


def paired_bootstrap(differences: np.ndarray, *, draws: int = DRAWS, level: float = 0.95, seed: int = 0) -> Interval:
    """Percentile bootstrap interval of a mean paired difference, images drawn with replacement.

    Drawing N images with replacement gives multinomial counts of the distinct differences; drawing those counts
    directly is the same distribution at a fraction of the work, since hits take few distinct values.

    Arguments:
        differences: (N,), per image.

    Raises:
        HeadwiseError: no images, or a difference that is not finite.
    """
    d = _checked(differences)
    values, counts = np.unique(d, return_counts=True)  # (K)
    rng = np.random.default_rng(seed)
    means = np.empty(draws)
    for part in _parts(draws, len(values)):
        drawn = rng.multinomial(len(d), counts / len(d), size=part.stop - part.start)  # (draws, K)
        means[part] = drawn @ values / len(d)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(d.mean()), float(low), float(high))


def sign_flip(differences: np.ndarray, *, flips: int = DRAWS, seed: int = 0, alternative: str = "two-sided") -> float:
    """Paired permutation p of a mean difference: under the null each image's difference is as likely −d as d.

    Arguments:
        differences: (N,), per image.
        alternative: `two-sided`, or `greater` (the mean is above 0).

    Returns:
        (b + 1) / (flips + 1), b the flips at least as extreme as what was seen.

    Raises:
        HeadwiseError: no images, a difference that is not finite, or an unknown alternative.
    """
    d = _checked(differences)
    sizes, counts = np.unique(np.abs(d[d != 0]), return_counts=True)  # (K)
    rng = np.random.default_rng(seed)
    seen = _oriented(np.array([d.sum()]), alternative)[0]
    slack = 1e-9 * np.abs(d).sum()  # sums of the same numbers in another order are equal
    extreme = 0
    for part in _parts(flips, len(sizes)):
        # of the n images with |d| = size, a binomial number keeps a plus sign
        plus = rng.binomial(counts, 0.5, size=(part.stop - part.start, len(sizes)))  # (flips, K)
        totals = (2 * plus - counts) @ sizes  # (flips)
        extreme += int((_oriented(totals, alternative) >= seen - slack).sum())
    return (extreme + 1) / (flips + 1)


def max_t(differences: np.ndarray, *, flips: int = DRAWS, seed: int = 0, alternative: str = "two-sided") -> np.ndarray:
    """p of every head of a sweep, corrected for having looked at all of them (Westfall and Young's max-T).

    One sign per image is shared by all heads, so their correlation is kept. The statistic is Σd / √Σd², which no
    flip rescales; it rises with Student's t, so heads of unequal spread are on one footing.

    Arguments:
        differences: (H, N): per head and image.
        alternative: `two-sided`, or `greater` (the head's mean is above 0).

    Returns:
        float64 (H,): (b + 1) / (flips + 1), b the flips whose largest statistic reaches the head's own.

    Raises:
        HeadwiseError: not a matrix, no heads or images, a difference that is not finite, an unknown alternative.
    """
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 2 or not d.size:
        raise HeadwiseError(f"max-T needs differences of shape (heads, images), at least one each; got {d.shape}.")
    _checked(d.ravel())
    norm = np.sqrt((d * d).sum(1))  # (H)
    scaled = (d / np.where(norm > 0, norm, 1)[:, None]).T  # (N, H)
    seen = _oriented(scaled.sum(0), alternative)  # (H)
    rng = np.random.default_rng(seed)
    largest = np.empty(flips)
    for part in _parts(flips, max(d.shape)):
        signs = 2.0 * rng.integers(0, 2, size=(part.stop - part.start, d.shape[1]), dtype=np.int8) - 1  # (flips, N)
        largest[part] = _oriented(signs @ scaled, alternative).max(1)
    largest.sort()
    reached = flips - np.searchsorted(largest, seen - 1e-9, side="left")  # (H)
    return np.where(norm > 0, (reached + 1) / (flips + 1), 1.0)


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


def paired_error(differences: np.ndarray) -> float:
    """Standard error of a mean paired difference; infinite for a single image, which says nothing."""
    d = _checked(differences)
    return float(d.std(ddof=1) / np.sqrt(len(d))) if len(d) > 1 else float("inf")


def choose(units: Sequence[np.ndarray], sizes: Sequence[int], losses: Sequence[float] | None = None) -> Choice:
    """The one-standard-error rule: the fewest suppressed heads within one paired standard error of the best.

    Arguments:
        units: per finalist, (N,) per-image contributions on the pick split.
        sizes: per finalist, how many heads it suppresses; the first of size 0 is identity.
        losses: per finalist; breaks ties of the mean (lower is better).

    Raises:
        HeadwiseError: no identity, or finalists of different images.
    """
    if len(units) != len(sizes) or 0 not in sizes:
        raise HeadwiseError("Choosing needs one size per finalist, and identity (size 0) among them.")
    if len({np.shape(u) for u in units}) != 1:
        raise HeadwiseError(f"Finalists must be scored on the same images; got {[np.shape(u) for u in units]}.")
    table = np.asarray(units, dtype=np.float64)  # (F, N)
    means = table.mean(1)
    ties = losses if losses is not None else [0.0] * len(sizes)
    # losses are rounded as in `Score.order`: the last bits are another machine's
    order = [(-round(float(means[i]), 12), float(f"{ties[i]:.4e}"), sizes[i], i) for i in range(len(sizes))]
    best, identity = min(order)[-1], list(sizes).index(0)
    delta = tuple(float((row - table[identity]).mean()) for row in table)
    error = tuple(paired_error(row - table[identity]) for row in table)
    gap = tuple(float((table[best] - row).mean()) for row in table)
    gap_error = tuple(paired_error(table[best] - row) for row in table)
    eligible = tuple(g <= e + 1e-12 for g, e in zip(gap, gap_error, strict=True))
    index = min((sizes[i], *order[i]) for i in range(len(sizes)) if eligible[i])[-1]
    return Choice(index, best, delta, error, gap, gap_error, eligible)


def _oriented(statistic: np.ndarray, alternative: str) -> np.ndarray:
    """The statistic, turned so that larger is more extreme."""
    if alternative not in ("two-sided", "greater"):
        raise HeadwiseError(f"{alternative!r} is not an alternative. Use two-sided or greater.")
    return np.abs(statistic) if alternative == "two-sided" else statistic


def _checked(differences: np.ndarray) -> np.ndarray:
    d = np.asarray(differences, dtype=np.float64)
    if d.ndim != 1 or not len(d):
        raise HeadwiseError(f"Statistics need one number per image, at least one; got shape {d.shape}.")
    if not np.isfinite(d).all():
        raise HeadwiseError(f"The difference of image {int(np.flatnonzero(~np.isfinite(d))[0])} is not finite.")
    return d


def _parts(total: int, width: int) -> list[slice]:
    """range(total) in slices of at most CELLS cells."""
    step = max(1, CELLS // max(1, width))
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]

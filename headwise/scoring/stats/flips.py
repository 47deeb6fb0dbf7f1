"""Sign-flip tests: under the null each image's difference is as likely −d as d.

    p = share of s ∈ {−1, 1}^N with |Σ s_n d_n| ≥ |Σ d_n|       max-T: with max over masks h of |Σ s_n d_hn| / √Σ d_hn²

d (N) or (H, N): whole numbers, so that sums of equal size are equal and every tie is counted. Fisher's randomisation
test; max-T is Westfall and Young's (Resampling-Based Multiple Testing, 1993). It does not know what is counted at an
image.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from headwise.errors import HeadwiseError

DRAWS = 100_000  # flips, where there are too many to go through all of them
WORK = 5e8  # additions up to which a distribution is convolved exactly: about a second
ENUMERATED = 16  # images that change, up to which all flips are gone through one by one
CELLS = 4_000_000  # numbers of one random block held at once
GRID = 2.0**40  # steps, in the largest difference, of differences that are no whole numbers


@dataclass(frozen=True)
class PValue:
    """A p, and its Monte Carlo standard error: 0 where every flip was counted."""

    p: float
    error: float = 0.0


def sign_flip(
    differences: np.ndarray, *, slack: int = 0, draws: int = DRAWS, seed: int = 0, alternative: str = "two-sided"
) -> PValue:
    """Paired permutation p of a sum of differences: all 2^N flips counted, by convolution of their distribution.

    Arguments:
        differences: (N,), per image; whole numbers. Others are put on a fine grid.
        slack: sums that differ by no more than this are equal.
        draws: flips, where the exact distribution is too large.
        alternative: `two-sided`, or `greater` (the sum is above 0).

    Returns:
        The share of flips at least as extreme as what was seen; of drawn flips (b + 1) / (draws + 1).

    Raises:
        HeadwiseError: no images, a difference that is not finite, or an unknown alternative.
    """
    _check(alternative)
    d, coarse = _whole(differences)
    slack = max(slack, coarse)
    d = d[d != 0]
    if not len(d):
        return PValue(1.0)
    sizes, counts = np.unique(np.abs(d), return_counts=True)  # (K)
    step = math.gcd(*sizes.tolist())
    sizes, seen, slack = sizes // step, int(d.sum()) // step, slack // step
    reach = int((sizes * counts).sum())
    if len(d) * reach / 2 <= WORK:
        return PValue(_exact(sizes, counts, reach, seen, slack, alternative))
    threshold = _turned(np.array([seen]), alternative)[0] - slack
    if len(d) <= ENUMERATED:
        keep = next(_signs(len(d), 2 ** len(d), None, 1))  # (2^N, N)
        totals = (2 * keep - 1) @ (np.abs(d) // step)  # (2^N), exact: int64
        return PValue(float((_turned(totals, alternative) >= threshold).mean()))
    rng = np.random.default_rng(seed)
    extreme = 0
    for part in _parts(draws, len(sizes)):
        # of the n images with |d| = size, a binomial number keeps a plus sign
        plus = rng.binomial(counts, 0.5, size=(part.stop - part.start, len(sizes)))  # (draws, K)
        totals = (2 * plus - counts) @ sizes  # (draws), exact: int64
        extreme += int((_turned(totals, alternative) >= threshold).sum())
    return _drawn(extreme, draws)


def _exact(sizes: np.ndarray, counts: np.ndarray, reach: int, seen: int, slack: int, alternative: str) -> float:
    """P(sum of flipped sizes at least as extreme), from the distribution of the sum of those that keep their plus."""
    chance = np.zeros(reach + 1)
    chance[0], top = 1.0, 0
    for size, count in zip(sizes.tolist(), counts.tolist(), strict=True):
        for _ in range(count):
            chance[: top + 1] *= 0.5
            # the right side is a copy: where the slices overlap, nothing is added twice
            chance[size : top + size + 1] += chance[: top + 1].copy()
            top += size
    if alternative == "greater":
        # 2 · plus − reach ≥ seen − slack
        return min(1.0, float(chance[max(0, math.ceil((seen - slack + reach) / 2)) :].sum()))
    least = max(0, abs(seen) - slack)
    if least == 0:
        return 1.0
    return min(1.0, 2 * float(chance[math.ceil((least + reach) / 2) :].sum()))


def max_t(
    differences: np.ndarray, *, slack: int = 0, draws: int = DRAWS, seed: int = 0, alternative: str = "two-sided"
) -> list[PValue]:
    """p of each of several masks, corrected for having looked at all of them (Westfall and Young's max-T).

    One sign per image is shared by all masks, so their correlation is kept. The statistic is Σd / √Σd², which no
    flip rescales; it rises with Student's t, so masks of unequal spread are on one footing.

    Arguments:
        differences: (H, N): per mask and image; whole numbers. Others are put on a fine grid.
        slack, draws, alternative: as for `sign_flip`.

    Returns:
        For each mask the share of flips whose largest statistic reaches its own.

    Raises:
        HeadwiseError: not a matrix, no masks or images, a difference that is not finite, an unknown alternative.
    """
    _check(alternative)
    d = np.asarray(differences)
    if d.ndim != 2 or not d.size:
        raise HeadwiseError(f"max-T needs differences of shape (heads, images), at least one each; got {d.shape}.")
    flat, coarse = _whole(d.ravel())
    d, slack = flat.reshape(d.shape), max(slack, coarse)
    if len(d) == 1:
        return [sign_flip(d[0], slack=slack, draws=draws, seed=seed, alternative=alternative)]
    d = d[:, (d != 0).any(0)]  # (H, n): the images that something changes
    if not d.shape[1]:
        return [PValue(1.0)] * len(d)
    step = max(1, math.gcd(*np.unique(np.abs(d)).tolist()))
    d, slack = d // step, slack // step
    norm = np.sqrt((d.astype(np.float64) ** 2).sum(1))  # (H)
    scale = np.where(norm > 0, norm, 1.0)
    total = d.sum(1)  # (H)
    seen = _turned(total / scale, alternative)  # (H)
    enumerated = d.shape[1] <= ENUMERATED
    draws = 2 ** d.shape[1] if enumerated else draws
    # whole numbers below 2²⁴ (2⁵³) are exact in float32 (float64), whatever the order of a sum
    exact = np.float32 if np.abs(d).sum(1).max() < 2**24 else np.float64
    plus, reached = d.T.astype(exact), np.zeros(len(d), np.int64)  # (n, H)
    for keep in _signs(d.shape[1], draws, None if enumerated else np.random.default_rng(seed), len(d)):
        totals = 2 * (keep.astype(exact) @ plus).astype(np.float64) - total  # (draws, H)
        largest = np.sort(_turned(totals / scale, alternative).max(1))
        reached += len(largest) - np.searchsorted(largest, seen - 1e-9 - slack / scale, side="left")
    if enumerated:
        return [PValue(float(b / draws) if n > 0 else 1.0) for b, n in zip(reached, norm, strict=True)]
    return [_drawn(int(b), draws) if n > 0 else PValue(1.0) for b, n in zip(reached, norm, strict=True)]


def _signs(images: int, draws: int, rng: np.random.Generator | None, masks: int) -> Iterator[np.ndarray]:
    """Which images keep their sign, 0 or 1 (draws, images), block by block; without `rng` every way once."""
    for part in _parts(draws, max(images, masks)):
        if rng is None:
            yield np.arange(part.start, part.stop)[:, None] >> np.arange(images) & 1
        else:
            row = 4 * -(-images // 32)  # whole words, so that blocks do not shift the stream
            bits = np.frombuffer(rng.bytes((part.stop - part.start) * row), np.uint8).reshape(-1, row)
            yield np.unpackbits(bits, axis=1, count=images)


def _drawn(extreme: int, draws: int) -> PValue:
    p = (extreme + 1) / (draws + 1)
    return PValue(p, math.sqrt(p * (1 - p) / draws))


def _turned(statistic: np.ndarray, alternative: str) -> np.ndarray:
    """The statistic, turned so that larger is more extreme."""
    return np.abs(statistic) if alternative == "two-sided" else statistic


def _check(alternative: str) -> None:
    if alternative not in ("two-sided", "greater"):
        raise HeadwiseError(f"{alternative!r} is not an alternative. Use two-sided or greater.")


def _whole(differences: np.ndarray) -> tuple[np.ndarray, int]:
    """Differences as whole numbers, int64 (N,), and by how much sums of them may be off."""
    d = np.asarray(differences)
    if d.ndim != 1 or not len(d):
        raise HeadwiseError(f"Statistics need one number per image, at least one; got shape {d.shape}.")
    if np.issubdtype(d.dtype, np.integer):
        return d.astype(np.int64), 0
    if not np.isfinite(d).all():
        raise HeadwiseError(f"The difference of image {int(np.flatnonzero(~np.isfinite(d))[0])} is not finite.")
    if np.array_equal(d, np.rint(d)) and np.abs(d).sum() < 2**53:
        return d.astype(np.int64), 0
    return np.rint(d * (GRID / np.abs(d).max())).astype(np.int64), len(d)


def _parts(total: int, width: int) -> list[slice]:
    """range(total) in slices of at most CELLS cells."""
    step = max(1, CELLS // max(1, width))
    return [slice(start, min(start + step, total)) for start in range(0, total, step)]

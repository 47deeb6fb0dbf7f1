"""Is it right? Statistics on images that nothing was fitted on.

In: effects along a text (N), which images have it, changes of the metric (N). Out: r, AUPRC, p by permutation, q. Of
the measures in use for neurons only few pass both sanity checks, fewer labels and more labels must score lower
(NeuronEval, ICML 2025): correlation and AUPRC do, AUC, recall and accuracy do not. Both checks are in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

PERMUTATIONS = 2000
LEAST = 5  # images with and without a concept
LIKE = 1000  # texts of like frequency
LEAST_LIKE = 19  # fewer say nothing at the 5 % level


def correlation(scores: np.ndarray, truth: np.ndarray) -> float:
    """Pearson's r of numbers (N) with numbers or 0 and 1 (N); 0 where either does not vary."""
    a, b = _standard(scores[None]), _standard(truth[None])
    return float((a * b).mean())


def auprc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the precision-recall curve as average precision; images of equal score are taken together.

    Arguments:
        scores: (N).
        truth: bool (N).

    Returns:
        nan where no image is true. By chance it is the share of true images.
    """
    truth = np.asarray(truth, bool)
    if not truth.any():
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(truth[order])
    last = np.append(np.flatnonzero(np.diff(scores[order])), len(scores) - 1)  # the last of every equal score
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    return float((precision * np.diff(recall, prepend=0.0)).sum())


@dataclass(frozen=True)
class Many:
    """r of many pairs of series, and p corrected for all of them.

    Arguments:
        r, p: of one shape.
    """

    r: np.ndarray
    p: np.ndarray


def held_out(predictions: np.ndarray, truths: np.ndarray, *, paired: bool = False, seed: int = 0) -> Many:
    """Correlations with p by permuting images, corrected by the largest |r| of all (max-T of Westfall and Young).

    One permutation serves all, so that their correlation is kept.

    Arguments:
        predictions: (H, N), each against every truth; with `paired` (H, A, N), each against its own.
        truths: (A, N); nan: an image that is left out of all.

    Returns:
        r and p, (H, A); 0 and 1 where fewer than three images are left.
    """
    good = np.isfinite(truths).all(0) & np.isfinite(predictions).reshape(-1, predictions.shape[-1]).all(0)
    n = int(good.sum())
    if n < 3:
        shape = (len(predictions), len(truths))
        return Many(np.zeros(shape), np.ones(shape))
    x, y = _standard(predictions[..., good]), _standard(truths[:, good])  # (H, N) or (H, A, N); (A, N)
    by_truth = np.ascontiguousarray(x.swapaxes(0, 1)) if paired else x  # (A, H, N)

    def correlate(order: np.ndarray | slice) -> np.ndarray:
        shuffled = y[:, order]  # (A, N)
        return (by_truth @ shuffled[..., None])[..., 0].T / n if paired else x @ shuffled.T / n  # (H, A)

    r = correlate(slice(None))
    rng = np.random.default_rng(seed)
    largest = np.sort([np.abs(correlate(rng.permutation(n))).max(initial=0.0) for _ in range(PERMUTATIONS)])
    reached = PERMUTATIONS - np.searchsorted(largest, np.abs(r) - 1e-9, side="left")
    return Many(r, (reached + 1) / (PERMUTATIONS + 1))


@dataclass(frozen=True)
class Concept:
    """How well one text fits one head, on images not used for labelling.

    Arguments:
        images: how many images' captions have the text.
        r: of the effect along the text with that.
        auprc, chance: of the effect in the label's direction, and by chance.
        like: texts of like frequency that were compared.
        p: share of these whose own |r| with this head is at least as large.
    """

    images: int
    r: float
    auprc: float
    chance: float
    like: int
    p: float | None


def concept(
    effect: np.ndarray, has: np.ndarray, down: bool, likes: np.ndarray, like_counts: np.ndarray, own: int | None
) -> Concept | None:
    """
    Arguments:
        effect: along the text, (N).
        has: a caption of the image has the text, bool (N).
        down: the label says that the head writes against the text.
        likes: |r| of this head with each text of the captions, (P); nan where too few images have it.
        like_counts: how many images have each, (P).
        own: which of these is the text itself.

    Returns:
        None where fewer than `LEAST` images have the text, or have not.
    """
    count = int(has.sum())
    if min(count, len(has) - count) < LEAST:
        return None
    r = correlation(effect, has.astype(np.float64))
    usable = np.isfinite(likes)
    if own is not None:
        usable[own] = False
    order = np.flatnonzero(usable)
    order = order[np.argsort(np.abs(np.log(like_counts[order].clip(1) / count)), kind="stable")][:LIKE]
    p = (1 + int((likes[order] >= abs(r) - 1e-9).sum())) / (1 + len(order)) if len(order) >= LEAST_LIKE else None
    return Concept(count, r, auprc(-effect if down else effect, has), count / len(has), len(order), p)


def fits(effects: np.ndarray, directions: np.ndarray, has: np.ndarray) -> np.ndarray:
    """|r| of one head's effect along each text with the captions that have it, (P); nan where too few have it.

    Arguments:
        effects: (N, E).
        directions: (P, E).
        has: bool (P, N).
    """
    counts = has.sum(1)
    r = np.abs((_standard((effects @ directions.T).T) * _standard(has.astype(np.float32))).mean(1))
    return np.where((counts >= LEAST) & (counts <= has.shape[1] - LEAST), r, np.nan)


@dataclass(frozen=True)
class Cause:
    """What removing a head does to images with a concept, beyond what it does to the others.

    Arguments:
        with_it, without_it: mean change of the fitness's per-image part, in fractions.
        difference: the former minus the latter; p: two-sided, by permuting which images have the concept.
    """

    with_it: float
    without_it: float
    difference: float
    p: float


def cause(change: np.ndarray, has: np.ndarray, seed: int = 0) -> Cause | None:
    """
    Arguments:
        change: each image's hits without the head minus those with it, (N).
        has: bool (N).

    Returns:
        None where fewer than `LEAST` images have the concept, or have not.
    """
    count = int(has.sum())
    if min(count, len(has) - count) < LEAST:
        return None
    change = np.asarray(change, np.float64)
    yes, no = float(change[has].mean()), float(change[~has].mean())
    rng = np.random.default_rng(seed)
    total, n = change.sum(), len(change)
    values, times = np.unique(change, return_counts=True)  # hits take few values: draw how often each is with a concept
    drawn = rng.multivariate_hypergeometric(times, count, size=PERMUTATIONS, method="marginals") @ values
    differences = np.abs(drawn / count - (total - drawn) / (n - count))
    p = (1 + int((differences >= abs(yes - no) - 1e-12).sum())) / (1 + PERMUTATIONS)
    return Cause(yes, no, yes - no, p)


def benjamini_hochberg(p: Mapping[tuple, float]) -> dict[tuple, float]:
    """Adjusted p (q): the smallest false discovery rate at which each would count."""
    order = sorted(p, key=lambda key: p[key])
    q, least = {}, 1.0
    for rank in range(len(order), 0, -1):
        least = min(least, p[order[rank - 1]] * len(order) / rank)
        q[order[rank - 1]] = least
    return q


def _standard(x: np.ndarray) -> np.ndarray:
    """Along the last axis minus its mean, by its standard deviation; zeros where it does not vary."""
    x = np.asarray(x, np.float64)
    x = x - x.mean(-1, keepdims=True)
    spread = x.std(-1, keepdims=True)
    return np.divide(x, spread, out=np.zeros_like(x), where=spread > 1e-12)

"""Ranks → recall: of a split, and image by image as whole numbers that a design makes the same number of.

    R@k = share of ranks < k       mean recall = the mean of both directions' R@1, R@5, R@10

In: 0-based ranks (`ranking.py`). Out: fractions by clip_benchmark's names; hits int64 (N, 2).
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np

from headwise.scoring.design import Design

KS = (1, 5, 10)
DIRECTIONS = ("image_retrieval", "text_retrieval")  # text → image, image → text


def recalls(ranks: Mapping[str, np.ndarray]) -> dict[str, float]:
    """clip_benchmark's names → fractions, the mean of each direction and `mean_recall`, the mean of both.

    Arguments:
        ranks: as `Retrieved.ranks`.
    """
    hits = {name: [int((ranks[name] < k).sum()) for k in KS] for name in DIRECTIONS}
    sizes = {name: len(ranks[name]) for name in DIRECTIONS}
    metrics = {
        f"{name}_recall@{k}": n / sizes[name] for name in DIRECTIONS for k, n in zip(KS, hits[name], strict=True)
    }
    means = {f"{name}_mean_recall": sum(hits[name]) / (len(KS) * sizes[name]) for name in DIRECTIONS}
    t2i, i2t = DIRECTIONS
    # one division of whole numbers: equal hits give equal floats
    both = sum(hits[t2i]) * sizes[i2t] + sum(hits[i2t]) * sizes[t2i]
    return metrics | means | {"mean_recall": both / (2 * len(KS) * sizes[t2i] * sizes[i2t])}


def per_image_hits(ranks: Mapping[str, np.ndarray], owner: np.ndarray, of: np.ndarray | None = None) -> np.ndarray:
    """How many of its queries each image gets right, counted once for every k in {1, 5, 10}.

    Arguments:
        ranks: as `Retrieved.ranks`.
        owner, of: as for `retrieve`. A text of several images is one query; it counts at the first of them.

    Returns:
        int64 (N, 2): hits of the image's captions, and of the image itself.
    """
    by_text = np.sum([ranks["image_retrieval"] < k for k in KS], axis=0)  # (T)
    by_image = np.sum([ranks["text_retrieval"] < k for k in KS], axis=0)  # (N)
    total = np.zeros(len(by_image), np.int64)
    np.add.at(total, query_owner(owner, of), by_text)
    return np.stack([total, by_image], axis=1).astype(np.int64)


def retrieval_design(owner: np.ndarray, of: np.ndarray | None, images: int) -> Design:
    """How `per_image_hits` make mean recall: the mean of text → image over captions and image → text over images."""
    queries = np.bincount(query_owner(owner, of), minlength=images)  # (N)
    weights = len(KS) * np.stack([queries, np.ones(images, np.int64)], axis=1)
    return Design(weights.astype(np.int64), ((Fraction(1, 2), Fraction(1, 2)),))


def query_owner(owner: np.ndarray, of: np.ndarray | None) -> np.ndarray:
    """The image at which each text is counted, int64 (T,): its own, or the first of its own."""
    owner = np.asarray(owner, np.int64)
    return owner if of is None else owner[np.unique(of, return_index=True)[1]]


def clip_benchmark_json(
    metrics: Mapping[str, float],
    *,
    dataset: str,
    model: str,
    pretrained: str = "",
    task: str = "zeroshot_retrieval",
    language: str = "en",
    gallery: Mapping[str, int] | None = None,
) -> dict[str, object]:
    """One result as clip_benchmark writes it; the gallery's size goes in as `gallery_images`, `gallery_captions`."""
    sizes = {f"gallery_{name}": size for name, size in (gallery or {}).items()}
    return {
        "dataset": dataset,
        "model": model,
        "pretrained": pretrained,
        "task": task,
        "metrics": {**metrics, **sizes},
        "language": language,
    }

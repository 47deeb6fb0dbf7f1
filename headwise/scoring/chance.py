"""What a model that knows nothing would score: where the unchanged model is no better, nothing can be learnt.

    R@k(text → image) = 1 − Π_{j < k} (N − m − j) / (N − j)       m of the N images are the text's own; mean over texts
    R@k(image → text) = 1 − Π_{j < k} (T − c − j) / (T − j)       c of the T texts, distractors among them, are the
                                                           image's own; mean over images
    AP of n positives among m = 1/m · Σ_{i ≤ m} (1 + (i − 1) (n − 1) / (m − 1)) / i       mean over queries

In: an objective. Out: the expected fitness of ranks drawn at random, a fraction; None where it is not known.
"""

from __future__ import annotations

import math

import numpy as np

from headwise.scoring.objectives import (
    Classification,
    Combined,
    MultiObject,
    Objective,
    Prototypes,
    Retrieval,
    SingleObject,
)
from headwise.scoring.recall import KS


def chance(objective: Objective) -> float | None:
    """The expected fitness of embeddings drawn at random; None where that is not known."""
    if isinstance(objective, Retrieval):
        return _retrieval(objective)
    if isinstance(objective, Prototypes):
        return 1 / len(np.unique(objective.labels))
    if isinstance(objective, Classification):
        return 1 / len(objective.classes)
    if isinstance(objective, MultiObject):
        return 0.25
    if isinstance(objective, SingleObject):
        counted = objective.all_counted
        right, among = (objective.present & counted).sum(0), counted.sum(0)  # (C) each
        return float(np.mean([_precision(int(n), int(m)) for n, m in zip(right, among, strict=True) if n]))
    if isinstance(objective, Combined):
        each = [chance(part.objective) for part in objective.parts]
        known = [value for value in each if value is not None]
        weights = [part.weight for part in objective.parts]
        return float(np.average(known, weights=weights)) if len(known) == len(each) else None
    return None


def _retrieval(objective: Retrieval) -> float:
    """Mean recall of random ranks: of a text any of its own images is right, of an image any of its own texts."""
    same = np.arange(len(objective.owner)) if objective.same is None else objective.same
    links = np.unique(np.stack([same, objective.owner]), axis=1)  # (2, L): each text with each of its images once
    queries, images = len(np.unique(links[0])), objective.images
    by_text = _recall(np.unique(links[0], return_counts=True)[1], images)
    by_image = _recall(np.unique(links[1], return_counts=True)[1], queries + objective.foreign)
    return (by_text + by_image) / 2


def _recall(own: np.ndarray, among: int) -> float:
    """The mean over queries and k of: any of a query's own is among the first k, where ranks are drawn at random."""
    sizes, counts = np.unique(own, return_counts=True)
    return float(np.mean([np.average([1 - _none(among, int(c), k) for c in sizes], weights=counts) for k in KS]))


def _none(among: int, own: int, k: int) -> float:
    """None of a query's own is among the first k."""
    if k > among - own:
        return 0.0
    return math.prod((among - own - j) / (among - j) for j in range(k))


def _precision(positives: int, images: int) -> float:
    """The average precision of positives at random places."""
    i = np.arange(1, images + 1)
    return float(((1 + (i - 1) * (positives - 1) / max(1, images - 1)) / i).mean())

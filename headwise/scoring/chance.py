"""What a model that knows nothing would score: where the unchanged model is no better, nothing can be learnt.

    R@k(text → image) = min(1, k / N)
    R@k(image → text) = 1 − Π_{j < k} (T − c − j) / (T − j)       c of the T texts, distractors among them, are the
                                                           image's own; mean over images

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
        right = (objective.present & counted).sum(0)
        return float((right[right > 0] / counted.sum(0)[right > 0]).mean())
    if isinstance(objective, Combined):
        each = [chance(part.objective) for part in objective.parts]
        known = [value for value in each if value is not None]
        weights = [part.weight for part in objective.parts]
        return float(np.average(known, weights=weights)) if len(known) == len(each) else None
    return None


def _retrieval(objective: Retrieval) -> float:
    """Mean recall of random ranks: of a text one image is right, of an image any of its own texts."""
    images, texts = objective.images, int(objective.design.weights[:, 0].sum()) // len(KS) + objective.foreign
    own = np.bincount(objective.owner, minlength=images)  # (N)
    by_text = sum(min(1.0, k / images) for k in KS) / len(KS)
    by_image = 0.0
    for k in KS:
        # none of an image's own c texts among the first k of T
        missed = [_none(texts, int(c), k) for c in own]
        by_image += (1 - sum(missed) / images) / len(KS)
    return (by_text + by_image) / 2


def _none(texts: int, own: int, k: int) -> float:
    if k > texts - own:
        return 0.0
    return math.prod((texts - own - j) / (texts - j) for j in range(k))

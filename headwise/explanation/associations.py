"""Which attributes of a picture a head's effect carries, and which pictures it acts on most.

    carried = r(a, a_0 + Σ_j b_j x_j)       x_j: the first ten principal axes of the head's effects; b on other images

In: effects (N, E) of each head, attributes a (N, A). Out: r for each head and attribute on images for checking, p
corrected for all of them (max-T), and the same r of the embeddings themselves. It does not know what an attribute is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headwise.explanation.checks import Many, held_out
from headwise.explanation.labels import Axes, axes

AXES = 10


@dataclass(frozen=True)
class Associations:
    """On images for checking, p corrected for all heads and attributes.

    Arguments:
        carried: r of each attribute with what the first axes of the head's effects predict of it, (heads, A).
        size: r of each attribute with the size of the effect, (heads, A).
        embedding: as `carried`, for the first axes of the embeddings themselves, (A): what a head's effect
            has to exceed to be about the attribute more than the whole embedding is.
    """

    carried: Many
    size: Many
    embedding: np.ndarray


def associate(
    effects: Callable[[int], np.ndarray], identity: np.ndarray, sizes: np.ndarray, values: np.ndarray, label: int
) -> Associations:
    """
    Arguments:
        effects: row of a head → (N, E); the images for labelling come first.
        identity: embeddings, (N, E).
        sizes: of the effects, (heads, N).
        values: attributes, (N, A); nan where a picture could not be read.
        label: how many images are for labelling.
    """
    predicted = np.stack([predict(effects(row), values, label) for row in range(len(sizes))])  # (heads, A, N')
    truths = values[label:].T.astype(np.float64)  # (A, N')
    whole = predict(identity, values, label)  # (A, N')
    return Associations(
        carried=held_out(predicted, truths, paired=True),
        size=held_out(sizes[:, label:], truths),
        embedding=held_out(whole[None], truths, paired=True).r[0],
    )


def predict(x: np.ndarray, values: np.ndarray, label: int, count: int = AXES) -> np.ndarray:
    """Attributes of the images for checking, read by least squares from the first principal axes: (A, N')."""
    own: Axes = axes(x[:label], kept=1.0, most=count)
    directions = own.directions.numpy()  # (r, E)
    scores = (x - own.mean.numpy()) @ directions.T  # (N, r)
    scores = np.concatenate([scores, np.ones((len(x), 1))], axis=1)
    good = np.isfinite(values[:label]).all(1)
    if good.sum() <= scores.shape[1]:
        return np.zeros((values.shape[1], len(x) - label))
    weights, *_ = np.linalg.lstsq(scores[:label][good], values[:label][good], rcond=None)  # (r + 1, A)
    return (scores[label:] @ weights).T

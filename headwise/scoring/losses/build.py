"""From an objective to the loss that gradients are taken of.

In: an objective. Out: the `Loss` by which it breaks ties, with the same numbers where that is possible. This is the
one place that knows which loss belongs to which objective.
"""

from __future__ import annotations

import numpy as np
import torch

from headwise.errors import HeadwiseError
from headwise.scoring.losses.captions import Captions, captions, ready
from headwise.scoring.losses.classes import ClassMeans, Labels, balanced, pairs_of_a_class
from headwise.scoring.losses.cola import PairTexts, Queries
from headwise.scoring.losses.combined import Mixture, Share
from headwise.scoring.losses.contract import Loss
from headwise.scoring.objectives import (
    Classification,
    Combined,
    MultiObject,
    Objective,
    Prototypes,
    Retrieval,
    SingleObject,
)


def loss_of(objective: Objective, device: torch.device | str = "cpu") -> Loss:
    """The differentiable loss of an objective.

    Of a whole split it is the loss by which the objective breaks ties, with two exceptions, both for labels: a
    fitness that balances classes or groups weighs the images so that each class or group counts the same (which
    also stands in for the accuracy of the worst group), and with class means an image that is alone in its class
    takes no part.

    Arguments:
        objective: what a search maximises.
        device: where the images will be embedded.

    Raises:
        HeadwiseError: an objective that headwise does not know.
    """
    if isinstance(objective, Combined):
        total = sum(part.weight for part in objective.parts)
        parts = [Share(loss_of(p.objective, device), p.start, p.weight / total) for p in objective.parts]
        return Mixture(tuple(parts), objective.images)
    if isinstance(objective, Retrieval):
        return captions_of(objective, device)
    if isinstance(objective, Classification):
        labels, weights = (torch.as_tensor(x, device=device) for x in (objective.labels, _weights(objective)))
        if isinstance(objective, Prototypes):
            units = pairs_of_a_class(objective.labels)
            return ClassMeans(len(objective.classes), labels, weights, objective.scale, units)
        return Labels(ready(objective.classes, device, "class"), labels, weights, objective.scale)
    if isinstance(objective, MultiObject):
        partner = objective.partner
        pairs = tuple((int(i), int(partner[i])) for i in np.flatnonzero(np.arange(len(partner)) < partner))
        texts = ready(objective.texts, device, "caption")
        return PairTexts(texts, torch.as_tensor(partner, device=device), objective.scale, pairs)
    if isinstance(objective, SingleObject):
        present, counted = (torch.as_tensor(x, device=device) for x in (objective.present, objective.all_counted))
        return Queries(ready(objective.texts, device, "query"), present, counted)
    raise HeadwiseError(f"No gradient is known for the objective {objective.name}; use the strategies greedy and ga.")


def captions_of(objective: Retrieval, device: torch.device | str = "cpu") -> Captions:
    """The contrastive loss of retrieval."""
    return captions(
        objective.unique_texts,
        objective.owner,
        objective.images,
        of=objective.same,
        loss=objective.loss,
        scale=objective.scale,
        bias=objective.bias,
        distractors=objective.distractors,
        device=device,
    )


def _weights(objective: Classification) -> np.ndarray:
    """What each image counts, (N,)."""
    if objective.fitness == "mean_per_class_recall":
        return balanced(objective.labels)
    if "group" in objective.fitness:
        return balanced(objective.group_numbers)
    return np.ones(objective.images, np.float32)

"""Training weights through a parametrisation: W stays frozen, a few values say how far from it the model's weight is.

In: weights of a tower of one's own, and what stands for each of them while it is trained. Out: an ordinary tower whose
weights are what was found. Training itself is `training.train_tower`.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.nn.utils import parametrize

from headwise.baselines.training import FitSettings, Fitted, Progress, fitted_tower, train_tower
from headwise.evaluation.engine import Pixels
from headwise.scoring.losses import Captions
from headwise.search.training import Anchors
from headwise.towers.base import Tower

Weight = tuple[nn.Module, str]  # where it is, and its name there


def fit_weights(
    name: str,
    tower: Tower,
    weights: Sequence[Weight],
    stands_for: Callable[[torch.Tensor], nn.Module],
    pixels: Pixels,
    captions: Captions,
    settings: FitSettings,
    *,
    learning_rate: float,
    anchors: Anchors | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """Train what stands for these weights, then put what it computes in their place.

    Arguments:
        name: of the baseline.
        tower: one's own copy; its weights change.
        weights: what is trained.
        stands_for: a weight → a module that computes the new weight from it; its parameters, 0 at the start, are trained.
        pixels, captions, settings, anchors, progress: as `headwise.baselines.fit`.
        learning_rate: where the settings leave it open.

    Raises:
        HeadwiseError: bad input, or weights that take no part in the embeddings.
    """
    parameters: list[nn.Parameter] = []
    order = {module: tuple(module._parameters) for module, _ in weights}
    for module, weight in weights:
        part = stands_for(getattr(module, weight).detach())
        parametrize.register_parametrization(module, weight, part)
        parameters += part.parameters()
    trained = train_tower(
        tower,
        parameters,
        pixels,
        captions,
        settings,
        learning_rate=learning_rate,
        weight_decay=settings.weight_decay,
        anchors=anchors,
        progress=progress,
    )
    for module, weight in weights:
        parametrize.remove_parametrizations(module, weight, leave_parametrized=True)
    # a weight that is put back comes last in its module; whoever goes through parameters expects it in its place
    for module, names in order.items():
        module._parameters = {name: module._parameters[name] for name in names}
    return fitted_tower(name, tower, captions, parameters, trained)


def between(tower: Tower, tuned: Tower, alpha: float) -> Tower:
    """A tower with the weights W + α · (W_tuned − W) (WiSE-FT, Wortsman et al., arXiv 2109.01903).

    Arguments:
        tower: with the weights W, in float32.
        tuned: its trained copy, with parameters of the same names.
        alpha: 0: the tower, 1: the trained one.
    """
    parts = copy.deepcopy(tower.parts)
    names = [name for name, _ in parts.named_parameters()]
    assert names == [name for name, _ in tuned.parts.named_parameters()]
    with torch.no_grad():
        for weight, trained in zip(parts.parameters(), tuned.parts.parameters(), strict=True):
            weight.copy_(weight + alpha * (trained - weight))
    return tower.build(parts)


def matrices(modules: nn.Module) -> list[Weight]:
    """Every weight of two dimensions among the modules, shared ones once."""
    seen: dict[int, Weight] = {}
    for module in modules.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.dim() == 2:
                seen.setdefault(id(parameter), (module, name))
    return list(seen.values())

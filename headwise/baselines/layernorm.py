"""Tuning the weights and biases of the image tower's LayerNorms alone.

    y = w ⊙ (x − mean) / std + b,  w and b (D,) trained, all else frozen

(Basu et al., arXiv 2304.08442, among others.) In: a tower. Out: a copy of it with other norms, an ordinary model.
Training itself is `training.train_tower`; norms that the embedding does not depend on are left out.
"""

from __future__ import annotations

import torch
from torch import nn

from headwise.baselines.training import FitSettings, Fitted, Progress, fitted_tower, thawed_copy, train_tower, walk
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Pixels
from headwise.scoring.losses import Captions
from headwise.search.gated import gather
from headwise.search.training import Anchors
from headwise.towers.base import Tower

LEARNING_RATE = 1e-3


def fit(
    tower: Tower,
    pixels: Pixels,
    captions: Captions,
    settings: FitSettings,
    *,
    anchors: Anchors | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """As `headwise.baselines.fit`.

    Raises:
        HeadwiseError: bad input, or a tower without LayerNorm.
    """
    tuned = thawed_copy(tower)
    parameters = _used(tuned, _found(tuned), gather(tuned, pixels, torch.tensor([0])))
    trained = train_tower(
        tuned,
        parameters,
        pixels,
        captions,
        settings,
        learning_rate=LEARNING_RATE,
        weight_decay=0.0,  # these values lie around 1 and 0: decay would not pull them towards the model's own
        anchors=anchors,
        progress=progress,
    )
    return fitted_tower("layernorm", tuned, captions, parameters, trained)


def check(tower: Tower) -> None:
    """Whether there is anything to tune: see `fit`."""
    _found(tower)


def _found(tower: Tower) -> list[nn.Parameter]:
    norms = [module for module in tower.parts.modules() if isinstance(module, nn.LayerNorm)]
    found = list(dict.fromkeys(parameter for norm in norms for parameter in norm.parameters()))  # shared ones once
    if not found:
        raise HeadwiseError(f"{tower.family} has no LayerNorm with weights to tune.")
    return found


def _used(tower: Tower, parameters: list[nn.Parameter], image: torch.Tensor) -> list[nn.Parameter]:
    """The parameters that the embedding of an image (1, 3, R, R) depends on; a library may keep idle ones."""
    for parameter in parameters:
        parameter.requires_grad_(True)
    slopes = torch.autograd.grad(walk(tower, image, FitSettings()).sum(), parameters, allow_unused=True)
    for parameter in parameters:
        parameter.requires_grad_(False)
    return [parameter for parameter, slope in zip(parameters, slopes, strict=True) if slope is not None]

"""Tuning the last projection of the image tower alone, held to where it was.

    W' = W + Δ,  Δ from 0 and pulled to 0 by weight decay, all else frozen

Close to ProLIP (Fahes et al., arXiv 2410.05270), which adds ‖Δ‖² to the loss instead. In: a tower. Out: a copy of it with
another projection, an ordinary model.
"""

from __future__ import annotations

import torch
from torch import nn

from headwise.baselines.training import FitSettings, Fitted, Progress, thawed_copy
from headwise.baselines.weights import Weight, fit_weights, matrices
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Pixels
from headwise.scoring.losses import Captions
from headwise.search.training import Anchors
from headwise.towers.base import Tower

LEARNING_RATE = 1e-3


class Moved(nn.Module):
    """W + Δ."""

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        self.delta = nn.Parameter(torch.zeros_like(weight))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """(D_out, D_in) → (D_out, D_in)."""
        return weight + self.delta


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
        HeadwiseError: bad input, or a tower that ends without a projection.
    """
    tuned = thawed_copy(tower)
    return fit_weights(
        "projection",
        tuned,
        [_last(tuned)],
        Moved,
        pixels,
        captions,
        settings,
        learning_rate=LEARNING_RATE,
        anchors=anchors,
        progress=progress,
    )


def check(tower: Tower) -> None:
    """Whether there is anything to tune: see `fit`."""
    _last(thawed_copy(tower))


def _last(tower: Tower) -> Weight:
    """The matrix after the blocks that makes embeddings (1, E) of what pooling reads; the last one where there are several."""
    image = torch.zeros(1, 3, tower.resolution, tower.resolution, device=tower.device)
    inside = {id(parameter) for block in tower.blocks for parameter in block.module.parameters()}
    found = [(module, name) for module, name in matrices(tower.parts) if id(getattr(module, name)) not in inside]
    with torch.no_grad():
        x = tower.stem(image)  # (1, N, D)
        for row, block in enumerate(tower.blocks):
            x = block.run(x, None, tower.queries(row))  # (1, Q, D)
        size = tower.pool(x).shape[-1]
    found = [(module, name) for module, name in found if size in getattr(module, name).shape]
    parameters = [getattr(module, name).requires_grad_(True) for module, name in found]
    total = tower.pool(x).sum()
    slopes = torch.autograd.grad(total, parameters, allow_unused=True) if total.requires_grad else []
    for parameter in parameters:
        parameter.requires_grad_(False)
    used = [weight for weight, slope in zip(found, slopes, strict=False) if slope is not None]
    if not used:
        raise HeadwiseError(
            f"{tower.family} ends without a projection: there is nothing that this baseline could tune."
        )
    return used[-1]

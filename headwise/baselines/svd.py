"""Tuning the singular values of the blocks' weights: how strong each direction is, not where it points.

    W = U diag(s) Vᵀ,   W' = U diag(s ⊙ (1 + δ)) Vᵀ,  δ from 0, U and V frozen

After CLIP-SVD (Koleilat et al., arXiv 2509.03740), which tunes s itself, in both towers. In: a tower. Out: a copy of it with
other weights in its blocks, an ordinary model.
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

LEARNING_RATE = 1e-2


class Stretched(nn.Module):
    """U diag(s ⊙ (1 + δ)) Vᵀ."""

    directions: torch.Tensor
    parts: torch.Tensor

    def __init__(self, weight: torch.Tensor):
        super().__init__()
        u, s, v = torch.linalg.svd(weight, full_matrices=False)  # (D_out, K), (K), (K, D_in)
        self.register_buffer("directions", u * s)
        self.register_buffer("parts", v)
        self.delta = nn.Parameter(torch.zeros_like(s))

    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        """(D_out, D_in) → (D_out, D_in)."""
        return weight + (self.directions * self.delta) @ self.parts


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
        HeadwiseError: bad input, or blocks without a matrix of their own.
    """
    tuned = thawed_copy(tower)
    return fit_weights(
        "svd",
        tuned,
        _found(tuned),
        Stretched,
        pixels,
        captions,
        settings,
        learning_rate=LEARNING_RATE,
        anchors=anchors,
        progress=progress,
    )


def check(tower: Tower) -> None:
    """Whether there is anything to tune: see `fit`."""
    _found(tower)


def _found(tower: Tower) -> list[Weight]:
    found = matrices(nn.ModuleList(block.module for block in tower.blocks))
    if not found:
        raise HeadwiseError(f"The blocks of {tower.family} hold no matrix: this baseline is not for this model.")
    return found

"""Towers as plain modules, tensors in and tensors out: what torch exports.

    images (B, 3, R, R) → embeddings (B, E);   token ids, masks (T, L) → embeddings (T, E);   neither normalised

In: a tower and perhaps a mask; a model. Out: `nn.Module`s. What becomes of them is not known here.
"""

from __future__ import annotations

import torch
from torch import nn

from headwise.edits.mask import Mask
from headwise.shipping.edited import step
from headwise.towers.base import Tower


class ImageGraph(nn.Module):
    """A tower's own walk, with a mask as part of it.

    Arguments:
        tower: it is walked as it is, nothing is copied.
        mask: what does not fold; None: the tower computes what is wanted by itself.
    """

    def __init__(self, tower: Tower, mask: Mask | None = None):
        super().__init__()
        self.parts = tower.parts
        self._tower = tower
        self._steps = [step(tower, mask, row) for row in range(len(tower.blocks))]
        self.eval()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (B, 3, R, R) → embeddings (B, E)."""
        x = self._tower.stem(images)  # (B, N, D)
        for run in self._steps:
            x = run(x)  # (B, Q, D)
        return self._tower.pool(x)  # (B, E)

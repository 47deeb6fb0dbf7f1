"""A small CLIP in which one head destroys the agreement between images and captions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from conftest import small_clip

from headwise.edits.mask import Mask
from headwise.evaluation.engine import Means, embed, head_means, plan
from headwise.towers import tower_of
from headwise.towers.base import Tower

HEAD = "L1.H2"
SCALE = 30.0


@dataclass(frozen=True)
class Planted:
    tower: Tower
    images: torch.Tensor  # (N, 3, R, R)
    texts: torch.Tensor  # (2·N, E)
    owner: np.ndarray
    means: Means


def planted(operator: str, images: int = 48) -> Planted:
    """Captions are near the embeddings without `HEAD`, whose contribution to the residual stream is 30 times as large
    as that of other heads."""
    module = small_clip()
    with torch.no_grad():
        module.vision_model.encoder.layers[1].self_attn.out_proj.weight[:, 32:48] *= 30
    tower = tower_of(module)
    pixels = torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    means = head_means(tower, pixels, plan(tower))
    ((_, clean),) = embed(tower, pixels, [Mask.suppress(tower.grid, [HEAD], operator)], plan(tower), means=means)
    texts = torch.nn.functional.normalize(clean).repeat_interleave(2, 0)  # (2·N, E)
    texts = texts + 0.02 * torch.randn(texts.shape, generator=torch.Generator().manual_seed(2))
    return Planted(tower, pixels, texts, np.repeat(np.arange(images), 2), means)

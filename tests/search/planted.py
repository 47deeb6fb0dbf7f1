"""Small CLIPs in which a head, or heads that interact, destroy the agreement between images and captions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from conftest import small_clip

from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.evaluation.engine import Means, embed, head_means
from headwise.evaluation.layout import plan
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


def planted(edit: str, images: int = 48) -> Planted:
    """Captions are near the embeddings without `HEAD`, whose contribution to the residual stream is 30 times as large
    as that of other heads."""
    module = small_clip()
    with torch.no_grad():
        module.vision_model.encoder.layers[1].self_attn.out_proj.weight[:, 32:48] *= 30
    tower = tower_of(module)
    pixels = torch.randn(images, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    means = head_means(tower, pixels, plan(tower, dtype="float32"))
    ((_, clean),) = embed(
        tower, pixels, [Mask.suppress(tower.grid, [HEAD], edit)], plan(tower, dtype="float32"), means=means
    )
    texts = torch.nn.functional.normalize(clean).repeat_interleave(2, 0)  # (2·N, E)
    texts = texts + 0.02 * torch.randn(texts.shape, generator=torch.Generator().manual_seed(2))
    return Planted(tower, pixels, texts, np.repeat(np.arange(images), 2), means)


def spoiled(kind: str, seed: int, images: int = 32) -> tuple[Planted, tuple[Head, ...]]:
    """A tower of 4 × 4 heads with planted harm, and captions near the embeddings without the planted heads.

    Arguments:
        kind: `three`: heads that each write loud noise; `compensating`: two that write the same noise with opposite
            signs, not quite equal; `redundant`: two that write the same noise.

    Returns:
        The case, and the planted heads (the edit zero).
    """
    module, g = small_clip(layers=4, heads=4, seed=seed), torch.Generator().manual_seed(seed + 100)
    pick = torch.randperm(12, generator=g).tolist()  # not in the last layer, so that it is seen by all queries
    heads = [Head(i // 4, i % 4) for i in pick[:3]]
    if kind != "three":
        heads = [heads[0], Head(heads[0].layer, (heads[0].index + 1 + seed % 3) % 4)]
    layers = [layer.self_attn for layer in module.vision_model.encoder.layers]
    with torch.no_grad():
        for head in heads:
            attention, own = layers[head.layer], slice(16 * head.index, 16 * head.index + 16)
            attention.q_proj.weight[own] *= 4  # it attends to few patches, so that its noise differs between images
            attention.v_proj.bias[own] = 0
            noise = torch.randn(64, 16, generator=g)
            attention.out_proj.weight[:, own] = 20 * attention.out_proj.weight.std() * noise
        if kind != "three":
            attention = layers[heads[0].layer]
            a, b = (slice(16 * head.index, 16 * head.index + 16) for head in heads)
            for name in ("q_proj", "k_proj", "v_proj"):
                projection = getattr(attention, name)
                projection.weight[b], projection.bias[b] = projection.weight[a], projection.bias[a]
            out = attention.out_proj.weight
            rest = 0.5 * out[:, a].std() * torch.randn(64, 16, generator=g)
            out[:, b] = rest - out[:, a] if kind == "compensating" else out[:, a] + 0.2 * rest
    tower = tower_of(module)
    pixels = torch.randn(images, 3, 32, 32, generator=g)
    ((_, clean),) = embed(tower, pixels, [Mask.suppress(tower.grid, heads, "zero")], plan(tower, dtype="float32"))
    texts = torch.nn.functional.normalize(clean).repeat_interleave(2, 0)  # (2·N, E)
    texts = texts + 0.1 * torch.randn(texts.shape, generator=g)
    return Planted(tower, pixels, texts, np.repeat(np.arange(images), 2), []), tuple(heads)

"""A linear adapter: a map added to the image embedding (and, if asked for, another to the captions').

    e' = e + e Wᵀ,  e (N, E) at length 1, W (E, E) from 0

The residual form of CLIP-Adapter (Gao et al., arXiv 2110.04544) with one linear layer. In: embeddings of the frozen
tower, computed once. Out: the map as a function of embeddings; it never folds into the tower, so an index has to
apply it. Training itself is `training.train`.
"""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from headwise.baselines.training import FitSettings, Fitted, Progress, count, embeddings_of, same, train
from headwise.evaluation.engine import Pixels
from headwise.scoring.losses import Captions
from headwise.scoring.losses.contract import unit
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
    """As `headwise.baselines.fit`. The map is e + W·e on embeddings e of length 1, W from 0.

    Raises:
        HeadwiseError: bad input.
    """
    began = time.perf_counter()
    memory = captions.on("cpu")
    known = unit(embeddings_of(tower, pixels))  # (N, E)
    width = known.shape[1]
    image = nn.Parameter(torch.zeros(width, width))  # (E, E)
    text = nn.Parameter(torch.zeros(width, width)) if settings.both_sides else None  # (E, E)
    parameters = [image] if text is None else [image, text]
    trained = train(
        parameters,
        lambda numbers: _mapped(known[numbers], image),
        lambda: memory if text is None else replace(memory, texts=unit(_mapped(memory.texts, text))),
        len(pixels),
        settings,
        learning_rate=LEARNING_RATE,
        weight_decay=settings.weight_decay,
        moved=anchors and partial(anchors.moved, lambda numbers: _mapped(anchors.embeddings[numbers], image)),
        progress=progress,
    )
    image_map = image.detach()
    text_map = None if text is None else text.detach()
    return Fitted(
        "adapter",
        tower,
        lambda x: _mapped(x, image_map),
        same if text_map is None else lambda x: _mapped(x, text_map),
        float(captions.scale),
        float(captions.bias),
        count(parameters),
        time.perf_counter() - began,
        trained.history,
        trained.best,
    )


def _mapped(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Embeddings (n, E), any length, → (n, E)."""
    x = unit(x)
    return x + x @ weight.to(x.device, x.dtype).T

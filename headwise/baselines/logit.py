"""Tuning what turns a similarity into a logit: no rank can change, only how sure the model is.

    logit = exp(t) · cos(image, text) + b,  t and b scalars (b with the sigmoid loss alone)

A floor for the other baselines: any gain in recall that it shows is an error of the comparison.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace

import torch
from torch import nn

from headwise.baselines.training import FitSettings, Fitted, Progress, count, embeddings_of, same, train
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Pixels
from headwise.scoring.losses import Captions
from headwise.scoring.ranking import MOST_SCALE
from headwise.search.training import Anchors
from headwise.towers.base import Tower

LEARNING_RATE = 0.05


def fit(
    tower: Tower,
    pixels: Pixels,
    captions: Captions,
    settings: FitSettings,
    *,
    anchors: Anchors | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """As `headwise.baselines.fit`. The softmax loss does not depend on a bias, so only the scale is trained there.

    Raises:
        HeadwiseError: bad input, or anchors.
    """
    if anchors is not None:
        raise HeadwiseError("The logit scale moves no image: anchors have nothing to hold.")
    began = time.perf_counter()
    memory = captions.on("cpu")
    known = embeddings_of(tower, pixels)  # (N, E)
    log_scale = nn.Parameter(torch.tensor(math.log(captions.scale), dtype=torch.float64))  # as CLIP trains it
    shift = nn.Parameter(torch.tensor(captions.bias, dtype=torch.float64))
    parameters = [log_scale] if captions.loss == "softmax" else [log_scale, shift]
    trained = train(
        parameters,
        lambda numbers: known[numbers],
        lambda: replace(memory, scale=log_scale.exp(), bias=shift),
        len(pixels),
        settings,
        learning_rate=LEARNING_RATE,
        weight_decay=0.0,
        progress=progress,
    )
    return Fitted(
        "logit",
        tower,
        same,
        same,
        min(float(log_scale.detach().exp()), MOST_SCALE) if trained.best else float(captions.scale),
        max(-MOST_SCALE, min(float(shift.detach()), MOST_SCALE)),
        count(parameters),
        time.perf_counter() - began,
        trained.history,
        trained.best,
    )

"""What people would train instead of editing heads: LoRA, an adapter, LayerNorm, the projection, singular values, logits.

All are fitted on the search split with the loss and the early stop of AAT-BP, on a copy of the user's model.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from headwise.baselines.training import FitSettings, Fitted
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Pixels
from headwise.scoring.losses import Captions, check_images
from headwise.search.training import Anchors
from headwise.towers.base import Tower

__all__ = ["BASELINES", "FitSettings", "Fitted", "check", "fit"]

BASELINES = {
    "lora": "LoRA on the attention projections of the image tower (needs peft)",
    "adapter": "a linear map added to the image embedding",
    "layernorm": "the weights and biases of the image tower's LayerNorms",
    "projection": "the image tower's last projection, held to where it was (after ProLIP)",
    "svd": "the singular values of the weights in the image tower's blocks (after CLIP-SVD)",
    "logit": "the logit scale (and bias, for the sigmoid loss); ranks cannot change",
}


def check(name: str, tower: Tower) -> None:
    """Whether a tower has what a baseline trains, before data are read.

    Raises:
        HeadwiseError: it has not; the message says what is missing.
    """
    module = import_module(f"headwise.baselines.{name}")
    if hasattr(module, "check"):  # an adapter and the logits are on top of any tower
        module.check(tower)


def fit(
    name: str,
    tower: Tower,
    pixels: Pixels,
    captions: Captions,
    settings: FitSettings | None = None,
    *,
    anchors: Anchors | None = None,
    progress: Callable[[float], None] | None = None,
) -> Fitted:
    """Train one baseline on the search split.

    Arguments:
        name: one of `BASELINES`.
        tower: the image tower; it is copied, never changed.
        pixels: the split's images, (N, 3, R, R).
        captions: of the split, from `headwise.scoring.losses.captions`, on the tower's device.
        settings: see `FitSettings`.
        anchors: images whose embeddings should stay where they are, as for learned edits (`search/training.py`).
        progress: called after each epoch with its share of the most epochs.

    Raises:
        HeadwiseError: an unknown name, a missing library, bad input, or a model the baseline does not work on.
    """
    if name not in BASELINES:
        raise HeadwiseError(f"{name!r} is not a baseline. There are: {', '.join(BASELINES)}.")
    check_images(captions, len(pixels))
    train = import_module(f"headwise.baselines.{name}").fit
    return train(tower, pixels, captions, settings or FitSettings(), anchors=anchors, progress=progress)

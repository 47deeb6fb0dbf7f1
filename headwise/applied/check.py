"""A written folder compared with the live model under the mask: nothing is kept that was not seen to be equal.

In: a folder, the live model, what was folded. Out: the largest difference between the embeddings of both, (B, E),
absolute and relative; a refusal above the tolerance. Rounding to a stored precision is no difference.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from headwise.applied import live
from headwise.applied.fold import Change
from headwise.applied.write import Written
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.towers import load
from headwise.towers.base import Model, Tower, evaluating

if TYPE_CHECKING:
    from headwise.evaluation.engine import Pixels

PROBE_IMAGES = 8  # random images that every merge is checked on
GIVEN_IMAGES = 32  # and at most so many of the caller's


def probe_batch(tower: Tower, pixels: Pixels | None) -> torch.Tensor:
    """Images to compare on, fixed random ones and the caller's, (B, 3, R, R) float32."""
    generator = torch.Generator().manual_seed(0)
    size = tower.resolution
    batch = torch.randn(PROBE_IMAGES, 3, size, size, generator=generator)  # (B, 3, R, R)
    if pixels is not None and len(pixels):
        batch = torch.cat([batch, pixels[:GIVEN_IMAGES].to("cpu", torch.float32)])
    return batch


def masked_embeddings(model: Model, mask: Mask, batch: torch.Tensor) -> torch.Tensor:
    """What the user's live model gives under the mask, in float32, (B, E)."""
    tower = model.tower
    if tower.dtype != torch.float32:  # the reference has to be better than what is checked against it
        tower = tower.build(copy.deepcopy(tower.parts).float())
    with live.apply(tower, mask, check_weights=False):
        return embeddings(tower, batch)


def compare(
    folder: Path,
    model: Model,
    changes: Sequence[Change],
    written: Written,
    batch: torch.Tensor,
    wanted: torch.Tensor,
    tolerance: float,
) -> tuple[float, float]:
    """Load a written folder and compare it with the masked live model, in float32.

    Where folded weights were rounded to their stored precision, what is held to the tolerance is the folder with its
    folded weights unrounded, and the rounded ones have to be those that were written: rounding is no error.

    Arguments:
        folder: what `write` wrote.
        model: the live model.
        changes, written: what was folded, and as what.
        batch: images (B, 3, R, R).
        wanted: the masked model's embeddings of them, (B, E).
        tolerance: the largest difference allowed, relative to the largest value in the embeddings.

    Returns:
        The folder's largest difference, absolute and relative, rounding included.

    Raises:
        HeadwiseError: it differs by more than the tolerance.
    """
    tower = _reload(folder, model)
    largest = max(float(wanted.abs().max()), 1e-30)
    difference = exact = float((embeddings(tower, batch) - wanted).abs().max())
    if written.rounding:
        parts = dict(model.tower.parts.named_parameters(remove_duplicate=False))
        ours = {id(parameter): name for name, parameter in parts.items()}
        theirs = dict(tower.parts.named_parameters(remove_duplicate=False))
        with torch.no_grad():
            for change in changes:
                place = theirs[ours[id(change.parameter)]]
                if not torch.equal(place.cpu(), written.values[change.name].to(place.dtype)):
                    raise HeadwiseError(
                        f"The merged model's {change.name} is not what was written, so it was not kept."
                    )
                change.put_into(place)
        exact = float((embeddings(tower, batch) - wanted).abs().max())
    if not exact / largest <= tolerance:  # also for NaN
        raise HeadwiseError(
            f"The merged model differs from the masked live model by {exact:.3g} ({exact / largest:.3g} of the largest "
            f"value in the embeddings, allowed {tolerance:.3g}), so it was not kept."
        )
    return difference, difference / largest


def _reload(folder: Path, model: Model) -> Tower:
    """What the model's own library makes of the saved folder, in float32."""
    device, log = str(model.tower.device), logging.getLogger("headwise")
    level = log.level
    log.setLevel(logging.ERROR)  # what there is to say of the model was said when it was loaded
    try:
        timm = model.tower.family.startswith("timm")
        tower = load(f"timm:local-dir:{folder}" if timm else str(folder), device=device).tower
    finally:
        log.setLevel(level)
    return tower if tower.dtype == torch.float32 else tower.build(tower.parts.float())


@torch.no_grad()
def embeddings(tower: Tower, batch: torch.Tensor) -> torch.Tensor:
    """The library's own forward, (B, E) float32 on the CPU."""
    with evaluating(tower.parts):
        return torch.cat([tower.encode(part.to(tower.device, tower.dtype)).float().cpu() for part in batch.split(8)])

"""Fold a mask into a model's own weights: an ordinary model folder with no extra inference cost.

Which masks fold exactly follows from the operators: `zero` and `mean` scale the head's columns of the
out-projection by g (`mean` adds the rest, a constant, to the bias); `uniform` at g = 0 needs queries that
are zero, so that every attention score is equal. What does not fold is refused, never approximated.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from headwise.applied import live
from headwise.edits.artefact import CARD_FILE, MASK_FILE, dumps, plain_card
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.files import new_folder
from headwise.towers import load
from headwise.towers.base import Model, Tower, evaluating
from headwise.towers.blocks import Block, HeadWeights
from headwise.towers.fits import check_fits, check_functions, mean_tensor

if TYPE_CHECKING:
    from headwise.evaluation.engine import Means, Pixels

PROBE_IMAGES = 8  # random images that every merge is checked on
GIVEN_IMAGES = 32  # and at most so many of the caller's


@dataclass(frozen=True)
class MergeReport:
    """What a merge wrote and how close it is.

    Arguments:
        folder: the merged model.
        largest_difference: between an embedding of the merged model and one of the masked live model, absolute.
        relative_difference: the same, divided by the largest absolute value in the embeddings.
        dtype: the precision of the saved weights.
        images: how many images were compared.
    """

    folder: Path
    largest_difference: float
    relative_difference: float
    dtype: str
    images: int


@contextmanager
def folded(tower: Tower, mask: Mask, means: Means | None = None, *, check_weights: bool = True) -> Iterator[None]:
    """Inside the context the tower's own parameters contain the mask; after it they are restored bit for bit.

    Arguments:
        tower: changed in place, whatever its device; the arithmetic is float32.
        mask: for the tower's grid.
        means: operator `mean` without constants of its own: every head's mean output, per row (H, d).
        check_weights: compare the tower's weights with those that the mask was found on.

    Raises:
        HeadwiseError: another grid or other weights; a mask that does not fold exactly into this tower.
    """
    if means is not None:
        from headwise.evaluation.engine import with_means

        mask = with_means(mask, means)
    check_fits(tower, mask, check_weights=check_weights)
    check_folds(tower, mask)
    _ = tower.weights_hash  # it is computed once and kept: it has to be that of the unchanged weights
    edits = [edit for row in range(len(tower.blocks)) for edit in _edits(tower, mask, row)]
    saved = [parameter.detach().clone() for parameter, _ in edits]
    try:
        with torch.no_grad():
            for parameter, value in edits:
                parameter.copy_(value)
        yield
    finally:
        with torch.no_grad():
            for (parameter, _), old in zip(edits, saved, strict=True):
                parameter.copy_(old)


def check_folds(tower: Tower, mask: Mask) -> None:
    """
    Raises:
        HeadwiseError: the mask does not fold exactly into this tower's weights; the message says which would.
    """
    usable = ", ".join(tower.foldable) or "none"
    for row, (block, gates) in enumerate(zip(tower.blocks, mask.gates, strict=True)):
        touched = [index for index, gate in enumerate(gates) if gate < 1.0]
        if not touched:
            continue
        head = mask.grid.head(row, touched[0])
        if mask.operator not in block.folds:
            raise HeadwiseError(
                f"A mask with operator '{mask.operator}' does not fold into the weights of {tower.family} ({head}). "
                f"Operators that fold into this model: {usable}. Search with one of them (--operator), or apply "
                "this mask in place with headwise.apply."
            )
        soft = [index for index in touched if gates[index] > 0.0]
        if mask.operator == "uniform" and soft:
            raise HeadwiseError(
                f"Operator 'uniform' folds for gates of 0 only; {mask.grid.head(row, soft[0])} has the gate "
                f"{gates[soft[0]]:.3g}. Operators that fold into this model: {usable} (zero and mean with any gate). "
                "Round the gates, or apply this mask in place with headwise.apply."
            )
        weights = block.weights()
        if mask.operator == "mean" and weights.out_bias is None:
            raise HeadwiseError(
                f"Operator 'mean' folds into the bias of the out-projection, and the block of {head} has no bias. "
                "Use operator zero, or apply this mask in place with headwise.apply."
            )
        if mask.operator == "uniform" and weights.query is None:
            raise HeadwiseError(
                f"Operator 'uniform' folds into the query projection, and the block of {head} has none of its own. "
                "Use operator zero or mean, or apply this mask in place with headwise.apply."
            )


def _edits(tower: Tower, mask: Mask, row: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The parameters of one row that the mask changes, as views, each with its new value in float32."""
    gates = torch.tensor(mask.gates[row])  # (H)
    if bool((gates == 1).all()):
        return []
    block, weights = tower.blocks[row], tower.blocks[row].weights()
    gates = gates.to(weights.out.device)
    if mask.operator == "uniform":
        return _uniform_edits(block, weights, gates)
    columns = gates.repeat_interleave(block.head_dim)  # (H·d): one gate per input of the out-projection
    out = weights.out.detach().float()  # (D, H·d)
    edits = [(weights.out, out * columns)]
    if mask.operator == "mean":
        constants = mean_tensor(mask, row, block.head_dim, out.device)  # (H, d), 0 for heads that are kept
        if constants is None or weights.out_bias is None:  # check_folds and mean_tensor have raised before
            raise HeadwiseError(f"Row {row} of the mask has no means to fold.")
        emitted = ((1 - gates)[:, None] * constants).flatten()  # (H·d)
        edits.append((weights.out_bias, weights.out_bias.detach().float() + out @ emitted))  # (D)
    return edits


def _uniform_edits(block: Block, weights: HeadWeights, gates: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    keep = (gates > 0).repeat_interleave(block.head_dim)  # (H·d): rows of the query projection
    edits = []
    for parameter in (weights.query, weights.query_bias):
        if parameter is not None:
            rows = keep.view(-1, *[1] * (parameter.dim() - 1))  # (H·d, 1) or (H·d)
            value = parameter.detach().float()
            edits.append((parameter, torch.where(rows, value, torch.zeros_like(value))))
    return edits


def merge(
    model: Model,
    mask: Mask,
    folder: str | Path,
    *,
    means: Means | None = None,
    pixels: Pixels | None = None,
    card: str | None = None,
    tolerance: float = 1e-4,
    overwrite: bool = False,
    check_weights: bool = True,
) -> MergeReport:
    """Write the refined model as a folder that its library loads without headwise, and check it.

    The folder is loaded again from the disk and its embeddings are compared with those of the live model under
    the mask, in float32. It appears under its name only when that comparison has passed.

    Arguments:
        model: unchanged when this returns.
        mask: for the model's grid, of an operator that folds.
        folder: must not exist, or be empty, or be a former merge and `overwrite` be set.
        means: as for `folded`.
        pixels: preprocessed images to compare on, beside fixed random ones; the first 32 are used.
        card: the text of the model card; None writes a short one.
        tolerance: the largest difference allowed, relative to the largest value in the embeddings.
        overwrite: replace a former merge.
        check_weights: compare the model's weights with those that the mask was found on.

    Raises:
        HeadwiseError: the mask does not fit or does not fold, the folder is taken or cannot be written, or the
            merged model differs from the masked one. Then nothing is left behind.
    """
    folder = Path(folder).absolute()
    _check_place(folder, overwrite)
    if means is not None:
        from headwise.evaluation.engine import with_means

        mask = with_means(mask, means)
    check_fits(model.tower, mask, check_weights=check_weights)
    check_functions(model, mask, check_weights=check_weights)
    check_folds(model.tower, mask)
    batch = _probe_batch(model.tower, pixels)
    wanted = _masked_embeddings(model, mask, batch)
    with new_folder(folder) as partial:
        with folded(model.tower, mask, check_weights=check_weights):
            model.save(partial)
        (partial / CARD_FILE).write_text(plain_card(mask, merged=True) if card is None else card, encoding="utf-8")
        (partial / MASK_FILE).write_text(dumps(mask), encoding="utf-8")
        mode = (partial / MASK_FILE).stat().st_mode  # safetensors lets nobody but the owner read its files
        for path in filter(Path.is_file, partial.rglob("*")):
            path.chmod(mode)
        merged = _reload(partial, model)
        difference = float((_embed(merged.tower, batch) - wanted).abs().max())
        relative = difference / max(float(wanted.abs().max()), 1e-30)
        if not relative <= tolerance:  # also for NaN
            raise HeadwiseError(_too_far(model, relative, difference, tolerance))
        _check_replaces(partial, folder)
    return MergeReport(folder, difference, relative, _name(model.tower.dtype), len(batch))


def _reload(folder: Path, model: Model) -> Model:
    """What the model's own library makes of the saved folder."""
    device, log = str(model.tower.device), logging.getLogger("headwise")
    level = log.level
    log.setLevel(logging.ERROR)  # what there is to say of the model was said when it was loaded
    try:
        timm = model.tower.family.startswith("timm")
        return load(f"timm:local-dir:{folder}" if timm else str(folder), device=device)
    finally:
        log.setLevel(level)


def _probe_batch(tower: Tower, pixels: Pixels | None) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    size = tower.resolution
    batch = torch.randn(PROBE_IMAGES, 3, size, size, generator=generator)  # (B, 3, R, R)
    if pixels is not None and len(pixels):
        batch = torch.cat([batch, pixels[:GIVEN_IMAGES].to("cpu", torch.float32)])
    return batch


def _masked_embeddings(model: Model, mask: Mask, batch: torch.Tensor) -> torch.Tensor:
    """What the user's live model gives under the mask, in float32, (B, E)."""
    tower = model.tower
    if tower.dtype != torch.float32:  # the reference has to be better than what is checked against it
        tower = tower.build(copy.deepcopy(tower.parts).float())
    with live.apply(tower, mask, check_weights=False):
        return _embed(tower, batch)


@torch.no_grad()
def _embed(tower: Tower, batch: torch.Tensor) -> torch.Tensor:
    """The library's own forward, (B, E) float32 on the CPU."""
    with evaluating(tower.parts):
        return torch.cat([tower.encode(part.to(tower.device, tower.dtype)).float().cpu() for part in batch.split(8)])


def _check_place(folder: Path, overwrite: bool) -> None:
    if not folder.exists() and not folder.is_symlink():
        return
    if not folder.is_dir():
        raise HeadwiseError(f"{folder} is a file. Give a folder for the merged model.")
    if not any(folder.iterdir()):
        return
    if not (folder / MASK_FILE).is_file():
        raise HeadwiseError(f"{folder} holds other files, not a former merge. Give a new folder for the merged model.")
    if not overwrite:
        raise HeadwiseError(f"{folder} already holds a merged model. Give a new folder, or allow it to be replaced.")


def _check_replaces(partial: Path, folder: Path) -> None:
    """
    Raises:
        HeadwiseError: a file that replacing the folder would delete without writing it anew.
    """
    there = {path.name for path in folder.iterdir()} if folder.exists() else set()
    extra = sorted(there - {path.name for path in partial.iterdir()})
    if extra:
        raise HeadwiseError(
            f"{folder} also holds {', '.join(extra)}, which a merge does not write and replacing it would delete. "
            "Give a new folder for the merged model."
        )


def _too_far(model: Model, relative: float, difference: float, tolerance: float) -> str:
    text = (
        f"The merged model differs from the masked live model by {difference:.3g} ({relative:.3g} of the largest "
        f"value in the embeddings, allowed {tolerance:.3g}), so it was not kept."
    )
    if model.tower.dtype != torch.float32:
        text += f" The model is held in {_name(model.tower.dtype)}: load it in float32 and merge again."
    return text


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")

"""Masks as users give them: objects, folders, hub ids, texts; and what a text cannot hold.

In: what was given, a model. Out: a `Mask`, checked to have all that its edits need.
"""

from __future__ import annotations

import os
from pathlib import Path

from headwise.edits.artefact import MASK_FILE
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.towers import Model


def read_mask(mask: Mask | str | Path | None, model: Model) -> Mask:
    """A mask from an object, a folder, a hub id, or text such as `L10.H3=zero, L11.H0=scale(1.4)`."""
    if mask is None:
        return Mask.identity(model.tower.grid)
    if isinstance(mask, Mask):
        return mask
    if isinstance(mask, str) and (mask == "identity" or ("=" in mask and not os.path.exists(mask))):
        return Mask.parse(model.tower.grid, mask)
    return Mask.from_pretrained(mask)


def check_bound(mask: Mask, otherwise: str = "") -> None:
    """
    Arguments:
        otherwise: what else than a folder may be given for mean outputs.

    Raises:
        HeadwiseError: edits whose arrays are to come from data that are not given.
    """
    lacking = ((head, letter.name) for head, edit in mask.edits.items() for letter in edit.letters if not letter.bound)
    for head, name in lacking:
        what = "its mean output" if name == "mean" else "arrays that are learned"
        raise HeadwiseError(
            f"The edit {name!r} of {head} needs {what}, which a text does not hold: give the folder that refine wrote"
            f"{otherwise if name == 'mean' else ''}."
        )


def mask_inside(model: Model) -> Mask | None:
    """The mask that a model's folder says is in its weights or graph (`merge`, `export`); None for any other."""
    folder = Path(model.source.partition(":")[2].removeprefix("local-dir:")) if model.source else None
    if folder is None or not (folder / MASK_FILE).is_file():
        return None
    mask = Mask.from_pretrained(folder)
    return None if mask.is_identity else mask

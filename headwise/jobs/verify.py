"""verify: a shipped folder is its base model with its edits.

In: a folder, edits, perhaps the base model. Out: `Findings` of every check; a refusal where one fails.
"""

from __future__ import annotations

import os
from pathlib import Path

from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.jobs.steps.masks import read_mask
from headwise.jobs.steps.opening import Machine, ModelLike, load_model
from headwise.shipping.verify import Check
from headwise.shipping.verify import verify as compare
from headwise.towers.fits import check_fits
from headwise.wording import option


def verify(
    folder: str | Path,
    *,
    edits: Mask | str | Path,
    base: ModelLike | None = None,
    machine: Machine | None = None,
    check_weights: bool = True,
) -> list[Check]:
    """Whether a shipped folder is what its edits say: files, structure, weights, embeddings.

    Arguments:
        folder: the shipped model.
        edits: a mask, a folder that holds one, or text such as `L10.H3=zero`.
        base: the model that was edited; None: the one that the edits name.
        others: as for `refine`.

    Returns:
        Every check; look at `passed`.

    Raises:
        HeadwiseError: nothing to compare with, edits for another base model, or a folder that is no model.
    """
    path = Path(folder)
    if not os.path.isdir(path):
        raise HeadwiseError(f"{path} is not a folder. Give the folder of a shipped model.")
    if base is None:
        given = edits if isinstance(edits, Mask) else Mask.from_pretrained(edits) if _is_place(edits) else None
        named = None if given is None else given.provenance.get("base_model")
        if not isinstance(named, str):
            raise HeadwiseError(
                f"The edits do not name the model that they were made for; give it with {option('base', 'MODEL')}."
            )
        base = named
    ready = load_model(base, machine or Machine())
    mask = read_mask(edits, ready)
    check_fits(ready.tower, mask, check_weights=check_weights)
    return compare(path, ready, mask)


def _is_place(edits: str | Path) -> bool:
    return isinstance(edits, Path) or "=" not in edits or os.path.exists(edits)

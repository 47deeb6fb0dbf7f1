"""Whether a mask fits a tower, and its constants as a tensor."""

from __future__ import annotations

import torch

from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.towers.base import Tower


def check_fits(tower: Tower, mask: Mask, *, check_weights: bool = True) -> None:
    """
    Raises:
        HeadwiseError: the mask is for another grid or other weights, or its operator needs a class token.
    """
    if mask.grid != tower.grid:
        raise HeadwiseError(
            f"The mask is for {mask.grid}, this model has {tower.grid}. A mask fits only the model it was found on."
        )
    wanted = mask.provenance.get("weights_hash")
    if check_weights and wanted and wanted != tower.weights_hash:
        raise HeadwiseError(
            f"The mask was found on {mask.provenance.get('base_model', 'another model')} (weights {wanted}); this "
            f"model's weights are {tower.weights_hash}. A mask fits only the weights it was found on. If it is the "
            "same model in another precision, pass check_weights=False (--no-check-weights)."
        )
    if not mask.is_identity:
        tower.check_mask(mask)


def mean_tensor(mask: Mask, row: int, head_dim: int, device: torch.device | str = "cpu") -> torch.Tensor | None:
    """A row's constant outputs, (H, d) float32 with zeros for heads that are kept; None for other operators.

    Raises:
        HeadwiseError: operator `mean` without the constants of a head that it suppresses.
    """
    if mask.operator != "mean":
        return None
    table = torch.zeros(mask.grid.rows[row], head_dim)  # (H, d)
    known = dict(mask.means)
    for index, gate in enumerate(mask.gates[row]):
        if gate < 1.0:
            head = mask.grid.head(row, index)
            if head not in known or len(known[head]) != head_dim:
                raise HeadwiseError(
                    f"The mask's operator is 'mean' but it has no mean output of {head} ({head_dim} values). "
                    "Attach them with headwise.evaluation.engine.with_means(mask, means)."
                )
            table[index] = torch.tensor(known[head])
    return table.to(device)

"""What a mask means to an export: whether it folds, which heads it removes, and one row of the walk under it.

In: a tower and a mask. Out: a copy with folded weights, heads, a function of one row. This is the one file of the room
that knows the vocabulary of masks.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from headwise.applied.fold import changes, check_folds
from headwise.edits.mask import Mask
from headwise.edits.operators import suppress
from headwise.errors import HeadwiseError
from headwise.towers.base import Tower, rows
from headwise.towers.fits import mean_tensor

REMOVING = ("zero", "mean")  # what such a head emits at a gate of 0 is a constant, which folds into a bias


def folds(tower: Tower, mask: Mask) -> bool:
    """Whether a mask folds exactly into a tower's weights."""
    try:
        check_folds(tower, mask)
    except HeadwiseError:
        return False
    return True


def removed(mask: Mask) -> list[tuple[int, ...]]:
    """The heads that a mask removes, per row: their outputs are constants."""
    if mask.operator not in REMOVING:
        return [() for _ in mask.gates]
    return [tuple(index for index, gate in enumerate(gates) if gate == 0.0) for gates in mask.gates]


def plain_copy(tower: Tower) -> Tower:
    """A copy of a tower in float32 on the CPU."""
    return tower.build(copy.deepcopy(tower.parts).to(device="cpu", dtype=torch.float32).eval())


@torch.no_grad()
def folded_copy(tower: Tower, mask: Mask) -> Tower:
    """A copy of a tower in float32 on the CPU, with a mask folded into its weights.

    Raises:
        HeadwiseError: the mask does not fold.
    """
    check_folds(tower, mask)
    folded = plain_copy(tower)
    for change in changes(folded, mask):
        change.view.copy_(change.value)
    return folded


def step(tower: Tower, mask: Mask | None, row: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """One row of a tower's walk under a mask, as ordinary operations: x (B, N, D) → (B, Q, D).

    Arguments:
        mask: None: nothing is edited.
    """
    block, queries = tower.blocks[row], tower.queries(row)
    edited = mask is not None and any(gate < 1.0 for gate in mask.gates[row])
    gates = torch.tensor(mask.gates[row]) if mask is not None and edited else None  # (H)
    mean = mean_tensor(mask, row, block.head_dim) if mask is not None and edited else None  # (H, d)

    def run(x: torch.Tensor) -> torch.Tensor:
        z, v = block.attend(x, queries)  # (B, H, Q, d), (B, H, N, d)
        if mask is not None and gates is not None:
            z = suppress(mask.operator, z, v, gates, queries=queries, mean=mean)
        return block.finish(rows(x, queries), z)

    return run

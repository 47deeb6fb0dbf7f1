"""What edits mean to an export: which heads they remove, and one row of the walk under them.

In: a tower and edits. Out: a copy with folded weights, heads, a function of one row. This is the one file of the room
that knows the vocabulary of edits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from headwise.applied.fold import changes, check_folds, folds
from headwise.edits.mask import Mask
from headwise.edits.operators import row_of
from headwise.towers.base import Tower

__all__ = ["folded_copy", "folds", "plain_copy", "removed", "step"]


def removed(mask: Mask) -> list[tuple[int, ...]]:
    """The heads that edits remove, per row: their outputs are constants, which fold into a bias."""
    return [tuple(index for index, edit in enumerate(row) if edit.removes) for row in mask.table]


def plain_copy(tower: Tower) -> Tower:
    """A copy of a tower in float32 on the CPU."""
    return tower.build(copy.deepcopy(tower.parts).to(device="cpu", dtype=torch.float32).eval())


@torch.no_grad()
def folded_copy(tower: Tower, mask: Mask) -> Tower:
    """A copy of a tower in float32 on the CPU, with edits folded into its weights.

    Raises:
        HeadwiseError: the edits do not fold.
    """
    check_folds(tower, mask)
    folded = plain_copy(tower)
    for change in changes(folded, mask):
        change.view.copy_(change.value)
    return folded


def step(tower: Tower, mask: Mask | None, row: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """One row of a tower's walk under edits, as ordinary operations: x (B, N, D) → (B, Q, D).

    Arguments:
        mask: None: nothing is edited.
    """
    block, queries = tower.blocks[row], tower.queries(row)
    edits = None if mask is None else row_of(mask.table[row], block.head_dim)
    return lambda x: block.run(x, edits, queries)

"""Masks that remove heads of every row, and all heads of the first one."""

from headwise.edits.mask import Mask
from headwise.towers.base import Tower


def removing(tower: Tower) -> Mask:
    return Mask.suppress(tower.grid, [head for head in tower.grid if head.layer == 0 or head.index % 3 == 0])

"""What each head does to every image's embedding, and the sum of it as a free estimate of any mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch

from headwise.engine import Means, Pixels, Plan, embed, ffe
from headwise.errors import HeadwiseError
from headwise.mask import Grid, Mask
from headwise.towers.base import Tower

if TYPE_CHECKING:
    pass


class Deltas(Protocol):
    """Estimated embeddings of masks."""

    def embeddings(self, mask: Mask, /) -> torch.Tensor:
        """(N, E) float32, not normalised."""
        ...


@dataclass(frozen=True, eq=False)
class HeadDeltas:
    """Changes of the embeddings by every single head; the changes of a mask's heads are added up.

    Arguments:
        grid: the heads.
        operator: what a suppressed head emits.
        identity: embeddings of the unchanged model, (N, E) float32.
        changes: what suppressing each head alone adds to them, (heads, N, E) float16, in the order of the grid.
        ffe: what collecting them cost; 0 when they were a by-product of the sweep.
    """

    grid: Grid
    operator: str
    identity: torch.Tensor
    changes: torch.Tensor
    ffe: float = 0.0

    def embeddings(self, mask: Mask) -> torch.Tensor:
        """Identity's embeddings plus (1 − gate) times the change of every head, (N, E) float32.

        Raises:
            HeadwiseError: a mask of another grid or operator.
        """
        if mask.grid != self.grid or (mask.heads and mask.operator != self.operator):
            raise HeadwiseError(
                f"The changes were collected with operator {self.operator} on {self.grid}; "
                f"the mask is {mask.operator} on {mask.grid}."
            )
        total = self.identity.clone()  # (N, E)
        for number, gate in enumerate(gate for row in mask.gates for gate in row):
            if gate < 1.0:
                total.add_(self.changes[number].float(), alpha=1.0 - gate)
        return total

    def save(self, path: Path | str) -> None:
        """Write them to a safetensors file, whole or not at all."""
        from safetensors.torch import save_file

        path = Path(path)
        part = path.with_name(path.name + ".part")
        facts = {"layers": " ".join(map(str, self.grid.layers)), "pool": str(self.grid.pool), "operator": self.operator}
        try:
            save_file({"identity": self.identity, "changes": self.changes}, part, facts | {"ffe": repr(self.ffe)})
            part.replace(path)
        except Exception as error:  # safetensors raises its own kinds, also for a full disk
            part.unlink(missing_ok=True)
            raise HeadwiseError(f"Cannot write {path}: {error}. Free some disk space and run again.") from error

    @classmethod
    def load(cls, path: Path | str) -> HeadDeltas:
        """Read what `save` wrote.

        Raises:
            HeadwiseError: the file is missing or damaged.
        """
        from safetensors import safe_open

        try:
            with safe_open(path, "pt") as file:
                facts = file.metadata()
                grid = Grid(tuple(map(int, facts["layers"].split())), int(facts["pool"]))
                tensors = file.get_tensor("identity"), file.get_tensor("changes")
                return cls(grid, facts["operator"], *tensors, float(facts["ffe"]))
        except Exception as error:  # a damaged file gives many kinds
            raise HeadwiseError(
                f"Cannot read the heads' changes from {path}: {error}. Delete it; it is made again."
            ) from error


def collect(
    tower: Tower,
    pixels: Pixels,
    operator: str,
    layout: Plan,
    *,
    means: Means | None = None,
    observe: Callable[[Mask, torch.Tensor], object] | None = None,
    progress: Callable[[float], None] | None = None,
) -> HeadDeltas:
    """Run identity and every single head, as the sweep does, and keep how the embeddings change.

    Memory: heads × images × E × 2 bytes.

    Arguments:
        tower, pixels, layout, means, progress: as `engine.embed`.
        operator: what a suppressed head emits.
        observe: gets every mask with its exact embeddings (N, E), so that the sweep need not run them again.

    Raises:
        HeadwiseError: an operator that the tower does not have.
    """
    grid = tower.grid
    singles = [Mask.suppress(grid, [head], operator) for head in grid]
    masks: Sequence[Mask] = [Mask.identity(grid, operator), *singles]
    number = {mask.key: i for i, mask in enumerate(singles)}
    ((_, identity),) = embed(tower, pixels, masks[:1], layout, means=means, progress=progress)
    changes = torch.empty(len(singles), *identity.shape, dtype=torch.float16)
    if observe:
        observe(masks[0], identity)
    for mask, embeddings in embed(tower, pixels, singles, layout, means=means, progress=progress):
        changes[number[mask.key]] = (embeddings - identity).half()  # (N, E)
        if observe:
            observe(mask, embeddings)
    return HeadDeltas(grid, singles[0].operator, identity, changes, ffe(tower, masks[:1]) + ffe(tower, singles))

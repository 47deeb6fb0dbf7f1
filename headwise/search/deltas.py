"""What each head does to every image's embedding, and the sum of it as a free estimate of any mask.

    Δ_h = e({h}) − e(∅)       ê(S) = e(∅) + Σ_{h ∈ S} Δ_h       e, Δ: (N, E)

Exact for single heads; of several it leaves out how they interact (`anchors.py` puts some of that back).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch

from headwise.checked import Damaged, load_tensors, metadata
from headwise.edits.edit import Edit, canonical
from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Means, Pixels, embed
from headwise.evaluation.layout import Plan
from headwise.files import write_files
from headwise.search.alphabet import Choice
from headwise.towers.base import Tower


class Changes:
    """Embeddings of the unchanged model, (N, E) float32, and what single heads with their edits add to them.

    `rows`: head and edit → its change, (N, E) float16.
    """

    grid: Grid
    identity: torch.Tensor
    rows: Mapping[Choice, torch.Tensor]

    def moved(self, embeddings: torch.Tensor, weights: Mapping[Choice, float]) -> torch.Tensor:
        """Embeddings (N, E) float32 plus the weighted changes of heads, in place.

        Raises:
            HeadwiseError: heads whose changes are not known.
        """
        for choice, weight in sorted(weights.items(), key=lambda item: (item[0][0], item[0][1].order)):
            if choice not in self.rows:
                head, edit = choice
                raise HeadwiseError(
                    f"The change by {head}={edit} was not collected. Collect it, or leave the head out."
                )
            embeddings.add_(self.rows[choice].float(), alpha=weight)
        return embeddings


class Joined(Changes):
    """The changes by several edits together.

    Arguments:
        parts: those of each, of one model and one split.
    """

    def __init__(self, parts: Sequence[Changes]):
        self.grid, self.identity = parts[0].grid, parts[0].identity
        self.rows = {choice: row for part in parts for choice, row in part.rows.items()}


@dataclass(frozen=True, eq=False)
class HeadDeltas(Changes):
    """Changes of the embeddings by every single head with one edit; the changes of a mask's heads are added up.

    Arguments:
        grid: the heads.
        operator: what a suppressed head emits.
        identity: embeddings of the unchanged model, (N, E) float32.
        changes: what suppressing each head alone adds to them, (heads, N, E) float16.
        heads: whose changes they are, in this order.
    """

    grid: Grid
    operator: str
    identity: torch.Tensor
    changes: torch.Tensor
    heads: tuple[Head, ...]

    def embeddings(self, mask: Mask) -> torch.Tensor:
        """Identity's embeddings plus the change of every head that has the edit, (N, E) float32.

        Raises:
            HeadwiseError: edits of another grid, other edits, or heads whose changes are not known.
        """
        if mask != Mask.suppress(self.grid, mask.heads, self.operator):
            raise HeadwiseError(
                f"The changes were collected for the edit {self.operator} on {self.grid}; these are {mask.kinds} on "
                f"{mask.grid}."
            )
        return self.moved(self.identity.clone(), dict.fromkeys(mask.edits.items(), 1.0))

    @cached_property
    def rows(self) -> dict[Choice, torch.Tensor]:  # type: ignore[override]
        """Head and edit → its change, (N, E) float16."""
        edit = Edit.parse(self.operator)
        return {(head, edit): change for head, change in zip(self.heads, self.changes, strict=True)}

    def save(self, path: Path | str, key: str = "") -> None:
        """Write them to a safetensors file with a checksum, whole or not at all.

        Arguments:
            key: what they depend on besides operator and heads; `load` refuses another one.
        """
        from safetensors.torch import save_file

        path = Path(path)
        grid = {"layers": list(self.grid.layers), "pool": self.grid.pool}
        facts = {"grid": grid, "operator": self.operator, "heads": list(map(str, self.heads)), "key": key}
        tensors = {"identity": self.identity.contiguous(), "changes": self.changes.contiguous()}
        about = metadata(tensors, facts)
        write_files(path.parent, {path.name: lambda place: save_file(tensors, place, about)})

    @classmethod
    def load(cls, path: Path | str, key: str | None = "") -> HeadDeltas:
        """Read what `save` wrote.

        Arguments:
            key: as it was saved; None takes any.

        Raises:
            HeadwiseError: the file is missing, damaged, or of another key.
        """
        try:
            tensors, facts = load_tensors(path)
        except (OSError, Damaged) as error:
            raise HeadwiseError(
                f"Cannot read the heads' changes from {path}: {error}. Delete it; it is made again."
            ) from error
        if key is not None and facts["key"] != key:
            raise HeadwiseError(f"The heads' changes in {path} are of another study. Delete it; it is made again.")
        grid = Grid(tuple(facts["grid"]["layers"]), facts["grid"]["pool"])
        heads = tuple(map(Head.parse, facts["heads"]))
        return cls(grid, facts["operator"], tensors["identity"], tensors["changes"], heads)


class Collector:
    """Keeps the changes while the sweep's masks run: an `Evaluator`'s `observe`.

    Memory: heads × images × E × 2 bytes.

    Arguments:
        grid: the heads of the model.
        operator: what a suppressed head emits.
        heads: whose changes to keep; empty: all.
        identity: embeddings of the unchanged model, (N, E), if they are known: identity need not run then.
    """

    def __init__(self, grid: Grid, operator: str, heads: Sequence[Head] = (), identity: torch.Tensor | None = None):
        self.grid, self.heads = grid, tuple(heads or grid)
        singles = [Mask.suppress(grid, [head], operator) for head in self.heads]
        self.operator = canonical(operator)
        self._identity = identity
        self.masks = singles if identity is not None else [Mask.identity(grid), *singles]
        self._place = {mask.key: i for i, mask in enumerate(singles)}
        self._missing = set(self._place)
        self._changes = torch.empty(0)

    def __call__(self, mask: Mask, embeddings: torch.Tensor) -> None:
        """Take a mask's embeddings (N, E); a walk runs identity before all others."""
        if mask.is_identity and self._identity is None:
            self._identity = embeddings.clone()  # (N, E)
        elif mask.key in self._place and self._identity is not None:
            if not len(self._changes):
                self._changes = torch.empty(len(self._place), *embeddings.shape, dtype=torch.float16)
            self._changes[self._place[mask.key]] = (embeddings - self._identity).half()  # (N, E)
            self._missing.discard(mask.key)

    @property
    def deltas(self) -> HeadDeltas | None:
        """The changes; None while a head is missing, for instance because the study knew its score."""
        if self._identity is None or self._missing:
            return None
        return HeadDeltas(self.grid, self.operator, self._identity, self._changes, self.heads)


def collect(
    keep: Collector,
    tower: Tower,
    pixels: Pixels,
    layout: Plan,
    *,
    means: Means | None = None,
    progress: Callable[[float], None] | None = None,
) -> HeadDeltas:
    """Run every head alone in the walks of a sweep, so that the changes have the bits that the sweep's own have.

    Arguments:
        keep: what to collect; what it already has is replaced.
        tower, pixels, layout, means, progress: as `engine.embed`.

    Raises:
        HeadwiseError: an edit that the tower cannot have.
    """
    for mask, embeddings in embed(tower, pixels, keep.masks, layout, means=means, progress=progress):
        keep(mask, embeddings)
    assert keep.deltas is not None  # every mask ran
    return keep.deltas

"""Signed first-order scores of every head and every edit, from one gradient pass: a table of heads × edits.

    s_he = −⟨∂L/∂z_h, z_he − z_h⟩        z_h, z_he: head h's outputs without and with edit e, (N, Q, d)

L: the loss of the whole split. Exact in the head's own output and first order in all that follows: for `scale(g)` it is
−∂L/∂g · (g − 1), and for `temperature(τ)` near 1 −∂L/∂τ · (τ − 1). After Michel et al. 2019 (arXiv 1905.10650), who take
the mean absolute ⟨∂L/∂z, z⟩ over batches as a head's importance; here the sign is kept, since harmful heads are looked
for, the gradient is that of the whole split, and z is compared with what any edit makes of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from headwise.edits.edit import Edit, canonical
from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.edits.operators import NOTHING, Row, row_of
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Pixels, ffe
from headwise.scoring.losses import Loss, check_images
from headwise.search.contract import Found
from headwise.search.gated import frozen, gather, trained_cost
from headwise.search.ranks import spearman
from headwise.towers.base import Tower, rows
from headwise.towers.blocks import Block

if TYPE_CHECKING:
    from headwise.scoring.objectives import Score

# of a table for which nobody chose: every letter whose values need not be learned, two numbers above 1
EDITS = ("zero", "mean", "scale(1.5)", "uniform", "temperature(1.5)", "keys", "queries", "cls", "self", "cls_row")


@dataclass(frozen=True)
class FirstOrder:
    """First-order scores of heads × edits.

    Arguments:
        grid: the heads of the model.
        scores: edit → head → fall of the loss, to first order, when this head alone has the edit; above 0: it helps.
            Heads that cannot have an edit are left out.
        loss: of the model as it is, on the split.
        spent: FFE of all of it.
    """

    grid: Grid
    scores: Mapping[str, Mapping[Head, float]]
    loss: float
    spent: float

    def ranking(self, edit: str) -> tuple[Head, ...]:
        """Heads, those first that the edit promises most for; of equal ones the first of the grid. In place of
        `Sweep.ranking`."""
        scores = self.scores[edit]
        return tuple(sorted(scores, key=lambda head: (-scores[head], head)))

    @cached_property
    def ranked(self) -> tuple[tuple[Head, str], ...]:
        """All pairs of a head and an edit, the most promising first."""
        pairs = [(-score, head, edit) for edit, scores in self.scores.items() for head, score in scores.items()]
        return tuple((head, edit) for _, head, edit in sorted(pairs))


def edits_of(tower: Tower, first: Iterable[str] = ()) -> tuple[str, ...]:
    """Edits for a table: these, then those of `EDITS` that the tower can have."""
    able = [edit for edit in EDITS if all(letter.name in tower.letters for letter in Edit.parse(edit).letters)]
    return tuple(dict.fromkeys(map(canonical, (*first, *able))))


def first_order(
    tower: Tower,
    pixels: Pixels,
    loss: Loss,
    edits: Sequence[str],
    *,
    chunk: int = 32,
    progress: Callable[[float], None] | None = None,
) -> FirstOrder:
    """The table, of the loss that searches break ties by (`headwise.scoring.losses.loss_of` names two exceptions).

    The loss ties all images of the split together, so it is differentiated in two steps: one pass gives all
    embeddings, with them the gradient to each of them, and the heads' mean outputs; a second carries the gradients through
    the tower to the heads' outputs, chunk by chunk, where each edit is computed beside the unedited heads. The result does
    not depend on the chunk beyond rounding.

    Arguments:
        tower: the image tower; it is left as it was.
        pixels: the split's images, (N, 3, R, R).
        loss: of the split, from `headwise.scoring.losses`, on the tower's device.
        edits: as people write them, such as `zero`, `keys` or `temperature(1.5)`.
        chunk: images at a time.
        progress: called with the FFE done since the last call.

    Raises:
        HeadwiseError: bad input, an edit that the tower cannot have, or scores that are not finite.
    """
    edits = tuple(dict.fromkeys(map(canonical, edits)))
    for edit in edits:
        tower.check_edit(edit)
    if chunk < 1:
        raise HeadwiseError(f"{chunk} images a chunk: it must be at least 1.")
    total = len(pixels)
    check_images(loss, total)
    masks = {edit: Mask.suppress(tower.grid, tower.able(edit), edit) for edit in edits}
    identity = ffe(tower, [Mask.identity(tower.grid)])
    extra = sum(ffe(tower, [mask]) - identity for mask in masks.values())  # attention that edits compute again
    numbers, second = torch.arange(total), trained_cost(False) + extra

    def tell(images: int, cost: float) -> None:
        if progress:
            progress(cost * images / total)

    sums = [torch.zeros(block.heads, block.head_dim, dtype=torch.float64) for block in tower.blocks]  # (H, d)
    with frozen(tower.parts):
        parts = []
        for part in numbers.split(chunk):
            with torch.no_grad():
                e, seen = _forward(tower, gather(tower, pixels, part))  # (B, E)
            parts.append(e)
            for row, heads in zip(sums, seen, strict=True):
                row += heads.settled.double().mean(2).sum(0).cpu()  # (H, d)
            tell(len(part), 1.0)
        embeddings = torch.cat(parts).requires_grad_()  # (N, E)
        value = 0.0
        for term in loss.terms(embeddings, numbers.to(tower.device)):
            term.backward()
            value += float(term.detach())
        pull = embeddings.grad  # (N, E)
        assert pull is not None
        means = [row / total for row in sums]
        bound = {edit: mask.bound(lambda h: means[tower.grid.row_of(h)][h.index]) for edit, mask in masks.items()}
        compiled = {
            edit: [
                row_of(row, block.head_dim, tower.device) for row, block in zip(mask.table, tower.blocks, strict=True)
            ]
            for edit, mask in bound.items()
        }
        falls = {edit: torch.zeros(tower.grid.size, dtype=torch.float64) for edit in edits}  # (heads)
        for part in numbers.split(chunk):
            e, seen = _forward(tower, gather(tower, pixels, part), compiled.values())
            slopes = _slopes(e, pull[part.to(pull.device)], seen)
            with torch.no_grad():
                for edit, row in compiled.items():
                    found = [one.fall(*slope, row[i]) for i, (one, slope) in enumerate(zip(seen, slopes, strict=True))]
                    falls[edit] += torch.cat(found).double().cpu()
            tell(len(part), second)
    if not (math.isfinite(value) and all(bool(torch.isfinite(fall).all()) for fall in falls.values())):
        raise HeadwiseError(f"The loss ({value:g}) or its gradient is not finite. Check the model's weights.")
    scores = {
        edit: {head: float(fall) for head, fall in zip(tower.grid, falls[edit], strict=True) if head in mask.edits}
        for edit, mask in masks.items()
    }
    return FirstOrder(tower.grid, scores, value, 1.0 + second)


@dataclass(frozen=True)
class _Heads:
    """One row of heads before its edits: q, k, v, q of all tokens where edits need it, A·v, and that settled."""

    block: Block
    queries: slice | None
    looks: tuple[torch.Tensor, torch.Tensor, torch.Tensor]  # (B, H, Q, d), (B, H, N, d) twice
    every: torch.Tensor | None  # (B, H, N, d)
    z: torch.Tensor  # (B, H, Q, d)
    settled: torch.Tensor  # (B, H, Q, d)

    def fall(self, slope: torch.Tensor, settled_slope: torch.Tensor, row: Row | None) -> torch.Tensor:
        """−⟨∂L/∂z, z_e − z⟩ of every head, (H); the attention side where heads attend, the value side where they emit."""
        falls = torch.zeros(self.block.heads, dtype=torch.float64, device=self.z.device)
        if row is None:
            return falls
        z, settled = self.z.detach(), self.settled.detach()
        if row.looks:
            other = row.attend(z, *self.looks, self.block.attention, queries=self.queries, all_queries=self.every)
            falls -= (slope * (other - z)).double().sum((0, 2, 3))
            settled = self.block.settle(other)
        return falls - (settled_slope * (row.emit(settled, self.queries) - settled)).double().sum((0, 2, 3))


def _forward(
    tower: Tower, images: torch.Tensor, edits: Iterable[Sequence[Row | None]] = ()
) -> tuple[torch.Tensor, list[_Heads]]:
    """Embeddings (B, E) of the unedited model and its heads on the way, with gradients to what they emit."""
    edits = list(edits)
    with torch.no_grad():  # nothing before the first heads depends on what they emit
        x = tower.stem(images)  # (B, N, D)
    seen = []
    for row, block in enumerate(tower.blocks):
        queries, every = tower.queries(row), None
        if queries is not None and any((one[row] or NOTHING).needs_all_queries for one in edits):
            with torch.no_grad():
                every = block.project(x)[0]
        q, k, v = block.project(x, queries)
        z = block.attention(q, k, v)  # (B, H, Q, d)
        if torch.is_grad_enabled() and not z.requires_grad:
            z.requires_grad_()
        settled = block.settle(z)
        seen.append(_Heads(block, queries, (q.detach(), k.detach(), v.detach()), every, z, settled))
        x = block.finish(rows(x, queries), settled)
    return tower.pool(x), seen


def _slopes(
    embeddings: torch.Tensor, pull: torch.Tensor, seen: Sequence[_Heads]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """∂L/∂z of every row of heads, before and after it settles, (B, H, Q, d) each."""
    inputs = {id(t): t for heads in seen for t in (heads.z, heads.settled)}  # often the same tensor
    found = dict(zip(inputs, torch.autograd.grad(embeddings, list(inputs.values()), pull), strict=True))
    return [(found[id(heads.z)], found[id(heads.settled)]) for heads in seen]


def agreement(first: FirstOrder, edit: str, singles: Iterable[Found], identity: Score) -> dict[str, float]:
    """Spearman's rank correlation of first-order scores with exact ones of single heads.

    Arguments:
        edit: one of the table's.
        singles: masks of one head with this edit; others are left out.
        identity: score of the model as it is.

    Returns:
        `loss`: with how much each edit really lowers the loss; `fitness`: with how much it raises the fitness; `heads`:
        how many there are. nan where all values of one side are equal.
    """
    alone = {Mask.suppress(first.grid, [head], edit): score for head, score in first.scores[edit].items()}
    found = [one for one in singles if one.mask in alone]
    scores = [alone[one.mask] for one in found]
    return {
        "loss": spearman(scores, [identity.loss - one.score.loss for one in found]),
        "fitness": spearman(scores, [one.score.fitness - identity.fitness for one in found]),
        "heads": len(found),
    }

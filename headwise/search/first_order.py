"""Signed first-order scores: how fast the loss of the whole split falls as each head is suppressed.

    s_h = ∂L(g)/∂g_h at g = 1 = Σ_n ⟨∂L/∂e_n, ∂e_n/∂g_h⟩       suppressing h (g_h → 0) changes L by about −s_h

L: the loss of the whole split, e_n: an image's embedding, (E), g: one gate per head. After Michel et al. 2019
(arXiv 1905.10650), who take the mean absolute value over batches as a head's importance; here the sign is kept, since
harmful heads are looked for, and the gradient is that of the whole split.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch

from headwise.edits.heads import Grid, Head
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Means, Pixels
from headwise.scoring.losses import Loss, check_images
from headwise.search.gated import constants, frozen, gate_rows, gather, trained_cost, under
from headwise.search.ranks import spearman
from headwise.search.sweep import Sweep
from headwise.towers.base import Tower


@dataclass(frozen=True)
class FirstOrder:
    """First-order scores of every head that can be suppressed.

    Arguments:
        grid: the heads of the model.
        operator: what a suppressed head emits.
        scores: ∂loss/∂gate with all gates at 1. Above 0: to first order, suppressing the head lowers the loss by
            the score.
        loss: of the model as it is, on the split.
        spent: FFE.
    """

    grid: Grid
    operator: str
    scores: dict[Head, float]
    loss: float
    spent: float

    @cached_property
    def ranking(self) -> tuple[Head, ...]:
        """Heads, the most harmful first; of equal ones the first of the grid. In place of `Sweep.ranking`."""
        return tuple(sorted(self.scores, key=lambda head: (-self.scores[head], head)))


def first_order(
    tower: Tower,
    pixels: Pixels,
    loss: Loss,
    operator: str,
    *,
    means: Means | None = None,
    chunk: int = 32,
    recompute: bool = False,
    progress: Callable[[float], None] | None = None,
) -> FirstOrder:
    """∂loss/∂gate at gates of 1, for all heads at once, of the loss that searches break ties by
    (`headwise.scoring.losses.loss_of` names two exceptions).

    The loss ties all images of the split together, so it is differentiated in two steps: one pass gives all
    embeddings and with them the gradient to each of them; a second carries those through the tower, chunk by
    chunk. The result is exact and does not depend on the chunk beyond rounding.

    Arguments:
        tower: the image tower; it is left as it was.
        pixels: the split's images, (N, 3, R, R).
        loss: of the split, from `headwise.scoring.losses`, on the tower's device.
        operator: what a suppressed head emits.
        means: operator `mean`: per row of the grid, (H, d).
        chunk: images at a time.
        recompute: activation checkpointing.
        progress: called with the FFE done since the last call.

    Raises:
        HeadwiseError: bad input, or scores that are not finite.
    """
    tower.check_edit(operator)
    if chunk < 1:
        raise HeadwiseError(f"{chunk} images a chunk: it must be at least 1.")
    total = len(pixels)
    check_images(loss, total)
    means = constants(tower, operator, means)
    numbers = torch.arange(total)
    ones = [torch.ones(count, device=tower.device) for count in tower.grid.rows]

    def embed(part: torch.Tensor, gates: list[torch.Tensor]) -> torch.Tensor:
        images = gather(tower, pixels, part)  # (B, 3, R, R)
        return under(tower, images, gate_rows(tower, gates, operator, means), recompute=recompute)  # (B, E)

    def tell(images: int, cost: float) -> None:
        if progress:
            progress(cost * images / total)

    with frozen(tower.parts):
        parts = []
        for part in numbers.split(chunk):
            with torch.no_grad():
                parts.append(embed(part, ones))
            tell(len(part), 1.0)
        embeddings = torch.cat(parts).requires_grad_()  # (N, E)
        value = 0.0
        for term in loss.terms(embeddings, numbers.to(tower.device)):
            term.backward()
            value += float(term.detach())
        pull = embeddings.grad  # (N, E)
        assert pull is not None
        slopes = torch.zeros(tower.grid.size, dtype=torch.float64)  # (heads)
        for part in numbers.split(chunk):
            gates = [row.clone().requires_grad_() for row in ones]
            torch.autograd.backward(embed(part, gates), pull[part.to(pull.device)])
            found = [torch.zeros_like(g) if g.grad is None else g.grad for g in gates]
            slopes += torch.cat(found).double().cpu()
            tell(len(part), trained_cost(recompute))
    if not (math.isfinite(value) and bool(torch.isfinite(slopes).all())):
        raise HeadwiseError(f"The loss ({value:g}) or its gradient is not finite. Check the model's weights.")
    able = [operator in block.letters for block in tower.blocks for _ in range(block.heads)]
    scores = {head: float(slope) for head, slope, can in zip(tower.grid, slopes, able, strict=True) if can}
    return FirstOrder(tower.grid, operator, scores, value, 1.0 + trained_cost(recompute))


def agreement(first: FirstOrder, exact: Sweep) -> dict[str, float]:
    """Spearman's rank correlation of first-order scores with an exact sweep.

    Returns:
        `loss`: with how much each head's suppression really lowers the loss; `fitness`: with how much it raises
        the fitness. nan where all values of one side are equal.

    Raises:
        HeadwiseError: another operator or other heads.
    """
    heads = [effect.head for effect in exact.heads]
    if first.operator != exact.operator or set(heads) != set(first.scores):
        raise HeadwiseError(
            f"First-order scores of {len(first.scores)} heads (edit {first.operator}) cannot be compared with a "
            f"sweep of {len(heads)} (edit {exact.operator})."
        )
    scores = [first.scores[head] for head in heads]
    return {
        "loss": spearman(scores, [-effect.loss_delta for effect in exact.heads]),
        "fitness": spearman(scores, [effect.delta for effect in exact.heads]),
    }

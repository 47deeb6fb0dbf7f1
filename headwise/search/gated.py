"""A tower's forward under edits whose numbers have gradients.

    e = pool(blocks under rows of edits)       z' = M·(A'v) + c per head, gradients to τ, g, c, s alone

In: a tower, images, a row of edits for each block. Out: embeddings (B, E). `evaluation/engine.py` computes the same for
such edits; it shares work between masks and has no gradients. It does not know what the numbers are trained for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from headwise.edits.operators import Row, letter_row
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Means, Pixels
from headwise.towers.base import Tower, evaluating


def under(tower: Tower, images: torch.Tensor, edits: Sequence[Row | None], *, recompute: bool = False) -> torch.Tensor:
    """Embeddings under edits, with gradients to their numbers.

    Arguments:
        tower: the image tower, in eval mode.
        images: (B, 3, R, R), on the tower's device, in its precision.
        edits: per row of the grid; None: every head is kept.
        recompute: keep one residual stream per block and run each block again for its gradients.

    Returns:
        (B, E), not normalised.
    """
    with torch.no_grad():  # nothing before the first block depends on an edit
        x = tower.stem(images)  # (B, N, D)
    for row, block in enumerate(tower.blocks):
        queries = tower.queries(row)
        if recompute and torch.is_grad_enabled():
            # blocks in eval mode draw no random numbers, so there is no generator state to keep
            x = checkpoint(block.run, x, edits[row], queries, use_reentrant=False, preserve_rng_state=False)
        else:
            x = block.run(x, edits[row], queries)  # (B, Q, D)
    return tower.pool(x)


def gate_rows(tower: Tower, gates: Sequence[torch.Tensor], letter: str, means: Means | None = None) -> list[Row | None]:
    """One gate per head, each the number of one letter.

    Arguments:
        gates: per row of the grid, (H); rows that cannot have the letter (of pooling heads) are kept.
        letter: one with a number.
        means: `mean` alone: per row, (H, d).
    """
    return [
        letter_row(letter, g, mean=None if means is None else means[row]) if letter in block.letters else None
        for row, (block, g) in enumerate(zip(tower.blocks, gates, strict=True))
    ]


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Eval mode and no parameter trained inside; what was there before is restored after."""
    before = {parameter: parameter.requires_grad for parameter in module.parameters()}
    module.requires_grad_(False)
    try:
        with evaluating(module):
            yield
    finally:
        for parameter, wanted in before.items():
            parameter.requires_grad_(wanted)


def constants(tower: Tower, operator: str, means: Means | None) -> list[torch.Tensor] | None:
    """The heads' mean outputs on the tower's device, as ordinary tensors; None for other letters than `mean`.

    Raises:
        HeadwiseError: `mean` without them.
    """
    if operator != "mean":
        return None
    if means is None:
        raise HeadwiseError("'mean' needs the heads' mean outputs; compute them with engine.head_means.")
    return [row.to(tower.device).clone() for row in means]


def gather(tower: Tower, pixels: Pixels, numbers: torch.Tensor) -> torch.Tensor:
    """Some images of a split in the order asked for, (B, 3, R, R), on the tower's device, in its precision."""
    if isinstance(pixels, torch.Tensor):
        images = pixels[numbers.to(pixels.device)]
    elif take := getattr(pixels, "take", None):
        images = take(numbers.tolist())[0 : len(numbers)]
    else:
        images = torch.cat([pixels[i : i + 1] for i in numbers.tolist()])
    return images.to(tower.device, tower.dtype)


def trained_cost(recompute: bool) -> float:
    """FFE of one forward and backward over the split: the backward has products with activations' gradients alone."""
    return 3.0 if recompute else 2.0

"""A tower's forward with one differentiable gate per head.

    z'_h = g_h · z_h + (1 − g_h) · A0·v_h       z (B, H, Q, d), v (B, H, N, d), g (H) per row, gradients to g alone

In: a tower, images, gates. Out: embeddings (B, E). `evaluation/engine.py` computes the same for such a mask; it
shares work between masks and has no gradients. It does not know what the gates are trained for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from headwise.edits.operators import suppress
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Means, Pixels
from headwise.towers.base import Tower, evaluating, rows


def gated(
    tower: Tower,
    images: torch.Tensor,
    gates: Sequence[torch.Tensor],
    operator: str,
    *,
    means: Means | None = None,
    recompute: bool = False,
) -> torch.Tensor:
    """Embeddings under gates, with gradients to the gates.

    Arguments:
        tower: the image tower, in eval mode.
        images: (B, 3, R, R), on the tower's device, in its precision.
        gates: per row of the grid, (H).
        operator: what a suppressed head emits.
        means: operator `mean`: per row, (H, d).
        recompute: keep one residual stream per block and run each block again for its gradients.

    Returns:
        (B, E), not normalised.
    """
    with torch.no_grad():  # nothing before the first block depends on a gate
        x = tower.stem(images)  # (B, N, D)
    for row, block in enumerate(tower.blocks):
        queries = tower.queries(row)
        mean = means[row] if means is not None else None

        def step(x, g, block=block, queries=queries, mean=mean):
            z, v = block.attend(x, queries)  # (B, H, Q, d), (B, H, N, d)
            if operator in block.operators:  # pooling heads lack some operators; they are kept then
                z = suppress(operator, z, v, g, queries=queries, mean=mean)
            return block.finish(rows(x, queries), z)  # (B, Q, D)

        if recompute and torch.is_grad_enabled():
            # blocks in eval mode draw no random numbers, so there is no generator state to keep
            x = checkpoint(step, x, gates[row], use_reentrant=False, preserve_rng_state=False)
        else:
            x = step(x, gates[row])
    return tower.pool(x)


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
    """The heads' mean outputs on the tower's device, as ordinary tensors; None for other operators.

    Raises:
        HeadwiseError: operator `mean` without them.
    """
    if operator != "mean":
        return None
    if means is None:
        raise HeadwiseError("Operator 'mean' needs the heads' mean outputs; compute them with engine.head_means.")
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

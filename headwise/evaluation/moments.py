"""What heads emit on a set of images: mean and principal axes of every head's output.

    μ = mean of z        U diag(σ²) Uᵀ = mean of (z − μ)(z − μ)ᵀ        over images and the query rows that are computed

In: a tower, pixels. Out: `Moments`, per row of the grid. Equal inputs give equal numbers; axes have no sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from headwise.evaluation.engine import Pixels
from headwise.evaluation.layout import Plan
from headwise.towers.base import Tower, evaluating, rows


@dataclass(frozen=True, eq=False)
class Moments:
    """Of one row of heads.

    Arguments:
        mean: μ, (H, d) float32.
        axes: U, (H, d, d) float32, a column an axis, the strongest first.
        spread: σ of every axis, (H, d) float32.
    """

    mean: torch.Tensor
    axes: torch.Tensor
    spread: torch.Tensor


def head_moments(tower: Tower, pixels: Pixels, layout: Plan) -> list[Moments]:
    """One pass of the unchanged tower; sums in float64.

    Returns:
        Per row of the grid.
    """
    ready = tower.cast(layout.device, layout.torch_dtype)
    count = [0] * len(ready.blocks)
    sums = [torch.zeros(b.heads, b.head_dim, dtype=torch.float64) for b in ready.blocks]
    squares = [torch.zeros(b.heads, b.head_dim, b.head_dim, dtype=torch.float64) for b in ready.blocks]
    with evaluating(ready.parts), torch.inference_mode():
        for start in range(0, len(pixels), layout.chunk):
            x = ready.stem(pixels[start : start + layout.chunk].to(ready.device, ready.dtype))  # (B, N, D)
            for row, block in enumerate(ready.blocks):
                queries = ready.queries(row)
                z, _ = block.attend(x, queries)  # (B, H, Q, d)
                flat = z.transpose(0, 1).flatten(1, 2).double().cpu()  # (H, B·Q, d)
                count[row] += flat.shape[1]
                sums[row] += flat.sum(1)
                squares[row] += flat.mT @ flat
                x = block.finish(rows(x, queries), z)
    return [_moments(*one) for one in zip(count, sums, squares, strict=True)]


def _moments(count: int, total: torch.Tensor, square: torch.Tensor) -> Moments:
    mean = total / count  # (H, d)
    covariance = square / count - mean[:, :, None] * mean[:, None]  # (H, d, d)
    values, axes = torch.linalg.eigh(covariance)  # ascending
    spread = values.clamp_min(0).sqrt().flip(-1)  # (H, d)
    return Moments(mean.float(), axes.flip(-1).float().contiguous(), spread.float())

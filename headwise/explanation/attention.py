"""Where heads look: entropy, class token, distance, sink; maps for chosen images.

    entropy = −Σ_n A_qn log A_qn / log N       sink share = max_n mean_q A_qn       A (B, H, Q, N)

In: a tower and pixels. Out: means over images and queries for each head. Only here are attentions made whole, a few
images at a time. What a mask does is not looked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from headwise.edits.heads import Head
from headwise.evaluation.engine import Pixels
from headwise.towers.base import Tower, evaluating, rows

CELLS = 2**25  # attention weights that are held at once
SINK = 0.3  # a token that gets this share of all attention is a sink
NOP = 0.5  # a sink whose value is shorter than half the mean value says nothing; a longer one is broadcast


@dataclass(frozen=True)
class Looks:
    """One head's attention, means over images and queries.

    Arguments:
        entropy: of the weights, as a share of the most there can be.
        class_share: share of the class token; None without one.
        distance: between the patch that asks and those it looks at, as a share of the picture's diagonal; None for
            pooling.
        sink_share: of the token that gets most attention over queries, image by image.
        sink_norm: length of its value by the mean length of values.
    """

    entropy: float
    class_share: float | None
    distance: float | None
    sink_share: float
    sink_norm: float

    @property
    def sink(self) -> str:
        """`none`, `nop` (nothing is read from the sink) or `broadcast`."""
        return "none" if self.sink_share < SINK else "nop" if self.sink_norm < NOP else "broadcast"


@dataclass
class _Whole(TorchFunctionMode):
    """Inside, fused attention computes its weights in the open and hands them to `see`."""

    see: Callable[[torch.Tensor, torch.Tensor], None] | None = None

    def __post_init__(self) -> None:
        super().__init__()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is not F.scaled_dot_product_attention or self.see is None:
            return func(*args, **kwargs)
        q, k, v = args[:3]  # (B, H, Q, d), (B, H, N, d) twice
        scale = kwargs.get("scale") or 1 / math.sqrt(q.shape[-1])
        weights = (q.float() @ k.float().mT * scale).softmax(-1)  # (B, H, Q, N)
        self.see(weights, v)
        return (weights.to(v.dtype) @ v).to(v.dtype)


@dataclass
class _Sums:
    """Running sums over images of one row of heads, (H) each."""

    images: int = 0
    sums: dict[str, torch.Tensor] = field(default_factory=dict)

    def add(self, images: int, **values: torch.Tensor) -> None:
        """Values (B, H)."""
        self.images += images
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, torch.zeros(())) + value.double().sum(0).cpu()

    def mean(self, name: str, head: int) -> float | None:
        return float(self.sums[name][head] / self.images) if name in self.sums else None


def attention_statistics(
    tower: Tower, pixels: Pixels, *, progress: Callable[[float], None] | None = None
) -> dict[Head, Looks]:
    """Statistics of every head over some images.

    Arguments:
        tower: on its device.
        pixels: (N, 3, R, R).
        progress: called with the images done since the last call.
    """
    sums = [_Sums() for _ in tower.blocks]
    for row, _, weights, v in _attentions(tower, pixels, progress):
        sums[row].add(len(weights), **_measure(tower, row, weights, v))
    found = {}
    for row, total in enumerate(sums):
        for index in range(tower.grid.rows[row]):
            values = {name: total.mean(name, index) for name in ("entropy", "class_share", "distance")}
            share, norm = total.mean("sink_share", index), total.mean("sink_norm", index)
            found[tower.grid.head(row, index)] = Looks(**values, sink_share=share, sink_norm=norm)  # type: ignore[arg-type]
    return found


def attention_maps(tower: Tower, pixels: Pixels, wanted: Mapping[Head, Sequence[int]]) -> dict[Head, np.ndarray]:
    """Where heads look in chosen images: the weights of the class token (of what pools, or of the mean patch) on patches.

    Arguments:
        pixels: the union of the chosen images.
        wanted: which of them to keep for each head.

    Returns:
        (images, side, side) float16 each, largest weight 1. Heads of a tower whose patches form no square have none.
    """
    side, _ = patch_grid(tower)
    if side is None:
        return {}
    found = {head: np.zeros((len(images), side, side), np.float16) for head, images in wanted.items()}
    for row, start, weights, _ in _attentions(tower, pixels):
        by = weights[:, :, 0] if tower.class_token or not tower.blocks[row].tokenwise else weights.mean(2)  # (B, H, N)
        if by.shape[-1] < side * side:
            continue
        patches = by[..., by.shape[-1] - side * side :]  # (B, H, side²)
        patches = (patches / patches.amax(-1, keepdim=True).clamp_min(1e-12)).unflatten(-1, (side, side)).cpu().numpy()
        for head, images in wanted.items():
            if tower.grid.row_of(head) == row:
                for place, image in enumerate(images):
                    if start <= image < start + len(patches):
                        found[head][place] = patches[image - start, head.index]
    return found


def patch_grid(tower: Tower) -> tuple[int | None, int]:
    """Side of the square that patches form, and the tokens before them; (None, 0) where they form none."""
    for prefix in range(min(17, tower.tokens)):
        side = math.isqrt(tower.tokens - prefix)
        if side * side == tower.tokens - prefix and (prefix > 0) >= tower.class_token:
            return side, prefix
    return None, 0


def _attentions(
    tower: Tower, pixels: Pixels, progress: Callable[[float], None] | None = None
) -> Iterator[tuple[int, int, torch.Tensor, torch.Tensor]]:
    """(row, first image, weights (B, H, Q, N), v (B, H, N, d)), one row of a chunk at a time, all queries computed."""
    most = max(block.heads for block in tower.blocks) * tower.tokens**2
    chunk = max(1, min(16, CELLS // most))
    with evaluating(tower.parts), torch.inference_mode():
        for start in range(0, len(pixels), chunk):
            x = tower.stem(pixels[start : start + chunk].to(tower.device, tower.dtype))  # (B, N, D)
            for row, block in enumerate(tower.blocks):
                seen: list[tuple[torch.Tensor, torch.Tensor]] = []
                with _seeing(seen):
                    z, _ = block.attend(x)  # (B, H, N, d)
                yield row, start, *seen[-1]
                queries = tower.queries(row)
                x = block.finish(rows(x, queries), z if queries is None else z[:, :, queries])
            if progress:
                progress(len(x))


@contextmanager
def _seeing(seen: list[tuple[torch.Tensor, torch.Tensor]]) -> Iterator[None]:
    with _Whole(lambda weights, v: seen.append((weights, v))):
        yield


def _measure(tower: Tower, row: int, weights: torch.Tensor, v: torch.Tensor) -> dict[str, torch.Tensor]:
    """Per image and head, (B, H) each."""
    n = weights.shape[-1]
    entropy = torch.special.entr(weights).sum(-1).mean(-1) / math.log(max(n, 2))
    received = weights.mean(2)  # (B, H, N)
    share, sink = received.max(-1)  # (B, H) twice
    norms = v.float().norm(dim=-1)  # (B, H, N)
    norms = norms.expand(*received.shape)
    at_sink = norms.gather(-1, sink[..., None])[..., 0]  # (B, H)
    found = {"entropy": entropy, "sink_share": share, "sink_norm": at_sink / norms.mean(-1).clamp_min(1e-12)}
    if tower.class_token and n == tower.tokens:
        found["class_share"] = received[..., 0]
    side, prefix = patch_grid(tower)
    if side is not None and side > 1 and tower.blocks[row].tokenwise:
        between = _distances(side).to(weights.device)  # (side², side²)
        patches = weights[..., prefix:, prefix:]  # (B, H, side², side²)
        along = (patches * between).sum(-1) / patches.sum(-1).clamp_min(1e-12)
        found["distance"] = along.mean(-1)
    return found


def _distances(side: int) -> torch.Tensor:
    """Between the patches of a square, as a share of its diagonal, (side², side²)."""
    place = torch.stack(torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij"), -1).flatten(0, 1).float()
    return torch.cdist(place, place) / (math.sqrt(2) * (side - 1))

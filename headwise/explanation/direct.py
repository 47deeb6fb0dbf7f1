"""Direct contributions: the part of the embedding that a head writes itself, not through later blocks.

    e = Σ_h c_h + rest       e, c_h (N, E); rest: stem, MLPs and biases

A pre-norm tower adds up its residual stream, and the final norm and projection are linear once each image's own
standard deviation is taken as given (Gandelsman, Efros and Steinhardt, arXiv 2310.05916). So the sum is exact. Of
attention pooling the heads that pool have parts, and what an MLP after them adds is in the rest; the blocks' heads
reach such an embedding through the pooling alone and have none. `effects.py` counts what later blocks make of a head;
this does not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import nn

from headwise.edits.heads import Head
from headwise.evaluation.engine import Pixels
from headwise.towers.base import Tower, evaluating, rows

LIMIT = 1e-4  # largest difference between the sum of all parts and the embedding, relative to its length


@dataclass(frozen=True)
class Decomposition:
    """One chunk of images, taken apart.

    Arguments:
        heads: (H, B, E), in the order of `direct_heads`.
        rest: name (`stem`, `L3`: MLP and biases of a block, `constant`) → (B, E) or (1, E).
        embedding: what the parts sum to, from the tower's own pooling, (B, E).
    """

    heads: torch.Tensor
    rest: dict[str, torch.Tensor]
    embedding: torch.Tensor

    @property
    def error(self) -> float:
        """Largest difference between the sum and the embedding, relative to the embedding's length."""
        total = self.heads.sum(0) + sum(self.rest.values())  # (B, E)
        norm = self.embedding.norm(dim=1).clamp_min(1e-12)  # (B)
        return float(((total - self.embedding).norm(dim=1) / norm).max())


def direct_heads(tower: Tower) -> tuple[Head, ...]:
    """The heads that may write to the embedding directly: all, or those that pool."""
    grid = tower.grid
    return tuple(head for head in grid if not grid.pool or grid.row_of(head) == len(grid.layers))


def decompose(tower: Tower, images: torch.Tensor) -> Decomposition:
    """The embeddings of images (B, 3, R, R) as a sum of parts.

    Arguments:
        tower: in float32 or float64: sums in bfloat16 would not be exact.
        images: on the tower's device, in its precision.

    Raises:
        NotImplementedError: a family of towers without `Block.branch`.
    """
    with evaluating(tower.parts), torch.inference_mode():
        x = tower.stem(images)  # (B, N, D)
        first = len(tower.grid.layers) if tower.grid.pool else 0
        written: list[tuple[str, list[torch.Tensor], torch.Tensor | None]] = []  # block, heads' parts, what else
        start = x
        for row, block in enumerate(tower.blocks):
            queries = tower.queries(row)
            z, _ = block.attend(x, queries)  # (B, H, Q, d)
            kept = rows(x, queries)  # (B, Q, D)
            out = block.finish(kept, z)  # (B, Q, D)
            if row >= first:
                parts = [
                    part if queries is not None else _read(tower, row, part) for part in _shares(tower, row, kept, z)
                ]
                after = out if queries is not None else _read(tower, row, out)
                before = 0 if not block.tokenwise else kept if queries is not None else _read(tower, row, kept)
                written.append((tower.grid.row_name(row), parts, after - before - sum(parts)))  # type: ignore[arg-type]
            x = out
        return _through_pool(tower, x, start, written)


def _read(tower: Tower, row: int, x: torch.Tensor) -> torch.Tensor:
    """The rows of a residual stream (B, N, D) that pooling will read."""
    return rows(x, tower.reads) if tower.blocks[row].tokenwise else x


def _shares(tower: Tower, row: int, x: torch.Tensor, z: torch.Tensor) -> Iterator[torch.Tensor]:
    """What each head adds to the residual stream, (B, Q, D) each; biases are nobody's."""
    block = tower.blocks[row]
    with frozen(tower.parts) as freeze:
        block.branch(x, z)
        freeze()
        none = block.branch(x, torch.zeros_like(z))
        for head in range(block.heads):
            alone = torch.zeros_like(z)
            alone[:, head] = z[:, head]
            yield block.branch(x, alone) - none


def _through_pool(tower: Tower, x: torch.Tensor, start: torch.Tensor, written: list) -> Decomposition:
    """Every part of the last residual stream through the final norm and projection, made linear."""
    with frozen(tower.parts) as freeze:
        embedding = tower.pool(x)  # (B, E)
        freeze()
        constant = tower.pool(torch.zeros_like(x))  # (B, E)

        def put(part: torch.Tensor) -> torch.Tensor:
            return tower.pool(part) - constant

        rest = {"constant": constant}
        if not tower.grid.pool:
            rest["stem"] = put(rows(start, tower.reads))
        heads = []
        for name, parts, other in written:
            heads += [put(part) for part in parts]
            rest[name] = put(other)
        return Decomposition(torch.stack(heads), rest, embedding)


@contextmanager
def frozen(parts: nn.Module) -> Iterator[Callable[[], None]]:
    """Inside, layer norms note each row's standard deviation; once the function that this gives was called they divide
    by what they noted, which makes them affine.

    A norm that is called several times keeps what it noted last.
    """
    noted: dict[nn.Module, torch.Tensor] = {}
    state = _State()

    def hook(norm: nn.LayerNorm, args: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor | None:
        x = args[0].float() if args[0].dtype in (torch.bfloat16, torch.float16) else args[0]
        if not state.frozen:
            noted[norm] = (x.var(-1, correction=0, keepdim=True) + norm.eps).rsqrt()  # (..., 1)
            return None
        if norm not in noted:
            return None
        y = (x - x.mean(-1, keepdim=True)) * noted[norm]
        y = y if norm.weight is None else y * norm.weight
        return (y if norm.bias is None else y + norm.bias).to(out.dtype)

    handles = [norm.register_forward_hook(hook) for norm in parts.modules() if isinstance(norm, nn.LayerNorm)]
    try:
        yield state.freeze
    finally:
        for handle in handles:
            handle.remove()


@dataclass
class _State:
    frozen: bool = field(default=False)

    def freeze(self) -> None:
        self.frozen = True


def why_not(tower: Tower, pixels: Pixels) -> str | None:
    """Why this tower's embeddings are no sum of its heads' parts, as a sentence; None where they are."""
    image = pixels[:2].to(tower.device, tower.dtype)
    try:
        error = decompose(tower, image).error
    except NotImplementedError:
        return f"{tower.family}: headwise does not know where its heads write to."
    if error <= LIMIT:
        return None
    return (
        f"{tower.family} with {tower.pooling} pooling: parts and rest miss the embedding by {error:.1e} of its length, "
        "so something after the heads is not linear."
    )


def direct_contributions(
    tower: Tower,
    pixels: Pixels,
    out: np.ndarray,
    *,
    chunk: int,
    progress: Callable[[float], None] | None = None,
) -> float:
    """Every head's direct contribution to every image's embedding, a chunk of images at a time.

    Arguments:
        tower: in float32.
        out: (heads, N, E) float16, filled in the order of `direct_heads`.
        progress: called with the images done since the last call.

    Returns:
        The largest difference between parts plus rest and the embedding, relative to its length.
    """
    worst = 0.0
    for start in range(0, len(pixels), chunk):
        images = pixels[start : start + chunk].to(tower.device, tower.dtype)
        found = decompose(tower, images)
        out[:, start : start + len(images)] = found.heads.float().cpu().numpy()
        worst = max(worst, found.error)
        if progress:
            progress(len(images))
    return worst

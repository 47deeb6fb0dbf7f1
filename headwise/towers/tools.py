"""What the libraries' files share: fused attention, packed projections, and checks that nothing is misread."""

from __future__ import annotations

import importlib
from collections.abc import Collection
from types import ModuleType

import torch
from torch import nn

from headwise.errors import HeadwiseError
from headwise.towers.base import Tower, evaluating, rows
from headwise.towers.blocks import split_heads


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float | None = None, dropout: float = 0.0
) -> torch.Tensor:
    """Head outputs A·v, (B, H, Q, d), by torch's fused kernels."""
    return nn.functional.scaled_dot_product_attention(q, k, v, scale=scale, dropout_p=dropout)


def packed_qkv(
    h: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, heads: int, queries: slice | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value heads from one packed in-projection.

    Arguments:
        h: (B, N, D).
        weight, bias: (3·H·d, D), (3·H·d) in the order q, k, v.
        queries: the rows to compute queries for (None: all).

    Returns:
        q (B, H, Q, d), k and v (B, H, N, d).
    """
    if queries is None:
        q, k, v = nn.functional.linear(h, weight, bias).chunk(3, dim=-1)  # (B, N, H·d) each
    else:
        inner = weight.shape[0] // 3
        q_bias, kv_bias = (None, None) if bias is None else (bias[:inner], bias[inner:])
        q = nn.functional.linear(h[:, queries], weight[:inner], q_bias)  # (B, Q, H·d)
        k, v = nn.functional.linear(h, weight[inner:], kv_bias).chunk(2, dim=-1)  # (B, N, H·d) each
    return split_heads(q, heads), split_heads(k, heads), split_heads(v, heads)


def active(module: nn.Module | None) -> nn.Module | None:
    """A module that does something, else None."""
    return None if module is None or isinstance(module, nn.Identity) else module


def refuse_unknown(module: nn.Module, known: Collection[str], library: str) -> None:
    """
    Raises:
        HeadwiseError: the module has a parameter or submodule of its own that headwise does not know.
    """
    own = [name for name, _ in module.named_children()] + [name for name, _ in module.named_parameters(recurse=False)]
    if unknown := sorted(set(own) - set(known)):
        raise HeadwiseError(
            f"{type(module).__name__} of {library} has parts that headwise does not know: {', '.join(unknown)}. "
            f"It knows: {', '.join(sorted(known))}. Computing without them would give wrong numbers."
        )


def need(package: str, extra: str) -> ModuleType:
    """Import an optional library.

    Raises:
        HeadwiseError: it is not installed; the message says which extra to install.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise HeadwiseError(
            f"This model needs {package}, which is not installed here ({error}). "
            f"Install it with: pip install 'headwise[{extra}]'"
        ) from error


def verify(tower: Tower) -> Tower:
    """The tower, after comparing its own walk with the library's forward on one random image.

    Raises:
        HeadwiseError: they differ, so the model has a structure that headwise misreads.
    """
    size, dtype = tower.resolution, tower.dtype
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)).to(tower.device, dtype)
    with evaluating(tower.parts), torch.inference_mode():
        x = tower.stem(image)  # (1, N, D)
        tokens = x.shape[1]
        for row, block in enumerate(tower.blocks):
            queries = tower.queries(row)
            z, _ = block.attend(x, queries)  # (1, H, Q, d)
            x = block.finish(rows(x, queries), z)  # (1, Q, D)
        own, walked = tower.encode(image).float(), tower.pool(x).float()  # (1, E) twice
    limit = 1e-4 if dtype in (torch.float32, torch.float64) else 0.1
    if tokens != tower.tokens or own.shape != walked.shape or (own - walked).norm() > limit * own.norm():
        raise HeadwiseError(
            f"headwise's walk through this {tower.family} tower disagrees with the library's own forward "
            f"({tuple(walked.shape)} from {tokens} tokens against {tuple(own.shape)}, {tower.tokens} expected): the "
            "model has a part that headwise does not know. Please report its configuration."
        )
    return tower

"""What the libraries' files share: fused attention, packed projections, and checks that nothing is misread.

In: q, k, v, or a library's modules. Out: head outputs before the out-projection, or a refusal. `verify` compares a
tower's own walk with its library's forward.
"""

from __future__ import annotations

import importlib
from collections.abc import Collection
from types import MethodType, ModuleType
from typing import Any

import torch
from torch import nn

from headwise.edits.operators import Row, softmax
from headwise.errors import HeadwiseError
from headwise.towers.base import Tower, evaluating, rows
from headwise.towers.blocks import split_heads


def attention(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, scale: float | None = None, dropout: float = 0.0
) -> torch.Tensor:
    """Head outputs A·v, (B, H, Q, d), by torch's fused kernels."""
    return nn.functional.scaled_dot_product_attention(q, k, v, scale=scale, dropout_p=dropout)


def edited_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    row: Row,
    *,
    scale: float | None = None,
    dropout: float = 0.0,
    drop: nn.Module | None = None,
    explicit: bool = False,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Head outputs of a row whose heads attend as edited, and the attention that they come from.

    Arguments:
        q, k, v: (B, H, Q, d), (B, H, N, d), (B, H, N, d).
        row: the edits of this row; the value side is still to come.
        scale: of the scores; None: 1/√d.
        dropout: of the attention.
        drop: a dropout module that the library calls on the attention, in place of `dropout`; its hooks see A'.
        explicit: compute the attention matrix, as the library does here; else torch's fused kernels.

    Returns:
        A'·v (B, H, Q, d), and A' as it is shown, (B, H, Q, N); None where it was not computed.
    """

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return attention(q, k, v, scale=scale, dropout=dropout)

    if not explicit:
        return row.attend(attend(q, k, v), q, k, v, attend), None
    scores = q @ k.transpose(-2, -1) * (q.shape[-1] ** -0.5 if scale is None else scale)  # (B, H, Q, N)
    weights = row.attention(softmax(scores), q, k, scale)  # (B, H, Q, N)
    weights = nn.functional.dropout(weights, dropout) if drop is None else drop(weights)
    return weights @ v, row.shown(weights)


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


def unhooked(module: nn.Module) -> Any:
    """A module of the same structure on the same parameters, in eval mode, without anybody's hooks.

    To run something that the user's hooks must not see and other threads must not notice: no parameter is copied,
    and nothing of the module itself is written.
    """
    twins: dict[nn.Module, nn.Module] = {}

    def twin(one: nn.Module) -> nn.Module:
        if one in twins:
            return twins[one]
        other = twins[one] = one.__new__(type(one))
        other.__dict__ = {
            name: value.copy() if isinstance(value, dict) else value for name, value in one.__dict__.items()
        }
        for name, value in other.__dict__.items():
            if "_hooks" in name and isinstance(value, dict):
                value.clear()
        forward = other.__dict__.get("forward")
        if hasattr(one, "_hf_hook"):  # accelerate's, which is tied to the module itself
            other.__dict__.pop("forward", None)
        elif isinstance(forward, MethodType) and forward.__self__ is one:
            other.__dict__["forward"] = MethodType(forward.__func__, other)
        other.__dict__.pop("_compiled_call_impl", None)
        other.__dict__["training"] = False
        for name, child in one._modules.items():
            other._modules[name] = None if child is None else twin(child)
        return other

    return twin(module)


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

"""Heads cut out of a library's attention module: rows of q, k, v, columns of the out-projection.

In: a block of a copy of a tower, and the heads to keep. Out: the same module, smaller, and a forward for it where its
library's own takes even heads for granted. The heads' constants have to be in the out-projection's bias already
(`applied/fold.py`). It knows parameters by their names, not libraries.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from headwise.edits.operators import NOTHING
from headwise.towers.base import rows
from headwise.towers.blocks import Block
from headwise.towers.tools import active

SEPARATE = ("q_proj", "k_proj", "v_proj", "gate")  # linear layers with one row per value of a head
PER_HEAD = ("q_bias", "k_bias", "v_bias")
OUT = ("out_proj", "proj")


def shrinkable(block: Block) -> bool:
    """Whether heads can be cut out of a block: it is known where they lie, and nothing mixes them before the
    out-projection. Heads of attention pooling stay: one query is little to save."""
    attn = block.site
    packed = getattr(attn, "qkv", None) is not None or getattr(attn, "in_proj_weight", None) is not None
    mixed = any(isinstance(active(getattr(attn, name, None)), nn.Module) for name in ("norm", "ln_inner"))
    rope = getattr(block, "rope", None)
    own_positions = rope is not None and rope().dim() > 2  # rotations that differ from head to head
    return (
        block.tokenwise
        and not mixed
        and not own_positions
        and getattr(attn, "num_kv_groups", 1) == 1
        and (packed or all(hasattr(attn, name) for name in SEPARATE[:3]))
        and isinstance(_out(attn), nn.Linear)
    )


@torch.no_grad()
def shrink(block: Block, kept: Sequence[int], *, pair: bool) -> Block:
    """The block with these heads alone; its module is changed in place.

    Arguments:
        block: of a copy, `shrinkable`.
        kept: heads to keep, ascending; none: the block loses its attention.
        pair: the attention's own forward returns a pair (output, weights), not the output alone.

    Returns:
        A block that walks the smaller module.
    """
    attn: Any = block.site
    if not kept:
        return _without_attention(block, pair)
    forward = block.live(NOTHING)  # before anything changes: some libraries' forward is tried out for it
    inner, d = block.heads * block.head_dim, block.head_dim
    index = torch.cat([torch.arange(head * d, (head + 1) * d) for head in kept])  # (h·d)
    packed = torch.cat([index + part * inner for part in range(3)])  # (3·h·d)
    for name in SEPARATE:
        if isinstance(getattr(attn, name, None), nn.Linear):
            setattr(attn, name, _linear(getattr(attn, name), rows=index))
    if isinstance(getattr(attn, "qkv", None), nn.Linear):
        attn.qkv = _linear(attn.qkv, rows=packed)
    for name, kind in [("in_proj_weight", packed), ("in_proj_bias", packed), *((name, index) for name in PER_HEAD)]:
        value = getattr(attn, name, None)
        if isinstance(value, nn.Parameter):
            setattr(attn, name, nn.Parameter(value[kind].clone(), requires_grad=value.requires_grad))
        elif isinstance(value, torch.Tensor):
            attn._buffers[name] = value[kind].clone()
    if isinstance(scale := getattr(attn, "head_scale", None), nn.Parameter):
        attn.head_scale = nn.Parameter(scale[list(kept)].clone())  # (h, 1, 1)
    out = _out(attn)
    setattr(attn, _out_name(attn), _linear(out, columns=index))
    attn.num_heads = block.heads = len(kept)
    if hasattr(attn, "attn_dim"):
        attn.attn_dim = len(kept) * d
    attn.__class__ = _class(attn, forward)
    return block


class NoHeads(Block):
    """A block whose heads are all gone: the out-projection's bias is all that its attention adds."""

    def __init__(self, block: Block):
        super().__init__(block.module, 0, block.head_dim, block.width, (), ())
        self._block = block

    def project(self, x: torch.Tensor, queries: slice | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Zeros in the place of queries, keys and values, (B, 1, Q, 1); see `Block.project`."""
        z = torch.zeros_like(rows(x, queries)[:, None, :, :1])
        return z, z, z

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """See `Block.attention`."""
        return q

    def finish(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Block.finish`."""
        return self._block.finish(x, z)


class Constant(nn.Module):
    """What is left of an out-projection without inputs: its bias (D), for every row."""

    def __init__(self, bias: torch.Tensor):
        super().__init__()
        self.bias = nn.Parameter(bias.detach().clone())

    def forward(self, y: torch.Tensor) -> torch.Tensor:
        """(…, ·) → (…, D)."""
        return torch.zeros_like(y[..., :1]) + self.bias


def _without_attention(block: Block, pair: bool) -> Block:
    attn: Any = block.site
    out = _out(attn)
    bias = torch.zeros(out.out_features) if out.bias is None else out.bias
    for name in (*SEPARATE, "qkv", "in_proj_weight", "in_proj_bias", *PER_HEAD):
        if getattr(attn, name, None) is not None:
            setattr(attn, name, None)
    constant = Constant(bias)
    setattr(attn, _out_name(attn), constant)

    def forward(module: Any, *args: Any, **kwargs: Any) -> Any:
        x = args[0] if args else next(iter(kwargs.values()))  # (B, N, D), by whatever name the library gives it
        y = getattr(module, _out_name(module))(x)  # (B, N, D)
        return (y, None) if pair else y

    attn.__class__ = _class(attn, forward)
    return NoHeads(block)


def _out_name(attn: Any) -> str:
    return next((name for name in OUT if isinstance(getattr(attn, name, None), nn.Module)), "")


def _out(attn: Any) -> Any:
    return getattr(attn, _out_name(attn), None) if _out_name(attn) else None


def _linear(layer: nn.Linear, *, rows: torch.Tensor | None = None, columns: torch.Tensor | None = None) -> nn.Linear:
    """Some rows or columns of a linear layer, as a layer of its own."""
    weight = layer.weight if rows is None else layer.weight[rows]
    weight = weight if columns is None else weight[:, columns]
    bias = layer.bias if rows is None or layer.bias is None else layer.bias[rows]
    made = nn.Linear(1, 1, bias=bias is not None)  # its numbers are replaced: a large layer is not drawn at random
    made.in_features, made.out_features = weight.shape[1], weight.shape[0]
    made.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        made.bias = nn.Parameter(bias.detach().clone())
    return made


def _class(attn: nn.Module, forward: Callable) -> type[nn.Module]:
    """The attention's class with another forward, computed with whatever heads there are."""
    own = type(attn)
    return type(own.__name__, (own,), {"__module__": own.__module__, "forward": forward})

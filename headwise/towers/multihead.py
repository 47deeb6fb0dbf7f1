"""`nn.MultiheadAttention` under live edits: the attention of open_clip's blocks, CoCa's pooler and SigLIP's head.

In: the edits of one row. Out: a forward with torch's own signature and outputs, z' in place of z before the
out-projection. It knows no library but torch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from headwise.edits.operators import Row
from headwise.towers.blocks import join_heads, refuse_masks, split_heads
from headwise.towers.tools import edited_attention

MULTIHEAD_PARTS = (*("in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight", "out_proj"),)


def projections(attn: Any) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The weights of query, key and value, (D, ·) each."""
    if attn.in_proj_weight is None:
        return attn.q_proj_weight, attn.k_proj_weight, attn.v_proj_weight
    return attn.in_proj_weight.chunk(3)


def multihead_live(row: Row) -> Callable:
    """A forward for `nn.MultiheadAttention`'s class, its signature and its two outputs.

    The out-projection is used through its weight, as torch does: it is never called, so its hooks never fire.
    """

    def forward(
        module: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        key_padding_mask: torch.Tensor | None = None,
        need_weights: bool = True,
        attn_mask: torch.Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        refuse_masks(module, (key_padding_mask, attn_mask, is_causal))
        inputs = [query, key, value]
        single = query.dim() == 2
        if single:
            inputs = [t.unsqueeze(0) for t in inputs]  # (1, N, D)
        elif not module.batch_first:
            inputs = [t.transpose(0, 1) for t in inputs]  # (B, N, D)
        bias = module.in_proj_bias
        biases = (None, None, None) if bias is None else bias.chunk(3)
        q, k, v = (
            split_heads(F.linear(t, weight, b), module.num_heads)  # (B, H, ·, d)
            for t, weight, b in zip(inputs, projections(module), biases, strict=True)
        )
        p = module.dropout if module.training else 0.0
        z, weights = edited_attention(q, k, v, row, dropout=p, explicit=need_weights)  # (B, H, Q, d), (B, H, Q, N)
        y = F.linear(join_heads(row.emit(z)), module.out_proj.weight, module.out_proj.bias)  # (B, Q, D)
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)  # (B, Q, N)
        if single:
            return y.squeeze(0), None if weights is None else weights.squeeze(0)
        return (y if module.batch_first else y.transpose(0, 1)), weights

    return forward


def is_multihead(module: nn.Module) -> bool:
    """Whether attention is torch's own, which is called with query, key and value and returns a pair."""
    return isinstance(module, nn.MultiheadAttention)

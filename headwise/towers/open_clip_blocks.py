"""open_clip's own modules: the native ViT, and CoCa's attentional pooler.

In: the library's modules, shared. Out: a `Block` for each row of heads, and the `Tower` of them. Differs from
`blocks.py` in the packed in-projection and in scales and norms around the heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from headwise.edits.heads import Grid
from headwise.edits.operators import BY_SCORES, FOLDABLE, Row
from headwise.errors import HeadwiseError
from headwise.towers.base import Tower
from headwise.towers.blocks import Block, HeadWeights, PoolBlock, join_heads, refuse_masks, split_heads
from headwise.towers.multihead import MULTIHEAD_PARTS, is_multihead, multihead_live, projections
from headwise.towers.tools import active, attention, edited_attention, packed_qkv, refuse_unknown, unhooked

BLOCK_PARTS = ("ln_1", "attn", "ln_attn", "ls_1", "ln_2", "mlp", "ls_2")
ATTENTION_PARTS = (
    *("in_proj_weight", "in_proj_bias", "out_proj", "ln_q", "ln_k", "attn_drop", "head_scale", "ln_inner", "out_drop"),
)


class OpenClipBlock(Block):
    """A `ResidualAttentionBlock` around `nn.MultiheadAttention` or open_clip's own `Attention`.

    Both keep one packed in-projection and an out-projection under the same names. `nn.MultiheadAttention`
    never calls its out-projection as a module, so nothing here relies on hooks.
    """

    def __init__(self, module: Any):
        attn = module.attn
        refuse_unknown(module, BLOCK_PARTS, "open_clip")
        refuse_unknown(attn, ATTENTION_PARTS, "open_clip")
        inner, width = attn.in_proj_weight.shape[0] // 3, attn.in_proj_weight.shape[1]
        normed = active(getattr(attn, "ln_q", None)) is not None
        folds = [letter for letter in FOLDABLE if not (normed and letter in BY_SCORES)]
        super().__init__(module, attn.num_heads, inner // attn.num_heads, width, folds)

    def project(self, x: torch.Tensor, queries: slice | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `Block.project`."""
        attn = self.module.attn
        h = self.module.ln_1(x)  # (B, N, D)
        q, k, v = packed_qkv(h, attn.in_proj_weight, attn.in_proj_bias, self.heads, queries)  # (B, H, ·, d)
        if (norm := active(getattr(attn, "ln_q", None))) is not None:
            q, k = norm(q), attn.ln_k(k)
        return q, k, v

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """See `Block.attention`."""
        attn = self.module.attn
        drop = getattr(attn, "attn_drop", None)
        p = (drop.p if drop is not None else attn.dropout) if attn.training else 0.0
        return attention(q, k, v, dropout=p)

    def settle(self, z: torch.Tensor) -> torch.Tensor:
        """Head scales, and a norm over all heads; see `Block.settle`."""
        return _settled(self.module.attn, z)

    def finish(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Block.finish`."""
        block = self.module
        x = x + self.branch(x, z)  # (B, Q, D)
        return x + block.ls_2(block.mlp(block.ln_2(x)))  # (B, Q, D)

    def branch(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Block.branch`."""
        block, attn = self.module, self.module.attn
        y = attn.out_proj(join_heads(z))  # (B, Q, D)
        for extra in (getattr(attn, "out_drop", None), getattr(block, "ln_attn", None)):
            y = y if extra is None else extra(y)
        return block.ls_1(y)  # (B, Q, D)

    @property
    def site(self) -> nn.Module:
        """The attention; see `Block.site`."""
        return self.module.attn

    def live(self, row: Row) -> Callable:
        """See `Block.live`."""
        if is_multihead(self.module.attn):
            return multihead_live(row)
        alone = returns_alone(self.module.attn, self.width)

        def forward(attn: Any, x: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            refuse_masks(attn, [value for value in (*args, *kwargs.values()) if value is not x])  # k and v may be x
            q, k, v = packed_qkv(x, attn.in_proj_weight, attn.in_proj_bias, attn.num_heads, None)  # (B, H, N, d)
            q, k = attn.ln_q(q), attn.ln_k(k)
            dropout = attn.attn_drop.p if attn.training else 0.0
            z, _ = edited_attention(q, k, v, row, dropout=dropout)  # (B, H, N, d)
            y = attn.out_drop(attn.out_proj(join_heads(row.emit(_settled(attn, z)))))  # (B, N, D)
            return y if alone else (y, *[None] * kwargs.get("need_weights", False))

        return forward

    def weights(self) -> HeadWeights:
        """See `Block.weights`."""
        attn, inner = self.module.attn, self.heads * self.head_dim
        query, key = attn.in_proj_weight[:inner], attn.in_proj_weight[inner : 2 * inner]
        bias = attn.in_proj_bias
        biases = (None, None) if bias is None else (bias[:inner], bias[inner : 2 * inner])
        return HeadWeights(attn.out_proj.weight, attn.out_proj.bias, query, biases[0], key, biases[1])


def _settled(attn: Any, z: torch.Tensor) -> torch.Tensor:
    """What leaves the scales and the norm between attention and out-projection, (B, H, Q, d)."""
    if (scale := getattr(attn, "head_scale", None)) is not None:
        z = z * scale
    if isinstance(norm := getattr(attn, "ln_inner", None), nn.Module):
        z = split_heads(norm(join_heads(z)), attn.num_heads)
    return z


class AttentionalPoolerBlock(PoolBlock):
    """CoCa's `AttentionalPooler`: learned queries, keys and values of another width than the queries."""

    def __init__(self, module: Any, *, before: Callable, read: slice | None):
        refuse_unknown(module, ("query", "attn", "ln_q", "ln_k"), "open_clip")
        refuse_unknown(module.attn, MULTIHEAD_PARTS, "torch")
        latents, width = module.query.shape
        heads = module.attn.num_heads
        super().__init__(
            module, heads, width // heads, width, before=before, latents=latents, read=read, class_token=True
        )

    @property
    def site(self) -> nn.Module:
        """The attention; see `Block.site`."""
        return self.module.attn

    def live(self, row: Row) -> Callable:
        """See `Block.live`."""
        return multihead_live(row)

    def look(self, h: torch.Tensor, read: slice | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `PoolBlock.look`."""
        pooler = self.module
        weights, biases = projections(pooler.attn), pooler.attn.in_proj_bias.chunk(3)
        h = pooler.ln_k(h)  # (B, N, D')
        query = pooler.query if read is None else pooler.query[read]
        query = pooler.ln_q(query).unsqueeze(0).expand(len(h), -1, -1)  # (B, Q, D)
        q, k, v = (
            split_heads(F.linear(source, weight, bias), self.heads)
            for source, weight, bias in zip((query, h, h), weights, biases, strict=True)
        )
        return q, k, v

    def read_out(self, z: torch.Tensor) -> torch.Tensor:
        """See `PoolBlock.read_out`."""
        return self.branch(z, z)

    def branch(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Block.branch`."""
        return self.module.attn.out_proj(join_heads(z))  # (B, Q, D)

    def weights(self) -> HeadWeights:
        """See `Block.weights`."""
        attn = self.module.attn
        query = projections(attn)[0]
        return HeadWeights(attn.out_proj.weight, attn.out_proj.bias, query, attn.in_proj_bias[: self.width])


@torch.no_grad()
def returns_alone(attn: Any, width: int) -> bool:
    """Whether an attention of open_clip's own returns its output alone, or first in a tuple, by version."""
    parameter = attn.in_proj_weight
    x = torch.zeros(1, 1, width, device=parameter.device, dtype=parameter.dtype)  # (1, 1, D)
    return isinstance(type(attn).forward(unhooked(attn), x), torch.Tensor)


# ---- the native ViT


def is_native_vit(visual: Any) -> bool:
    """Whether a module is open_clip's own vision transformer."""
    blocks = getattr(getattr(visual, "transformer", None), "resblocks", None)
    return bool(blocks) and all(hasattr(visual, name) for name in ("conv1", "_embeds", "ln_post", "class_embedding"))


def build_native(parts: nn.ModuleList) -> Tower:
    """The tower of open_clip's own vision transformer.

    Raises:
        HeadwiseError: it returns several vectors of an image, not one embedding.
    """
    visual: Any = parts[0]
    blocks: list[Block] = [OpenClipBlock(block) for block in visual.transformer.resblocks]
    pool_type, pooler = visual.pool_type, visual.attn_pool
    contrastive = getattr(visual, "attn_pool_contrastive", None)
    read = {"tok": slice(0, 1), "avg": slice(1, None)}.get(pool_type)  # rows that pooling reads
    if pooler is not None:
        blocks.append(_pooling_row(visual, pooler, contrastive, read))
    elif pool_type == "none":
        raise HeadwiseError(
            "This open_clip image tower has pool_type 'none': it returns one vector per token, not an embedding. "
            "Headwise needs one vector per image: a model with pool_type 'tok' or 'avg', or an attentional pooler."
        )

    def pool(x: torch.Tensor) -> torch.Tensor:
        if contrastive is None:  # otherwise the norm came before the pooler
            after_pool = pooler is None and visual.final_ln_after_pool
            x = x if after_pool else visual.ln_post(x)  # (B, Q, D)
            x = x.mean(dim=1) if pool_type == "avg" else x[:, 0]  # (B, D)
            x = visual.ln_post(x) if after_pool else x
        else:
            x = x[:, 0]  # (B, D)
        return x if visual.proj is None else x @ visual.proj  # (B, E)

    def encode(images: torch.Tensor) -> torch.Tensor:
        out = visual(images)
        e = out[0] if isinstance(out, tuple) else out  # a tuple where output_tokens is set
        return e[:, 0] if e.dim() == 3 else e  # (B, E)

    names = {"tok": "class token", "avg": "average", "none": "attention"}
    return Tower(
        parts=parts,
        build=_rebuild,
        blocks=tuple(blocks),
        grid=Grid(
            tuple(block.heads for block in blocks if block.tokenwise), blocks[-1].heads if pooler is not None else 0
        ),
        stem=visual._embeds,
        pool=pool,
        encode=encode,
        reads=read if pooler is None else None,
        tokens=visual.positional_embedding.shape[0],
        resolution=visual.image_size[0],
        pooling=("attention, then " if pooler is not None and contrastive is None else "") + names[pool_type],
        class_token=True,
        family="open_clip ViT",
    )


def _pooling_row(visual: Any, pooler: Any, contrastive: Any, read: slice | None) -> Block:
    """The pooler that the embedding comes from (CoCa has a second one for its text decoder)."""
    if contrastive is None:
        if read is None and len(pooler.query) > 1:
            raise HeadwiseError(
                f"This open_clip image tower returns the {len(pooler.query)} vectors of its attentional pooler, not "
                "an embedding (pool_type 'none'). Headwise needs one vector per image: pool_type 'tok' or 'avg'."
            )
        return AttentionalPoolerBlock(pooler, before=nn.Identity(), read=read)
    if visual.attn_pool_type == "cascade":
        return AttentionalPoolerBlock(contrastive, before=lambda x: pooler(visual.ln_post(x)), read=None)
    return AttentionalPoolerBlock(contrastive, before=visual.ln_post, read=None)


def _rebuild(parts: nn.ModuleList) -> Tower:
    for module in parts.modules():  # open_clip's mixed precision keeps these norms in float32
        if type(module).__name__ == "LayerNormFp32":
            module.float()
    return build_native(parts)

"""timm's own modules: the ViT and EVA blocks and the latent attention pooling.

In: the library's modules, shared. Out: a `Block` for each row of heads. Differs from `blocks.py` in rotary positions,
norms of queries, keys and outputs, gates and LayerScale.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from headwise.edits.operators import BY_BIAS, BY_SCORES, FOLDABLE, Row
from headwise.towers.base import rows
from headwise.towers.blocks import Block, HeadWeights, PoolBlock, join_heads, refuse_masks, split_heads
from headwise.towers.tools import active, attention, edited_attention, packed_qkv, refuse_unknown

BLOCK_PARTS = (*("norm1", "attn", "ls1", "gamma_1", "drop_path1", "norm2", "mlp", "ls2", "gamma_2", "drop_path2"),)
ATTENTION_PARTS = (
    *("qkv", "q_proj", "k_proj", "v_proj", "q_bias", "v_bias", "q_norm", "k_norm", "attn_drop"),
    *("norm", "gate", "proj", "proj_drop"),
)
POOL_PARTS = ("latent", "pos_embed", "q", "kv", "q_norm", "k_norm", "proj", "proj_drop", "norm", "mlp")


class TimmBlock(Block):
    """A `Block`, `ResPostBlock`, `EvaBlock` or `EvaBlockPostNorm`.

    Arguments:
        module: the block.
        rope: its rotary position embeddings for the tower's own resolution, (N', ·); None where there are none.
    """

    def __init__(self, module: Any, rope: Callable[[], torch.Tensor] | None = None):
        attn = module.attn
        refuse_unknown(module, BLOCK_PARTS, "timm")
        refuse_unknown(attn, ATTENTION_PARTS, "timm")
        self.rope = rope
        self.post_norm = not hasattr(module, "ls1") and not hasattr(module, "gamma_1")
        folds = set(FOLDABLE)
        if active(attn.q_norm) is not None:
            folds -= {*BY_SCORES}  # what is scaled or copied before a norm is another thing after it
        if getattr(attn, "num_kv_groups", 1) > 1:
            folds -= {"keys", "queries"}  # several heads share a key
        unbiased = attn.qkv is None and attn.k_proj.bias is None
        if rope is not None and (unbiased or (attn.qkv is not None and getattr(attn, "q_bias", None) is not None)):
            folds.discard("queries")  # keys have no bias, and with rotated positions a bias of keys counts
        if attn.proj.bias is None or getattr(attn, "gate", None) is not None:
            folds -= {*BY_BIAS}  # nowhere to put the constant, or it would have to pass the gate
        inner = attn.proj.in_features
        width = (attn.qkv if attn.qkv is not None else attn.q_proj).in_features
        super().__init__(module, attn.num_heads, inner // attn.num_heads, width, folds)

    def project(
        self, x: torch.Tensor, queries: slice | None = None, rope: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q and k after their norms and RoPE; see `Block.project`."""
        attn = self.module.attn
        rope = self.rope() if rope is None and self.rope is not None else rope
        h = self._normed(x)  # (B, N, D)
        prefix = getattr(attn, "num_prefix_tokens", 0)
        # rotation needs each query's position, so only prefix rows can be computed alone
        alone = queries is not None and (rope is None or (queries.stop is not None and queries.stop <= prefix))
        q, k, v = _qkv(attn, h, queries if alone else None)  # (B, H, ·, d)
        q, k = attn.q_norm(q), attn.k_norm(k)
        if rope is not None:
            q, k = (q if alone else _rotate(attn, q, rope)), _rotate(attn, k, rope)
            q, k = q.type_as(v), k.type_as(v)
        if queries is not None and not alone:
            q = q[:, :, queries]  # (B, H, Q, d)
        return q, k, v

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """See `Block.attention`."""
        attn = self.module.attn
        return attention(q, k, v, dropout=attn.attn_drop.p if attn.training else 0.0)

    def settle(self, z: torch.Tensor) -> torch.Tensor:
        """The norm over all heads, where there is one; see `Block.settle`."""
        norm = active(getattr(self.module.attn, "norm", None))
        return z if norm is None else split_heads(norm(join_heads(z)), self.heads)

    def finish(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Norm or gate of the heads, projection, LayerScale, MLP; see `Block.finish`."""
        block = self.module
        x = x + self.branch(x, z)  # (B, Q, D)
        if self.post_norm:
            return x + block.drop_path2(block.norm2(block.mlp(x)))  # (B, Q, D)
        return x + block.drop_path2(self._scale(block.mlp(block.norm2(x)), "ls2", "gamma_2"))  # (B, Q, D)

    def branch(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Block.branch`."""
        block, attn = self.module, self.module.attn
        y = join_heads(z)  # (B, Q, H·d)
        if (gate := getattr(attn, "gate", None)) is not None:
            y = y * gate(self._normed(x)).sigmoid()
        y = attn.proj_drop(attn.proj(y))  # (B, Q, D)
        return block.drop_path1(block.norm1(y) if self.post_norm else self._scale(y, "ls1", "gamma_1"))  # (B, Q, D)

    def weights(self) -> HeadWeights:
        """See `Block.weights`."""
        attn, inner = self.module.attn, self.heads * self.head_dim
        out, bias = attn.proj.weight, attn.proj.bias
        if attn.qkv is None:
            query, key = attn.q_proj, attn.k_proj
            return HeadWeights(out, bias, query.weight, query.bias, key.weight, key.bias)
        query, key = attn.qkv.weight[:inner], attn.qkv.weight[inner : 2 * inner]
        if getattr(attn, "q_bias", None) is not None or attn.qkv.bias is None:
            return HeadWeights(out, bias, query, getattr(attn, "q_bias", None), key)
        return HeadWeights(out, bias, query, attn.qkv.bias[:inner], key, attn.qkv.bias[inner : 2 * inner])

    @property
    def site(self) -> nn.Module:
        """The attention; see `Block.site`."""
        return self.module.attn

    def live(self, row: Row) -> Callable:
        """See `Block.live`."""

        def forward(attn: Any, x: torch.Tensor, *args: Any, rope: torch.Tensor | None = None, **kwargs: Any) -> Any:
            refuse_masks(attn, (*args, *kwargs.values()))
            q, k, v = _qkv(attn, x, None)  # (B, H, N, d)
            q, k = attn.q_norm(q), attn.k_norm(k)
            if rope is not None:  # the caller's: its resolution may be another than the tower's own
                q, k = _rotate(attn, q, rope).type_as(v), _rotate(attn, k, rope).type_as(v)
            dropout = attn.attn_drop.p if attn.training else 0.0
            explicit = not attn.fused_attn  # then the library calls attn_drop on the attention
            z, _ = edited_attention(q, k, v, row, dropout=dropout, drop=attn.attn_drop, explicit=explicit)
            if (norm := getattr(attn, "norm", None)) is not None:
                z = split_heads(norm(join_heads(z)), attn.num_heads)  # (B, H, N, d)
            y = join_heads(row.emit(z))  # (B, N, H·d)
            if (gate := getattr(attn, "gate", None)) is not None:
                y = y * gate(x).sigmoid()
            return attn.proj_drop(attn.proj(y))  # (B, N, D)

        return forward

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.post_norm else self.module.norm1(x)

    def _scale(self, y: torch.Tensor, layer_scale: str, gamma: str) -> torch.Tensor:
        if hasattr(self.module, layer_scale):
            return getattr(self.module, layer_scale)(y)
        vector = getattr(self.module, gamma)
        return y if vector is None else vector * y


def _qkv(attn: Any, h: torch.Tensor, queries: slice | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Query, key and value heads, (B, H, ·, d) each, by the modules that timm calls where it calls them."""
    if attn.qkv is not None:
        separate = getattr(attn, "q_bias", None) is not None  # EVA has no bias for keys: a buffer of zeros
        bias = torch.cat((attn.q_bias, attn.k_bias, attn.v_bias)) if separate else attn.qkv.bias
        if queries is not None or (separate and not getattr(attn, "qkv_bias_separate", False)):
            return packed_qkv(h, attn.qkv.weight, bias, attn.num_heads, queries)
        packed = attn.qkv(h) + bias if separate else attn.qkv(h)  # (B, N, 3·H·d)
        q, k, v = (split_heads(t, attn.num_heads) for t in packed.chunk(3, dim=-1))
        return q, k, v
    q = split_heads(attn.q_proj(rows(h, queries)), attn.num_heads)  # (B, H, Q, d)
    groups = getattr(attn, "num_kv_groups", 1)  # query heads that share a key head
    k, v = (split_heads(proj(h), attn.num_heads // groups) for proj in (attn.k_proj, attn.v_proj))
    return q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)  # (B, H, N, d)


def _rotate(attn: Any, t: torch.Tensor, rope: torch.Tensor) -> torch.Tensor:
    from timm.layers.pos_embed_sincos import apply_rot_embed_cat

    prefix = getattr(attn, "num_prefix_tokens", 0)
    half = {"half": True} if getattr(attn, "rotate_half", False) else {}
    return torch.cat([t[:, :, :prefix], apply_rot_embed_cat(t[:, :, prefix:], rope, **half)], dim=2)


class LatentPool(PoolBlock):
    """`AttentionPoolLatent`: SigLIP's pooling head."""

    def __init__(self, module: Any, *, before: Callable, class_token: bool):
        refuse_unknown(module, POOL_PARTS, "timm")
        width = module.kv.in_features
        folds = set(FOLDABLE)
        if active(module.q_norm) is not None or active(module.q) is None:
            folds -= {*BY_SCORES}
        super().__init__(
            module,
            module.num_heads,
            width // module.num_heads,
            width,
            before=before,
            latents=module.latent.shape[1],
            read=slice(0, 1) if module.pool == "token" else None,
            folds=folds if active(module.proj) is not None else (),
            class_token=class_token,
        )

    def look(self, h: torch.Tensor, read: slice | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q (B, H, Q, d) of the latents, k and v (B, H, N, d) of the tokens h (B, N, D)."""
        pool = self.module
        if pool.pos_embed is not None:
            h = h + pool.pos_embed.unsqueeze(0).to(h.dtype)
        latent = pool.latent if read is None else pool.latent[:, read]
        q = split_heads(pool.q(latent.expand(len(h), -1, -1)), self.heads)  # (B, H, Q, d)
        k, v = (split_heads(t, self.heads) for t in pool.kv(h).chunk(2, dim=-1))  # (B, H, N, d)
        return pool.q_norm(q), pool.k_norm(k), v

    def read_out(self, z: torch.Tensor) -> torch.Tensor:
        """Out-projection and MLP: head outputs (B, H, Q, d) → (B, Q, D)."""
        pool, y = self.module, self.branch(z, z)  # (B, Q, D)
        return y if pool.mlp is None else y + pool.mlp(pool.norm(y))  # (B, Q, D)

    def branch(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Block.branch`."""
        return self.module.proj_drop(self.module.proj(join_heads(z)))  # (B, Q, D)

    def after(self, y: torch.Tensor) -> torch.Tensor:
        """The latents' rows as one, as the module pools them: (B, Q, D) → (B, D)."""
        if self.module.pool == "token":
            return y[:, 0]
        return y.mean(1) if self.module.pool == "avg" else y

    def weights(self) -> HeadWeights:
        """See `Block.weights`."""
        pool = self.module
        query = (pool.q.weight, pool.q.bias) if active(pool.q) is not None else (None, None)
        return HeadWeights(pool.proj.weight, pool.proj.bias, *query)


def reduce_tokens(x: torch.Tensor, how: str) -> torch.Tensor:
    """The rows that pooling reads, (B, Q, D) → (B, D)."""
    if how == "token":
        return x[:, 0]
    if how == "avg":
        return x.mean(dim=1)
    return x.amax(dim=1) if how == "max" else 0.5 * (x.amax(dim=1) + x.mean(dim=1))

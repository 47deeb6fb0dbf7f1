"""timm's own modules: the ViT and EVA blocks and the latent attention pooling."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from headwise.edits.operators import FOLDABLE, OPERATORS
from headwise.towers.base import rows
from headwise.towers.blocks import (
    Block,
    HeadWeights,
    PoolBlock,
    Transform,
    join_heads,
    refuse_tensors,
    split_heads,
)
from headwise.towers.tools import active, attention, packed_qkv, refuse_unknown

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
            folds.discard("uniform")  # a normalised zero query is the norm's bias, not zero
        if attn.proj.bias is None or getattr(attn, "gate", None) is not None:
            folds.discard("mean")  # nowhere to put the constant, or it would have to pass the gate
        # with a norm over all heads before the out-projection, z is what leaves the norm: only what acts on a
        # head's output itself is defined there
        operators = ("zero", "mean", "cls_row") if active(getattr(attn, "norm", None)) else tuple(OPERATORS)
        inner = attn.proj.in_features
        width = (attn.qkv if attn.qkv is not None else attn.q_proj).in_features
        super().__init__(module, attn.num_heads, inner // attn.num_heads, width, folds, operators)

    def attend(
        self, x: torch.Tensor, queries: slice | None = None, rope: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """z and v after q_norm, k_norm and RoPE; see `Block.attend`."""
        attn = self.module.attn
        rope = self.rope() if rope is None and self.rope is not None else rope
        h = self._normed(x)  # (B, N, D)
        prefix = getattr(attn, "num_prefix_tokens", 0)
        # rotation needs each query's position, so only prefix rows can be computed alone
        alone = queries is not None and (rope is None or (queries.stop is not None and queries.stop <= prefix))
        q, k, v = self._qkv(h, queries if alone else None)  # (B, H, ·, d)
        q, k = attn.q_norm(q), attn.k_norm(k)
        if rope is not None:
            q, k = (q if alone else self._rotate(q, rope, prefix)), self._rotate(k, rope, prefix)
            q, k = q.type_as(v), k.type_as(v)
        if queries is not None and not alone:
            q = q[:, :, queries]  # (B, H, Q, d)
        z = attention(q, k, v, dropout=attn.attn_drop.p if attn.training else 0.0)  # (B, H, Q, d)
        if (norm := active(getattr(attn, "norm", None))) is not None:
            z = split_heads(norm(join_heads(z)), self.heads)  # (B, H, Q, d)
        return z, v

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
        if attn.qkv is None:
            query, query_bias = attn.q_proj.weight, attn.q_proj.bias
        else:
            query, query_bias = attn.qkv.weight[:inner], getattr(attn, "q_bias", None)
            if query_bias is None and attn.qkv.bias is not None:
                query_bias = attn.qkv.bias[:inner]
        return HeadWeights(attn.proj.weight, attn.proj.bias, query, query_bias)

    def live(self, transform: Transform) -> Callable:
        """See `Block.live`."""

        def forward(
            module: nn.Module, x: torch.Tensor, *args: object, rope: torch.Tensor | None = None, **kwargs: object
        ) -> torch.Tensor:
            refuse_tensors(module, (*args, *kwargs.values()))
            block = self.on(module)
            z, v = block.attend(x, rope=rope)  # (B, H, N, d) twice; the caller's resolution may be another
            return block.finish(x, transform(z, v))

        return forward

    def _normed(self, x: torch.Tensor) -> torch.Tensor:
        return x if self.post_norm else self.module.norm1(x)

    def _qkv(self, h: torch.Tensor, queries: slice | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        attn = self.module.attn
        if attn.qkv is not None:
            bias = attn.qkv.bias
            if getattr(attn, "q_bias", None) is not None:  # EVA has no bias for keys: a buffer of zeros
                bias = torch.cat((attn.q_bias, attn.k_bias, attn.v_bias))
            return packed_qkv(h, attn.qkv.weight, bias, self.heads, queries)
        q = split_heads(attn.q_proj(rows(h, queries)), self.heads)  # (B, H, Q, d)
        groups = getattr(attn, "num_kv_groups", 1)  # query heads that share a key head
        k, v = (split_heads(proj(h), self.heads // groups) for proj in (attn.k_proj, attn.v_proj))
        return q, k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)  # (B, H, N, d)

    def _rotate(self, t: torch.Tensor, rope: torch.Tensor, prefix: int) -> torch.Tensor:
        from timm.layers.pos_embed_sincos import apply_rot_embed_cat

        half = {"half": True} if getattr(self.module.attn, "rotate_half", False) else {}
        return torch.cat([t[:, :, :prefix], apply_rot_embed_cat(t[:, :, prefix:], rope, **half)], dim=2)

    def _scale(self, y: torch.Tensor, layer_scale: str, gamma: str) -> torch.Tensor:
        if hasattr(self.module, layer_scale):
            return getattr(self.module, layer_scale)(y)
        vector = getattr(self.module, gamma)
        return y if vector is None else vector * y


class LatentPool(PoolBlock):
    """`AttentionPoolLatent`: SigLIP's pooling head."""

    def __init__(self, module: Any, *, before: Callable, class_token: bool):
        refuse_unknown(module, POOL_PARTS, "timm")
        width = module.kv.in_features
        folds = set(FOLDABLE)
        if active(module.q_norm) is not None or active(module.q) is None:
            folds.discard("uniform")
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

    def look(self, h: torch.Tensor, read: slice | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Head outputs z (B, H, Q, d) for the latents and values v (B, H, N, d) from the tokens h (B, N, D)."""
        pool = self.module
        if pool.pos_embed is not None:
            h = h + pool.pos_embed.unsqueeze(0).to(h.dtype)
        latent = pool.latent if read is None else pool.latent[:, read]
        q = split_heads(pool.q(latent.expand(len(h), -1, -1)), self.heads)  # (B, H, Q, d)
        k, v = (split_heads(t, self.heads) for t in pool.kv(h).chunk(2, dim=-1))  # (B, H, N, d)
        return attention(pool.q_norm(q), pool.k_norm(k), v), v

    def project(self, z: torch.Tensor) -> torch.Tensor:
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

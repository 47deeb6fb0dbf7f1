"""Attention pooling on top of a CNN: the only heads that a ModifiedResNet or a ConvNeXt tower has.

In: the library's modules, shared. Out: a tower with one row of heads, whose one query is the mean of the feature map.
The CNN below runs as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from headwise.edits.heads import Grid
from headwise.edits.operators import FOLDABLE, Row
from headwise.towers.base import Tower
from headwise.towers.blocks import HeadWeights, PoolBlock, join_heads, split_heads
from headwise.towers.tools import attention, packed_qkv


class Pool2dBlock(PoolBlock):
    """open_clip's `AttentionPool2d`, or timm's `AttentionPool2d` and `RotAttentionPool2d`.

    The one query that is read is the mean of the feature map, so it depends on the image.
    """

    def __init__(self, module: Any):
        out = _out(module)
        width = out.in_features
        heads = module.num_heads
        folds = FOLDABLE if isinstance(out, nn.Linear) else ()
        super().__init__(
            module, heads, width // heads, width, before=nn.Identity(), latents=1, read=slice(0, 1), folds=folds
        )

    def tokens(self, features: torch.Tensor) -> torch.Tensor:
        """Feature map (B, C, h, w) → the mean, then every position, (B, 1 + h·w, C), with learned positions."""
        x = features.flatten(2).mT  # (B, h·w, C)
        first = getattr(self.module, "cls_token", None)
        first = x.mean(dim=1, keepdim=True) if first is None else first.expand(len(x), -1, -1)
        x = torch.cat([first, x], dim=1)  # (B, 1 + h·w, C)
        for name in ("positional_embedding", "pos_embed"):
            if isinstance(table := getattr(self.module, name, None), torch.Tensor):
                x = x + table.unsqueeze(0).to(x.dtype)
        return x

    def look(self, h: torch.Tensor, read: slice | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `PoolBlock.look`."""
        pool = self.module
        if getattr(pool, "qkv", None) is not None:
            q, k, v = packed_qkv(h, pool.qkv.weight, pool.qkv.bias, self.heads, slice(0, 1))
        else:
            query, key, value = self._separate()
            q, k, v = (split_heads(p(t), self.heads) for p, t in ((query, h[:, :1]), (key, h), (value, h)))
        rotary = getattr(pool, "pos_embed", None)
        if isinstance(rotary, nn.Module):  # the query is the mean, which has no position
            side = round((k.shape[2] - 1) ** 0.5)
            k = self._rotate(k, rotary, (side, side)).type_as(v)
        return q, k, v  # (B, H, 1, d), (B, H, N, d) twice

    def read_out(self, z: torch.Tensor) -> torch.Tensor:
        """See `PoolBlock.read_out`."""
        return self.branch(z, z)

    def branch(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Block.branch`."""
        return _out(self.module)(join_heads(z))  # (B, 1, E)

    def weights(self) -> HeadWeights:
        """See `Block.weights`."""
        pool, out = self.module, _out(self.module)
        if getattr(pool, "qkv", None) is None:
            query = self._separate()[0]
            return HeadWeights(out.weight, out.bias, query.weight, query.bias)
        bias = None if pool.qkv.bias is None else pool.qkv.bias[: self.width]
        return HeadWeights(out.weight, out.bias, pool.qkv.weight[: self.width], bias)

    def live(self, row: Row) -> Callable:
        """See `Block.live`."""
        if hasattr(self.module, "c_proj"):
            return self._open_clip_live(row)

        def forward(pool: Any, features: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
            block = self.on(pool)
            h = block.tokens(features)  # (B, N, C)
            if getattr(pool, "qkv", None) is not None:
                projected = pool.qkv(h).chunk(3, dim=-1)
            else:
                projected = [project(h) for project in block._separate()]
            q, k, v = (split_heads(t, block.heads) for t in projected)  # (B, H, N, d)
            if isinstance(rotary := getattr(pool, "pos_embed", None), nn.Module):
                height, width = features.shape[-2:]
                q, k = (block._rotate(t, rotary, (height, width)).type_as(v) for t in (q, k))
            z = block.edited(row, attention(q, k, v), q, k, v)  # (B, H, N, d): as there, every position is a query
            y = pool.drop(join_heads(z))
            return pool._pool(y if pre_logits else pool.proj(y), *features.shape[-2:])  # (B, E)

        return forward

    def _open_clip_live(self, row: Row) -> Callable:
        def forward(pool: Any, features: torch.Tensor) -> torch.Tensor:
            block = self.on(pool)
            h = block.tokens(features)  # (B, N, C)
            q, k, v = (
                split_heads(F.linear(t, project.weight, project.bias), block.heads)  # (B, H, ·, d); never called there
                for project, t in zip(block._separate(), (h[:, :1], h, h), strict=True)
            )
            z = block.edited(row, attention(q, k, v), q, k, v)  # (B, H, 1, d)
            return F.linear(join_heads(z), pool.c_proj.weight, pool.c_proj.bias)[:, 0]  # (B, E)

        return forward

    def _separate(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        pool = self.module
        return (pool.q_proj, pool.k_proj, pool.v_proj) if hasattr(pool, "q_proj") else (pool.q, pool.k, pool.v)

    def _rotate(self, k: torch.Tensor, rotary: Any, shape: tuple[int, int]) -> torch.Tensor:
        from timm.layers.pos_embed_sincos import apply_rot_embed_cat

        rope = rotary.get_embed(shape)
        rope = torch.cat(rope, dim=-1) if isinstance(rope, tuple) else rope
        half = {"half": True} if getattr(self.module, "rotate_half", False) else {}
        return torch.cat([k[:, :, :1], apply_rot_embed_cat(k[:, :, 1:], rope, **half)], dim=2)


def _out(module: Any) -> nn.Linear:
    return module.c_proj if hasattr(module, "c_proj") else module.proj


def is_pool2d(module: Any) -> bool:
    """Whether a module is timm's attention pooling of a feature map."""
    return hasattr(module, "num_heads") and hasattr(module, "proj") and hasattr(module, "pos_embed")


def build_resnet(parts: nn.ModuleList) -> Tower:
    """open_clip's ModifiedResNet."""
    visual: Any = parts[0]

    def features(images: torch.Tensor) -> torch.Tensor:
        x = visual.stem(images)
        for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
            x = layer(x)
        return x  # (B, C, h, w)

    size = visual.image_size[0] if isinstance(visual.image_size, tuple) else visual.image_size
    family = "open_clip ModifiedResNet"
    return _tower(parts, build_resnet, visual.attnpool, features, nn.Identity(), visual, size, family)


def build_trunk_pool(parts: nn.ModuleList) -> Tower:
    """open_clip's `TimmModel` with an attention pool on a CNN trunk."""
    visual: Any = parts[0]
    family = f"open_clip with timm {type(visual.trunk).__name__}"
    return _tower(
        parts, build_trunk_pool, visual.head.pool, visual.trunk, visual.head[1:], visual, visual.image_size[0], family
    )


def build_trunk_head(parts: nn.ModuleList) -> Tower:
    """A timm CNN whose head is an attention pool."""
    trunk: Any = parts[0]
    size = trunk.pretrained_cfg["input_size"][-1]
    family = f"timm {type(trunk).__name__}"
    return _tower(parts, build_trunk_head, trunk.head, trunk.forward_features, nn.Identity(), trunk, size, family)


def _tower(parts, build, pool, features, head, encode, size: int, family: str) -> Tower:
    block = Pool2dBlock(pool)
    grid_tokens = getattr(pool, "seq_len", None) or (size // 32) ** 2
    return Tower(
        parts=parts,
        build=build,
        blocks=(block,),
        grid=Grid((), block.heads),
        stem=lambda images: block.tokens(features(images)),
        pool=lambda x: head(x[:, 0]),
        encode=encode,
        reads=None,
        tokens=grid_tokens + 1,
        resolution=size,
        pooling="attention",
        class_token=False,
        family=family,
    )

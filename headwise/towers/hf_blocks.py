"""transformers' own modules: the CLIP-like towers, and SigLIP's with its attention-pooling head.

In: the library's modules, shared. Out: a `Block` for each row of heads, and the `Tower` of them. Differs from
`blocks.py` in how a layer names its projections and where its norms are.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from headwise.edits.heads import Grid
from headwise.edits.operators import Row
from headwise.errors import HeadwiseError
from headwise.towers.base import Tower, rows
from headwise.towers.blocks import Block, HeadWeights, PoolBlock, join_heads, refuse_masks, split_heads
from headwise.towers.multihead import MULTIHEAD_PARTS, multihead_live
from headwise.towers.tools import attention, edited_attention, refuse_unknown


class ClipBlock(Block):
    """A `CLIPEncoderLayer`; those of SigLIP, Chinese-CLIP, AltCLIP and MetaCLIP 2 have the same parts."""

    def __init__(self, layer: Any):
        attn = layer.self_attn
        refuse_unknown(layer, ("self_attn", "layer_norm1", "layer_norm2", "mlp"), "transformers")
        refuse_unknown(attn, ("q_proj", "k_proj", "v_proj", "out_proj"), "transformers")
        super().__init__(layer, attn.num_heads, attn.q_proj.out_features // attn.num_heads, attn.q_proj.in_features)

    def project(self, x: torch.Tensor, queries: slice | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `Block.project`."""
        attn = self.module.self_attn
        h = self.module.layer_norm1(x)  # (B, N, D)
        q = split_heads(attn.q_proj(rows(h, queries)), self.heads)  # (B, H, Q, d)
        k = split_heads(attn.k_proj(h), self.heads)  # (B, H, N, d)
        v = split_heads(attn.v_proj(h), self.heads)  # (B, H, N, d)
        return q, k, v

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """See `Block.attention`."""
        attn = self.module.self_attn
        return attention(q, k, v, scale=attn.scale, dropout=attn.dropout if attn.training else 0.0)

    def finish(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Block.finish`."""
        layer = self.module
        x = x + self.branch(x, z)  # (B, Q, D)
        return x + layer.mlp(layer.layer_norm2(x))  # (B, Q, D)

    @property
    def site(self) -> nn.Module:
        """The attention; see `Block.site`."""
        return self.module.self_attn

    def live(self, row: Row) -> Callable:
        """See `Block.live`."""
        from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

        def forward(
            attn: Any, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor | None]:
            refuse_masks(attn, (attention_mask,))
            q, k, v = (
                split_heads(project(hidden_states), attn.num_heads)  # (B, H, N, d)
                for project in (attn.q_proj, attn.k_proj, attn.v_proj)
            )
            dropout = attn.dropout if attn.training else 0.0
            kernel = ALL_ATTENTION_FUNCTIONS.get(attn.config._attn_implementation)
            if kernel is None:  # "eager", the one that every model has of its own and that returns its attention
                z, weights = edited_attention(q, k, v, row, scale=attn.scale, dropout=dropout, explicit=True)
            else:

                def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
                    return attention(q, k, v, scale=attn.scale, dropout=dropout)  # (B, n, N, d)

                z, weights = kernel(attn, q, k, v, None, scaling=attn.scale, dropout=dropout, **kwargs)
                z = row.attend(z.transpose(1, 2), q, k, v, attend)  # (B, H, N, d)
                if weights is not None and weights.dim() == 4:  # (B, H, N, N); flex attention gives its normaliser
                    weights = row.shown(row.attention(weights, q, k, attn.scale))
            return attn.out_proj(join_heads(row.emit(z))), weights

        return forward

    def branch(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Block.branch`."""
        return self.module.self_attn.out_proj(join_heads(z))  # (B, Q, D)

    def weights(self) -> HeadWeights:
        """See `Block.weights`."""
        attn = self.module.self_attn
        query, key = attn.q_proj, attn.k_proj
        return HeadWeights(attn.out_proj.weight, attn.out_proj.bias, query.weight, query.bias, key.weight, key.bias)


class SiglipPool(PoolBlock):
    """`SiglipMultiheadAttentionPoolingHead`: one learned query, then an MLP."""

    def __init__(self, head: Any, norm: Any):
        refuse_unknown(head, ("probe", "attention", "layernorm", "mlp"), "transformers")
        refuse_unknown(head.attention, MULTIHEAD_PARTS, "torch")
        heads, width = head.attention.num_heads, head.attention.embed_dim
        super().__init__(head, heads, width // heads, width, before=norm, latents=1)

    def look(self, h: torch.Tensor, read: slice | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `PoolBlock.look`."""
        attn, width = self.module.attention, self.width
        weight, bias = attn.in_proj_weight, attn.in_proj_bias
        q = F.linear(self.module.probe.expand(len(h), -1, -1), weight[:width], bias[:width])  # (B, 1, D)
        k, v = F.linear(h, weight[width:], bias[width:]).chunk(2, dim=-1)  # (B, N, D) each
        return split_heads(q, self.heads), split_heads(k, self.heads), split_heads(v, self.heads)

    def read_out(self, z: torch.Tensor) -> torch.Tensor:
        """See `PoolBlock.read_out`."""
        y = self.branch(z, z)  # (B, 1, D)
        return y + self.module.mlp(self.module.layernorm(y))  # (B, 1, D)

    def branch(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Block.branch`."""
        return self.module.attention.out_proj(join_heads(z))  # (B, 1, D)

    def after(self, y: torch.Tensor) -> torch.Tensor:
        """See `PoolBlock.after`."""
        return y[:, 0]

    @property
    def site(self) -> nn.Module:
        """The attention; see `Block.site`."""
        return self.module.attention

    def live(self, row: Row) -> Callable:
        """See `Block.live`."""
        return multihead_live(row)

    def weights(self) -> HeadWeights:
        """See `Block.weights`."""
        attn, width = self.module.attention, self.width
        return HeadWeights(
            attn.out_proj.weight, attn.out_proj.bias, attn.in_proj_weight[:width], attn.in_proj_bias[:width]
        )


def vision_of(module: Any) -> Any:
    """The vision transformer in a model, or the module itself where it is one."""
    vision = getattr(module, "vision_model", module)
    return getattr(vision, "vision_model", vision)  # one level deeper before transformers 5.6


def has_layers(vision: Any) -> bool:
    """Whether a vision model has an encoder of CLIP's kind of layers, and a last norm."""
    layers = getattr(getattr(vision, "encoder", None), "layers", None)
    needed = ("self_attn", "layer_norm1", "layer_norm2", "mlp")
    return bool(layers) and all(hasattr(layers[0], name) for name in needed) and hasattr(vision, "post_layernorm")


def is_clip(module: Any) -> bool:
    """Whether a module is built as the vision tower of CLIP is."""
    vision = vision_of(module)
    return hasattr(module, "visual_projection") and has_layers(vision) and hasattr(vision, "pre_layrnorm")


def is_siglip(module: Any) -> bool:
    """Whether a module is built as the vision tower of SigLIP is."""
    vision = vision_of(module)
    return has_layers(vision) and not hasattr(vision, "pre_layrnorm") and hasattr(vision.embeddings, "patch_embedding")


def build_clip(parts: nn.ModuleList) -> Tower:
    """The tower of a CLIP-like vision model."""
    outer: Any = parts[0]
    projection: Any = parts[1]
    vision = vision_of(outer)
    blocks = tuple(ClipBlock(layer) for layer in vision.encoder.layers)

    def stem(images: torch.Tensor) -> torch.Tensor:
        return vision.pre_layrnorm(vision.embeddings(images))  # (B, N, D)

    def pool(x: torch.Tensor) -> torch.Tensor:
        return projection(vision.post_layernorm(x[:, 0]))  # (B, E)

    def encode(images: torch.Tensor) -> torch.Tensor:
        return projection(outer(pixel_values=images).pooler_output)  # (B, E)

    return Tower(
        parts=parts,
        build=build_clip,
        blocks=blocks,
        grid=Grid(tuple(block.heads for block in blocks)),
        stem=stem,
        pool=pool,
        encode=encode,
        reads=slice(0, 1),
        tokens=vision.embeddings.num_positions,
        resolution=vision.embeddings.image_size,
        pooling="class token",
        class_token=True,
        family=f"Hugging Face {_family(vision)}",
    )


def build_siglip(parts: nn.ModuleList) -> Tower:
    """The tower of a SigLIP-like vision model.

    Raises:
        HeadwiseError: a model of images of any shape (NaFlex), or one without a pooling head.
    """
    outer: Any = parts[0]
    vision = vision_of(outer)
    if not isinstance(vision.embeddings.patch_embedding, nn.Conv2d):
        raise HeadwiseError(
            f"{type(outer).__name__} takes images of any shape (NaFlex), which headwise does not support. Use a "
            "SigLIP 2 checkpoint of fixed resolution, such as hf:google/siglip2-base-patch16-224."
        )
    if not hasattr(vision, "head"):
        raise HeadwiseError(
            f"{type(outer).__name__} has no attention-pooling head (vision_use_head is false), so it makes no "
            "image embedding. Use the complete model."
        )
    layers = tuple(ClipBlock(layer) for layer in vision.encoder.layers)
    head = SiglipPool(vision.head, vision.post_layernorm)

    def encode(images: torch.Tensor) -> torch.Tensor:
        return outer(pixel_values=images).pooler_output  # (B, E)

    return Tower(
        parts=parts,
        build=build_siglip,
        blocks=(*layers, head),
        grid=Grid(tuple(block.heads for block in layers), head.heads),
        stem=vision.embeddings,
        pool=lambda x: x[:, 0],
        encode=encode,
        reads=None,
        tokens=vision.embeddings.num_positions,
        resolution=vision.embeddings.image_size,
        pooling="attention",
        class_token=False,
        family=f"Hugging Face {_family(vision)}",
    )


def _family(vision: Any) -> str:
    name = type(vision).__name__
    for ending in ("VisionTransformer", "VisionModel"):
        name = name.removesuffix(ending)
    return name

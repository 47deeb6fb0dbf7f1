"""The demo CLIP: its configuration, a lean training forward over its parameters, and its export."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from tokenizer import CONTEXT
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

IMAGE, PATCH = 64, 8


def new_model(tokenizer: CLIPTokenizer) -> CLIPModel:
    """A randomly initialised CLIP of about 5.6 million parameters (width 192, 6 layers of 6 heads)."""
    width = {"hidden_size": 192, "intermediate_size": 768, "num_attention_heads": 6, "hidden_act": "gelu"}
    ids = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        text_config=width
        | ids
        | {"vocab_size": len(tokenizer), "num_hidden_layers": 4, "max_position_embeddings": CONTEXT,
           "projection_dim": 192},
        vision_config=width
        | {"image_size": IMAGE, "patch_size": PATCH, "num_hidden_layers": 6, "projection_dim": 192},
        projection_dim=192,
    )  # fmt: skip
    model = CLIPModel(config)
    _start_image_tower(model)
    return model


@torch.no_grad()
def _start_image_tower(model: CLIPModel) -> None:
    """Give the image tower a start from which a small run learns.

    Positions start as two-dimensional sine waves as large as the patches' content: with the library's
    tiny random ones the tower is blind to place for the first thousand steps, and a line drawing is
    nothing but places. Attention starts as in "Mimetic initialization of self-attention layers"
    (Trockman and Kolter, 2023): queries meet keys like themselves, values and output nearly cancel.
    """
    tower: Any = model.vision_model
    width, side = tower.config.hidden_size, IMAGE // PATCH
    wave = 1 / 100 ** (torch.arange(width // 4) / (width // 4))  # (D/4,)
    angle = torch.arange(side)[:, None] * wave * (torch.pi / 4)  # (side, D/4)
    one = torch.cat((angle.sin(), angle.cos()), 1)  # (side, D/2)
    grid = torch.cat((one[:, None].expand(-1, side, -1), one[None].expand(side, -1, -1)), 2)
    position = tower.embeddings.position_embedding.weight
    position[1:] = 0.5 * (grid - grid.mean((0, 1))).flatten(0, 1)
    for layer in tower.encoder.layers:
        a, d = layer.self_attn, layer.self_attn.head_dim
        eye = torch.eye(width)
        for h in range(a.num_heads):
            u, s, v = torch.linalg.svd(0.7 * torch.randn(width, width) / width**0.5 + 0.7 * eye)
            a.q_proj.weight[h * d : (h + 1) * d] = (u[:, :d] * s[:d].sqrt()).T
            a.k_proj.weight[h * d : (h + 1) * d] = v[:d] * s[:d, None].sqrt()
        u, s, v = torch.linalg.svd(0.4 * torch.randn(width, width) / width**0.5 - 0.4 * eye)
        a.out_proj.weight.copy_(u * s.sqrt())
        a.v_proj.weight.copy_(v * s[:, None].sqrt())


def _block(layer: Any, x: Tensor, bias: Tensor | None, rows: Tensor | None = None) -> Tensor:
    """One pre-norm transformer block.

    Arguments:
        layer: a CLIPEncoderLayer.
        x: tokens (B, N, D).
        bias: added to the attention scores, broadcast over (B, H, Q, N).
        rows: the one token of each sequence (B,) that is wanted, as in a last block; None wants all.
    Returns:
        (B, N, D), or (B, 1, D) with rows.
    """
    b, n, d = x.shape
    a = layer.self_attn
    h = layer.layer_norm1(x)
    if rows is not None:
        each = torch.arange(b)
        x, asking = x[each, rows, None], h[each, rows, None]  # (B, 1, D)
    else:
        asking = h
    q = F.linear(asking, a.q_proj.weight * a.scale, a.q_proj.bias * a.scale)  # (B, Q, D)
    kv = F.linear(h, torch.cat((a.k_proj.weight, a.v_proj.weight)), torch.cat((a.k_proj.bias, a.v_proj.bias)))
    q = q.view(b, -1, a.num_heads, a.head_dim).transpose(1, 2)  # (B, H, Q, d)
    k, v = kv.view(b, n, 2, a.num_heads, a.head_dim).permute(2, 0, 3, 1, 4)  # each (B, H, N, d)
    scores = q @ k.transpose(-1, -2)  # (B, H, Q, N); plain products beat the fused kernel for N < 70
    if bias is not None:
        scores = scores + bias
    z = (scores.softmax(-1) @ v).transpose(1, 2).reshape(b, -1, d)
    x = x + a.out_proj(z)
    return x + layer.mlp(layer.layer_norm2(x))


def image_features(model: CLIPModel, pixels: Tensor, keep: int | None = None) -> Tensor:
    """The class token after the last norm, before the projection; optionally from a part of the patches.

    Arguments:
        model: the CLIP model whose parameters are used.
        pixels: normalised images (B, 3, 64, 64).
        keep: patches kept per image; None keeps all 64. Patches with something drawn on them are four
            times as likely to be kept as blank ones, which carry little but their position.
    Returns:
        Features (B, 192).
    """
    tower: Any = model.vision_model
    emb = tower.embeddings
    p = pixels.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)  # (B, 3, 8, 8, P, P)
    p = p.permute(0, 2, 3, 1, 4, 5).flatten(1, 2).flatten(2)  # (B, 64, 3PP)
    pos = emb.position_embedding.weight  # (65, D)
    weight = emb.patch_embedding.weight.flatten(1)  # (D, 3PP)
    if keep is None or keep >= p.shape[1]:
        x = F.linear(p, weight) + pos[1:]
    else:
        drawn = (p.amax(2) - p.amin(2) > 0.2).float()  # (B, 64)
        gumbel = -torch.log(-torch.log(torch.rand_like(drawn).clamp(1e-9, 1 - 1e-7)))
        index = (gumbel + drawn * 1.386).topk(keep, dim=1).indices  # (B, keep)
        kept = p.gather(1, index[..., None].expand(-1, -1, p.shape[2]))
        x = F.linear(kept, weight) + pos[1:][index]  # (B, keep, D)
    cls = (emb.class_embedding + pos[0]).expand(x.shape[0], 1, -1)
    x = tower.pre_layrnorm(torch.cat((cls, x), 1))
    *layers, last = tower.encoder.layers
    for layer in layers:
        x = _block(layer, x, None)
    x = _block(last, x, None, torch.zeros(len(x), dtype=torch.long))
    return tower.post_layernorm(x[:, 0])


def encode_images(model: CLIPModel, pixels: Tensor) -> Tensor:
    """Unit-length image embeddings (B, 192) of normalised images (B, 3, 64, 64)."""
    return F.normalize(model.visual_projection(image_features(model, pixels)), dim=-1)


def encode_texts(model: CLIPModel, ids: Tensor, chunk: int = 64) -> Tensor:
    """Unit-length text embeddings (B, 192) of padded token ids (B, L), pooled at the first end token.

    Texts of like length go through the tower together, so that one long text costs its own chunk only.
    """
    tower: Any = model.text_model
    config: Any = model.config
    end = (ids == config.text_config.eos_token_id).int().argmax(1)  # (B,)
    order = end.argsort()
    *layers, last = tower.encoder.layers
    out = []
    for part in order.split(chunk):
        n = int(end[part].max()) + 1
        x = tower.embeddings.token_embedding(ids[part, :n]) + tower.embeddings.position_embedding.weight[:n]
        causal = torch.full((n, n), float("-inf")).triu(1)
        for layer in layers:
            x = _block(layer, x, causal)
        x = _block(last, x, causal[end[part]][:, None, None], end[part])  # (b, 1, D)
        out.append(tower.final_layer_norm(x[:, 0]))
    pooled = torch.cat(out)[order.argsort()]
    return F.normalize(model.text_projection(pooled), dim=-1)

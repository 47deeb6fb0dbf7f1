"""Hugging Face CLIP: `CLIPModel` and `CLIPVisionModelWithProjection`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from headwise.errors import HeadwiseError
from headwise.mask import Grid
from headwise.towers.base import Block, HeadWeights, Model, Tower, join_heads, rows, split_heads, weights_hash

TEXT_BATCH = 256


class ClipBlock(Block):
    """A `CLIPEncoderLayer` (also the layer of the other CLIP-like towers in transformers)."""

    def __init__(self, layer: nn.Module):
        attn = layer.self_attn
        width = attn.q_proj.in_features
        super().__init__(layer, attn.num_heads, attn.q_proj.out_features // attn.num_heads, width)

    def attend(self, x: torch.Tensor, queries: slice | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        attn = self.module.self_attn
        h = self.module.layer_norm1(x)  # (B, N, D)
        q = split_heads(attn.q_proj(rows(h, queries)), self.heads)  # (B, H, Q, d)
        k = split_heads(attn.k_proj(h), self.heads)  # (B, H, N, d)
        v = split_heads(attn.v_proj(h), self.heads)  # (B, H, N, d)
        return F.scaled_dot_product_attention(q, k, v, scale=attn.scale), v

    def finish(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        layer = self.module
        x = x + layer.self_attn.out_proj(join_heads(z))  # (B, Q, D)
        return x + layer.mlp(layer.layer_norm2(x))  # (B, Q, D)

    def weights(self) -> HeadWeights:
        attn = self.module.self_attn
        return HeadWeights(attn.out_proj.weight, attn.out_proj.bias, attn.q_proj.weight, attn.q_proj.bias)


def recognises(module: nn.Module) -> bool:
    vision = getattr(module, "vision_model", None)
    return hasattr(module, "visual_projection") and _has_clip_layers(getattr(vision, "vision_model", vision))


def _has_clip_layers(vision: nn.Module | None) -> bool:
    layers = getattr(getattr(vision, "encoder", None), "layers", None)
    needed = ("self_attn", "layer_norm1", "layer_norm2", "mlp")
    return bool(layers) and all(hasattr(layers[0], name) for name in needed) and hasattr(vision, "pre_layrnorm")


def tower_of(module: nn.Module) -> Tower:
    """The image tower of a `CLIPModel` or a `CLIPVisionModelWithProjection` (parameters are shared)."""
    return build_clip(nn.ModuleList([module.vision_model, module.visual_projection]))


def build_clip(parts: nn.ModuleList) -> Tower:
    outer, projection = parts
    vision = getattr(outer, "vision_model", outer)  # one level deeper before transformers 5.6
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
        family="Hugging Face CLIP",
    )


# ---- loading by name


def load(reference: str, *, device: str = "cpu") -> Model:
    """A model by hub id or local folder, weights in float32.

    Arguments:
        reference: `openai/clip-vit-base-patch32` or a folder that `save_pretrained` wrote.
        device: where to put it.

    Raises:
        HeadwiseError: no such model, files missing or broken, or not a CLIP.
    """
    from transformers import AutoConfig, AutoProcessor, CLIPModel, CLIPVisionModelWithProjection

    name = f"hf:{reference}"
    config = _from_pretrained(AutoConfig.from_pretrained, reference, "config.json")
    classes = {"clip": CLIPModel, "clip_vision_model": CLIPVisionModelWithProjection}
    if config.model_type not in classes:
        raise HeadwiseError(
            f"{name} is a '{config.model_type}' model, not one of: {', '.join(classes)}. "
            "`headwise models` lists the families that are supported."
        )
    module, info = _from_pretrained(
        partial(classes[config.model_type].from_pretrained, dtype=torch.float32, output_loading_info=True),
        reference,
        "weights",
    )
    if missing := sorted(info["missing_keys"]):
        raise HeadwiseError(
            f"{name}: the weights lack {len(missing)} parameters that the model needs, the first is {missing[0]}. "
            "transformers would fill them with random numbers; get a complete checkpoint."
        )
    processor = _from_pretrained(AutoProcessor.from_pretrained, reference, "preprocessor_config.json and tokenizer")
    return wrap(module.to(device), processor, name=name)


def _from_pretrained(call, reference: str, what: str):
    try:
        return call(reference)
    except Exception as error:  # transformers raises many kinds, also for a truncated file
        where = "the folder" if Path(reference).exists() else "the hub (or the local cache)"
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise HeadwiseError(
            f"Cannot read the {what} of hf:{reference} from {where}: {first_line}\n"
            "Give a hub id such as hf:openai/clip-vit-base-patch32, or a folder that save_pretrained wrote "
            "(config.json, model.safetensors, preprocessor_config.json, tokenizer files)."
        ) from error


def wrap(module: nn.Module, processor, *, name: str = "") -> Model:
    """A headwise model from a transformers model and its processor, in place, nothing copied.

    Arguments:
        module: `CLIPModel` or `CLIPVisionModelWithProjection`.
        processor: `CLIPProcessor`, or an image processor alone for a model without text tower.
        name: what to call it in reports.
    """
    module.eval()
    image_processor = getattr(processor, "image_processor", processor)
    has_text = hasattr(module, "get_text_features")

    def save(folder: Path) -> None:
        module.save_pretrained(folder)
        processor.save_pretrained(folder)

    spec = image_processor.to_dict()
    plain = bool(spec.get("do_rescale", True) and spec.get("do_normalize", True))
    return Model(
        name=name or f"hf:{getattr(module.config, '_name_or_path', '') or type(module).__name__}",
        tower=tower_of(module),
        module=module,
        preprocess=partial(_preprocess, image_processor),
        preprocess_spec={"class": type(image_processor).__name__, **_jsonable(spec)},
        pixel_mean=tuple(spec["image_mean"]) if plain else None,
        pixel_std=tuple(spec["image_std"]) if plain else None,
        encode_texts=partial(_encode_texts, module, processor.tokenizer) if has_text else None,
        text_hash=weights_hash(nn.ModuleList([module.text_model, module.text_projection])) if has_text else "",
        logit_scale=float(module.logit_scale.exp()) if has_text else 100.0,
        save=save,
    )


def _jsonable(spec: dict) -> dict:
    return {key: value for key, value in spec.items() if isinstance(value, str | int | float | bool | list | dict)}


def _preprocess(image_processor, image) -> torch.Tensor:
    return image_processor(images=[image], return_tensors="pt")["pixel_values"][0]  # (3, R, R)


@torch.inference_mode()
def _encode_texts(module: nn.Module, tokenizer, texts: Sequence[str]) -> torch.Tensor:
    limit = min(tokenizer.model_max_length, module.config.text_config.max_position_embeddings)
    device = module.text_projection.weight.device
    out = []
    for start in range(0, len(texts), TEXT_BATCH):
        batch = list(texts[start : start + TEXT_BATCH])
        tokens = tokenizer(batch, padding=True, truncation=True, max_length=limit, return_tensors="pt").to(device)
        features = module.get_text_features(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"])
        out.append(getattr(features, "pooler_output", features).float())  # (T, E)
    return torch.cat(out)

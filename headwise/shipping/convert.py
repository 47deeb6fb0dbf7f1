"""A CLIP of transformers as a CLIP of open_clip, and the other way round: the same numbers under other names.

In: a model (folded) of one library and its processor. Out: the other library's folder. Whether it computes the same is found
out by whoever asks: activation, epsilon, preprocessing and tokenizer are told as far as the other library has words.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from headwise.errors import HeadwiseError

OWN_VOCABULARY = 49408  # tokens of OpenAI's CLIP, whose tokenizer open_clip has built in
LAYER = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}
RESAMPLE = {2: "bilinear", 3: "bicubic"}  # Pillow's numbers


def write_open_clip(module: Any, processor: Any, folder: Path) -> None:
    """Write a transformers CLIP as open_clip's local-dir.

    Raises:
        HeadwiseError: not a `CLIPModel`, or preprocessing that open_clip has no words for.
    """
    from safetensors.torch import save_file

    if getattr(module.config, "model_type", "") != "clip" or not hasattr(module, "text_model"):
        raise HeadwiseError(
            f"A {type(module).__name__} cannot be written for open_clip: of transformers' models only CLIPModel has the "
            "same parts there. Use --to hf or --to onnx."
        )
    state = {name: tensor.detach().float().cpu() for name, tensor in module.state_dict().items()}
    config = _config(module.config)
    rows = table(module.config.vision_config.num_hidden_layers, module.config.text_config.num_hidden_layers)
    if module.config.text_config.vocab_size != OWN_VOCABULARY:
        config["text_cfg"]["hf_tokenizer_name"] = "."  # of the folder itself, where open_clip looks for it
        processor.tokenizer.save_pretrained(folder)
    packed = {
        ours: (torch.cat([state[name] for name in theirs]) if theirs[1:] else state[theirs[0]], turned)
        for ours, theirs, turned in rows
    }
    tensors = {name: (tensor.T if turned else tensor).contiguous().clone() for name, (tensor, turned) in packed.items()}
    save_file(tensors, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    content = {"model_cfg": config, "preprocess_cfg": _preprocess(processor.image_processor.to_dict())}
    (folder / "open_clip_config.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _config(config: Any) -> dict[str, Any]:
    vision, text = config.vision_config, config.text_config
    return {
        "embed_dim": config.projection_dim,
        "quick_gelu": vision.hidden_act == "quick_gelu",
        "vision_cfg": {
            "image_size": vision.image_size,
            "layers": vision.num_hidden_layers,
            "width": vision.hidden_size,
            "head_width": vision.hidden_size // vision.num_attention_heads,
            "patch_size": vision.patch_size,
            "mlp_ratio": vision.intermediate_size / vision.hidden_size,
        },
        "text_cfg": {
            "context_length": text.max_position_embeddings,
            "vocab_size": text.vocab_size,
            "width": text.hidden_size,
            "heads": text.num_attention_heads,
            "layers": text.num_hidden_layers,
            "mlp_ratio": text.intermediate_size / text.hidden_size,
        },
    }


def _preprocess(spec: dict[str, Any]) -> dict[str, Any]:
    size, crop = spec.get("size") or {}, spec.get("crop_size") or {}
    edge = size.get("shortest_edge") or size.get("height")
    side = crop.get("height", edge) if spec.get("do_center_crop") else edge
    if not edge or (spec.get("do_center_crop") and edge != side):
        raise HeadwiseError(
            f"open_clip has no words for this preprocessing: pictures are resized to {edge} pixels and cropped to {side}. "
            "Use --to hf or --to onnx."
        )
    normalised = spec.get("do_normalize", True)
    return {
        "size": [side, side],
        "mode": "RGB",
        "mean": list((normalised and spec.get("image_mean")) or (0.0, 0.0, 0.0)),
        "std": list((normalised and spec.get("image_std")) or (1.0, 1.0, 1.0)),
        "interpolation": RESAMPLE.get(int(spec.get("resample", 3)), "bicubic"),
        "resize_mode": "shortest" if spec.get("do_center_crop") and size.get("shortest_edge") else "squash",
    }


Row = tuple[str, tuple[str, ...], bool]


def table(vision_layers: int, text_layers: int) -> Iterator[Row]:
    """open_clip's name, transformers' names that are packed in it along the first axis, and whether it is transposed."""
    yield "logit_scale", ("logit_scale",), False
    yield "visual.class_embedding", ("vision_model.embeddings.class_embedding",), False
    yield "visual.conv1.weight", ("vision_model.embeddings.patch_embedding.weight",), False
    yield "visual.positional_embedding", ("vision_model.embeddings.position_embedding.weight",), False
    yield "visual.proj", ("visual_projection.weight",), True
    yield "token_embedding.weight", ("text_model.embeddings.token_embedding.weight",), False
    yield "positional_embedding", ("text_model.embeddings.position_embedding.weight",), False
    yield "text_projection", ("text_projection.weight",), True
    norms = {
        "visual.ln_pre": "vision_model.pre_layrnorm",
        "visual.ln_post": "vision_model.post_layernorm",
        "ln_final": "text_model.final_layer_norm",
    }
    towers = (("visual.transformer", "vision_model", vision_layers), ("transformer", "text_model", text_layers))
    for ours, theirs, layers in towers:
        for number in range(layers):
            block, layer = f"{ours}.resblocks.{number}", f"{theirs}.encoder.layers.{number}"
            norms |= {f"{block}.{own}": f"{layer}.{other}" for other, own in LAYER.items()}
            for kind in ("weight", "bias"):
                packed = tuple(f"{layer}.self_attn.{one}_proj.{kind}" for one in "qkv")
                yield f"{block}.attn.in_proj_{kind}", packed, False
    for ours, theirs in norms.items():
        for kind in ("weight", "bias"):
            yield f"{ours}.{kind}", (f"{theirs}.{kind}",), False

"""Small model folders, written by the libraries themselves with random weights."""

from __future__ import annotations

import json
from pathlib import Path

import golden
import torch
from cases import hf_model
from processors import PROCESSORS, clip
from torch import nn

SMALL = {"hidden_size": 64, "num_attention_heads": 2, "intermediate_size": 64, "image_size": 32, "patch_size": 8}
CLIP_TEXT = {"vocab_size": 190, "bos_token_id": 188, "eos_token_id": 189, "max_position_embeddings": 24}
OPEN_CLIP = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1},
}


def sized(processor, size: int = 32):
    """A processor for pictures of another size."""
    own = processor.image_processor
    both = {"height": size, "width": size}
    crop = {"size": {"shortest_edge": size}, "crop_size": both} if own.do_center_crop else {"size": both}
    processor.image_processor = type(own).from_dict({**own.to_dict(), **crop})
    return processor


def clip_folder(path: Path, *, text: dict | None = None, tokens: int | None = 24, size: int = 32) -> Path:
    """A CLIP of transformers for 32 pixels, and a processor for `size`."""
    golden.randomise(hf_model("CLIP", {**CLIP_TEXT, **(text or {})}, SMALL)).save_pretrained(path)
    processor = sized(clip(path), size)
    if tokens is not None:
        processor.tokenizer.model_max_length = tokens
    processor.save_pretrained(path)
    return path


def family_folder(family: str, text: dict, path: Path) -> Path:
    """A model of a family for 32 pixels with its processor."""
    small = {"projection_size": 64} if family.startswith("Siglip") else {}
    path.mkdir(parents=True, exist_ok=True)
    golden.randomise(hf_model(family.removesuffix(" 2"), {**text, **small}, SMALL)).save_pretrained(path / "model")
    sized(PROCESSORS[family](path)).save_pretrained(path / "model")
    return path / "model"


def open_clip_folder(path: Path, config: dict | None = None, preprocess: dict | None = None) -> tuple[Path, nn.Module]:
    """A local-dir of open_clip, and the model in it."""
    import open_clip

    config = config or OPEN_CLIP
    path.mkdir(parents=True, exist_ok=True)
    module = golden.randomise(open_clip.model.CLIP(**json.loads(json.dumps(config))))
    content = {"model_cfg": config, "preprocess_cfg": preprocess or {}}
    (path / "open_clip_config.json").write_text(json.dumps(content))
    torch.save(module.state_dict(), path / "open_clip_pytorch_model.bin")
    return path, module

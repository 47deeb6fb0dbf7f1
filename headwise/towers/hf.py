"""transformers: CLIP, SigLIP, SigLIP 2 of fixed resolution, Chinese-CLIP, AltCLIP and MetaCLIP 2 by hub id or folder.

In: a reference, or a model and its processor. Out: a `Model`. Families are told apart by their modules, not by their
names. Loading is in `hf_load.py`, the rows of heads in `hf_blocks.py`, pictures and texts in files of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headwise.errors import HeadwiseError, cause
from headwise.towers import configs, hf_load
from headwise.towers.base import Model, Tower, weights_hash
from headwise.towers.hf_blocks import build_clip, build_siglip, is_clip, is_siglip
from headwise.towers.hf_images import with_overrides
from headwise.towers.hf_load import OWN_KEY, quiet
from headwise.towers.hf_texts import encoder, reading, tokenize
from headwise.towers.overrides import IMAGE, Overrides
from headwise.towers.texts import Reading

__all__ = ["load", "quiet", "recognises", "tokenize", "tower_of", "wrap"]
LOOKED_FOR = "vision_model.encoder.layers with self_attn, and visual_projection or head (transformers)"


def recognises(module: Any) -> bool:
    """Whether a module is built as CLIP's or SigLIP's vision tower of transformers, or holds one."""
    return is_clip(module) or is_siglip(module)


def tower_of(module: Any) -> Tower:
    """The image tower of a transformers model (parameters are shared).

    Raises:
        HeadwiseError: a SigLIP without pooling head or with images of any shape.
    """
    if is_clip(module):
        return build_clip(nn.ModuleList([module.vision_model, module.visual_projection]))
    return build_siglip(nn.ModuleList([getattr(module, "vision_model", module)]))


def load(reference: str, *, device: str = "cpu", overrides: Overrides | None = None) -> Model:
    """A model by hub id or local folder, weights in float32.

    Arguments:
        reference: `openai/clip-vit-base-patch32` or a folder that `save_pretrained` wrote.
        device: where to put it.
        overrides: what to do otherwise than its files say.

    Raises:
        HeadwiseError: no such model, files missing or broken, or of another architecture.
    """
    module, processor, overrides, notes = hf_load.load(reference, overrides or Overrides())
    model = wrap(module.to(device), processor, name=f"hf:{reference}", overrides=overrides)
    return replace(model, notes=notes + model.notes)


def wrap(module: Any, processor, *, name: str = "", overrides: Overrides | None = None) -> Model:
    """A headwise model from a transformers model and its processor, in place, nothing copied.

    Arguments:
        module: `CLIPModel`, `CLIPVisionModelWithProjection`, `SiglipModel`, …
        processor: its processor, or an image processor alone for a model without text tower.
        name: what to call it in reports.
        overrides: what to do otherwise than the processor says; the image size is the module's already.

    Raises:
        HeadwiseError: no processor, one that does not belong to the model, or overrides that it cannot do.
    """
    if processor is None:
        raise HeadwiseError(
            "A transformers model does not carry its preprocessing. Pass its processor: "
            "headwise.wrap(model, AutoProcessor.from_pretrained(...))."
        )
    overrides = overrides or Overrides()
    name = name or f"hf:{getattr(module.config, '_name_or_path', '') or type(module).__name__}"
    module.eval()
    tower = tower_of(module)
    image_processor = getattr(processor, "image_processor", processor)
    if any(key in overrides.given for key in IMAGE):
        image_processor = with_overrides(image_processor, overrides, tower.resolution)
        if hasattr(processor, "image_processor"):
            processor.image_processor = image_processor
        else:
            processor = image_processor
    spec = image_processor.to_dict()
    configs.check_values(_jsonable(spec), f"{name}: the image processor", processor=True)
    has_text = hasattr(module, "get_text_features") and hasattr(processor, "tokenizer")
    texts, notes = _reading(module, processor.tokenizer, overrides, name) if has_text else (None, ())
    if texts is None:
        overrides.refuse("context_length", reason=f"{name} has no text tower.")
    tokens = None
    if texts is not None:
        said = processor.tokenizer.model_max_length
        tokens = partial(tokenize, module, processor.tokenizer, limit=texts.context, said=said)
    bias = getattr(module, "logit_bias", None)
    return Model(
        name=name,
        tower=tower,
        module=module,
        preprocess=partial(_preprocess, image_processor),
        preprocess_spec={"class": type(image_processor).__name__, **_jsonable(spec)},
        encode_texts=encoder(module, tokens) if tokens else None,
        tokenize=tokens,
        text_hash=weights_hash(module, skip=("vision_model.", "visual_projection.", "logit_")) if has_text else "",
        logit_scale=float(module.logit_scale.detach().exp()) if has_text else 100.0,
        logit_bias=float(bias.detach()) if bias is not None else 0.0,
        loss="softmax" if bias is None else "sigmoid",
        save=partial(_save, module, processor, overrides),
        reading=texts,
        notes=notes,
        overrides=overrides,
    )


def _reading(module: Any, tokenizer: Any, overrides: Overrides, name: str) -> tuple[Reading, tuple[str, ...]]:
    try:
        return reading(module, tokenizer, overrides, name)
    except HeadwiseError:
        raise
    except Exception as error:  # transformers takes any value from a tokenizer's files, and fails when it is used
        raise HeadwiseError(f"{name}: its tokenizer cannot be used: {cause(error)}. Get its files anew.") from error


@contextmanager
def recorded(config: Any, overrides: Overrides) -> Iterator[None]:
    """Inside, the overrides are in a model's configuration, so that saving it writes what its files cannot say."""
    if overrides.given:
        setattr(config, OWN_KEY, overrides.given)
    try:
        yield
    finally:
        if overrides.given:
            delattr(config, OWN_KEY)


def _save(module: Any, processor: Any, overrides: Overrides, folder: Path) -> None:
    """The library's own folder."""
    with quiet(), recorded(module.config, overrides):
        module.save_pretrained(folder)
        processor.save_pretrained(folder)


def _jsonable(spec: dict) -> dict:
    plain = {key: dict(value) if hasattr(value, "keys") else value for key, value in spec.items()}
    return {key: value for key, value in plain.items() if isinstance(value, str | int | float | bool | list | dict)}


def _preprocess(image_processor, image) -> torch.Tensor:
    return image_processor(images=[image], return_tensors="pt")["pixel_values"][0]  # (3, R, R)

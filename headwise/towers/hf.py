"""transformers: CLIP, SigLIP, SigLIP 2 of fixed resolution, Chinese-CLIP, AltCLIP and MetaCLIP 2 by hub id or folder."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headwise.errors import HeadwiseError
from headwise.towers.base import Model, Tower, weights_hash
from headwise.towers.hf_blocks import build_clip, build_siglip, is_clip, is_siglip
from headwise.towers.tools import tokenizer_as_it_was

TEXT_BATCH = 256
LOOKED_FOR = "vision_model.encoder.layers with self_attn, and visual_projection or head (transformers)"
MODELS = {
    "clip": "CLIPModel",
    "clip_vision_model": "CLIPVisionModelWithProjection",
    "siglip": "SiglipModel",
    "siglip_vision_model": "SiglipVisionModel",
    "chinese_clip": "ChineseCLIPModel",
    "altclip": "AltCLIPModel",
    "metaclip_2": "MetaClip2Model",
}
CHINESE_CONTEXT = 52  # what Chinese-CLIP was trained with; its BERT configuration says 512


def recognises(module: Any) -> bool:
    return is_clip(module) or is_siglip(module)


def tower_of(module: Any) -> Tower:
    """The image tower of a transformers model (parameters are shared).

    Raises:
        HeadwiseError: a SigLIP without pooling head or with images of any shape.
    """
    if is_clip(module):
        return build_clip(nn.ModuleList([module.vision_model, module.visual_projection]))
    return build_siglip(nn.ModuleList([getattr(module, "vision_model", module)]))


def load(reference: str, *, device: str = "cpu") -> Model:
    """A model by hub id or local folder, weights in float32.

    Arguments:
        reference: `openai/clip-vit-base-patch32` or a folder that `save_pretrained` wrote.
        device: where to put it.

    Raises:
        HeadwiseError: no such model, files missing or broken, or of another architecture.
    """
    import transformers

    name = f"hf:{reference}"
    config = _from_pretrained(transformers.AutoConfig.from_pretrained, reference, "config.json")
    if config.model_type == "siglip2":
        raise HeadwiseError(
            f"{name} takes images of any shape (NaFlex), which headwise does not support. Use a SigLIP 2 checkpoint "
            "of fixed resolution, such as hf:google/siglip2-base-patch16-224."
        )
    if config.model_type not in MODELS:
        raise HeadwiseError(
            f"{name} is a '{config.model_type}' model, not one of: {', '.join(MODELS)}. "
            "`headwise models` lists the families that are supported."
        )
    with quiet() if Path(reference).exists() else nullcontext():  # a download shows its progress
        module, info = _from_pretrained(
            partial(
                getattr(transformers, MODELS[config.model_type]).from_pretrained,
                dtype=torch.float32,
                output_loading_info=True,
            ),
            reference,
            "weights",
        )
    if missing := sorted(info["missing_keys"]):
        raise HeadwiseError(
            f"{name}: the weights lack {len(missing)} parameters that the model needs, the first is {missing[0]}. "
            "transformers would fill them with random numbers; get a complete checkpoint."
        )
    processor = _from_pretrained(
        transformers.AutoProcessor.from_pretrained, reference, "preprocessor_config.json and tokenizer"
    )
    return wrap(module.to(device), processor, name=name)


@contextmanager
def quiet() -> Iterator[None]:
    """No progress bars of transformers for what takes a moment."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _from_pretrained(call, reference: str, what: str):
    try:
        return call(reference)
    except Exception as error:  # transformers raises many kinds, also for a truncated file
        if isinstance(error, ImportError) and "sentencepiece" in str(error).lower():
            raise HeadwiseError(
                f"The tokenizer of hf:{reference} needs sentencepiece, which is not installed here. "
                "Install it with: pip install 'headwise[siglip]'"
            ) from error
        where = "the folder" if Path(reference).exists() else "the hub (or the local cache)"
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise HeadwiseError(
            f"Cannot read the {what} of hf:{reference} from {where}: {first_line}\n"
            "Give a hub id such as hf:openai/clip-vit-base-patch32, or a folder that save_pretrained wrote "
            "(config.json, model.safetensors, preprocessor_config.json, tokenizer files)."
        ) from error


def wrap(module: Any, processor, *, name: str = "") -> Model:
    """A headwise model from a transformers model and its processor, in place, nothing copied.

    Arguments:
        module: `CLIPModel`, `CLIPVisionModelWithProjection`, `SiglipModel`, …
        processor: its processor, or an image processor alone for a model without text tower.
        name: what to call it in reports.

    Raises:
        HeadwiseError: no processor.
    """
    if processor is None:
        raise HeadwiseError(
            "A transformers model does not carry its preprocessing. Pass its processor: "
            "headwise.wrap(model, AutoProcessor.from_pretrained(...))."
        )
    module.eval()
    image_processor = getattr(processor, "image_processor", processor)
    has_text = hasattr(module, "get_text_features") and hasattr(processor, "tokenizer")
    bias = getattr(module, "logit_bias", None)

    def save(folder: Path) -> None:
        with quiet():
            module.save_pretrained(folder)
            processor.save_pretrained(folder)

    spec = image_processor.to_dict()
    return Model(
        name=name or f"hf:{getattr(module.config, '_name_or_path', '') or type(module).__name__}",
        tower=tower_of(module),
        module=module,
        preprocess=partial(_preprocess, image_processor),
        preprocess_spec={"class": type(image_processor).__name__, **_jsonable(spec)},
        encode_texts=partial(_encode_texts, module, processor.tokenizer) if has_text else None,
        tokenize=partial(tokenize, module, processor.tokenizer) if has_text else None,
        text_hash=weights_hash(module, skip=("vision_model.", "visual_projection.", "logit_")) if has_text else "",
        logit_scale=float(module.logit_scale.detach().exp()) if has_text else 100.0,
        logit_bias=float(bias.detach()) if bias is not None else 0.0,
        loss="softmax" if bias is None else "sigmoid",
        save=save,
    )


def _jsonable(spec: dict) -> dict:
    return {key: value for key, value in spec.items() if isinstance(value, str | int | float | bool | list | dict)}


def _preprocess(image_processor, image) -> torch.Tensor:
    return image_processor(images=[image], return_tensors="pt")["pixel_values"][0]  # (3, R, R)


def tokenize(module: Any, tokenizer, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Texts → the text tower's inputs, (T, context) each, as the family was trained.

    SigLIP reads the last position, padding included, so its texts are padded to its full context, and lower-cased
    as in its training (SigLIP 2's checkpoints come with a tokenizer that does not do it). Chinese-CLIP was trained
    with a shorter context than its configuration says. RoBERTa's positions (AltCLIP) start after the padding index.
    """
    config = module.config.text_config
    limit = min(tokenizer.model_max_length, config.max_position_embeddings)
    padding: bool | str = True
    if module.config.model_type == "siglip":
        texts, padding, limit = [text.lower() for text in texts], "max_length", config.max_position_embeddings
    elif module.config.model_type == "chinese_clip":
        limit = min(limit, CHINESE_CONTEXT)
    elif module.config.model_type == "altclip":
        limit = min(limit, config.max_position_embeddings - config.pad_token_id - 1)
    with tokenizer_as_it_was(tokenizer):
        tokens = tokenizer(list(texts), padding=padding, truncation=True, max_length=limit, return_tensors="pt")
    accepted = inspect.signature(module.get_text_features).parameters
    return {key: value for key, value in tokens.items() if key in accepted}


@torch.inference_mode()
def _encode_texts(module: Any, tokenizer, texts: Sequence[str]) -> torch.Tensor:
    device = module.logit_scale.device
    out = []
    for start in range(0, len(texts), TEXT_BATCH):
        tokens = tokenize(module, tokenizer, texts[start : start + TEXT_BATCH])
        features = module.get_text_features(**{key: value.to(device) for key, value in tokens.items()})
        out.append(getattr(features, "pooler_output", features).float())  # (T, E)
    return torch.cat(out)

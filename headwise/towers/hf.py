"""transformers: CLIP, SigLIP, SigLIP 2 of fixed resolution, Chinese-CLIP, AltCLIP and MetaCLIP 2 by hub id or folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headwise.errors import HeadwiseError, cause
from headwise.hub import offline_unless_reachable
from headwise.towers import checkpoint, configs
from headwise.towers.base import Model, Tower, weights_hash
from headwise.towers.hf_blocks import build_clip, build_siglip, is_clip, is_siglip
from headwise.towers.hf_images import resize_positions, with_overrides
from headwise.towers.hf_texts import encoder, reading, tokenize
from headwise.towers.overrides import IMAGE, Overrides
from headwise.towers.texts import Reading
from headwise.towers.whole import cannot_load, check_count, no_foreign_code

__all__ = ["load", "quiet", "recognises", "tokenize", "tower_of", "wrap"]
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
OWN_KEY = "headwise"  # of config.json: what transformers' own files cannot say


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


def load(reference: str, *, device: str = "cpu", overrides: Overrides | None = None) -> Model:
    """A model by hub id or local folder, weights in float32.

    Arguments:
        reference: `openai/clip-vit-base-patch32` or a folder that `save_pretrained` wrote.
        device: where to put it.
        overrides: what to do otherwise than its files say.

    Raises:
        HeadwiseError: no such model, files missing or broken, or of another architecture.
    """
    name, local = f"hf:{reference}", Path(reference).exists() or Path(reference).is_absolute()
    with nullcontext() if local else offline_unless_reachable() as answers, no_foreign_code():
        if local:
            _check_folder(name, Path(reference))
        where = "the folder" if local else "the hub" if answers else "the local cache (the hub does not answer)"
        return _load(reference, name, where, device, overrides or Overrides())


def _check_folder(name: str, folder: Path) -> None:
    if folder.is_file():
        raise HeadwiseError(
            f"{name} is a file. Give the folder it is in, with config.json, preprocessor_config.json and tokenizer "
            "files beside the weights."
        )
    configs.check_folder(folder)
    if (folder / "adapter_config.json").is_file():
        raise HeadwiseError(
            f"{name} holds an adapter of PEFT, not a model. Merge it first: "
            "peft.PeftModel.from_pretrained(base_model, FOLDER).merge_and_unload().save_pretrained(NEW_FOLDER)."
        )


def _load(reference: str, name: str, where: str, device: str, overrides: Overrides) -> Model:
    import transformers

    fetch = partial(_from_pretrained, reference, where)
    config = fetch(transformers.AutoConfig.from_pretrained, "config.json")
    _check_config(config, name)
    cls = getattr(transformers, MODELS[config.model_type])
    check_count(lambda: cls(config), _weights_in(Path(reference)), name)
    with quiet() if where == "the folder" else nullcontext():  # a download shows its progress
        module, info = fetch(partial(cls.from_pretrained, dtype=torch.float32, output_loading_info=True), "weights")
    if info["missing_keys"]:
        module = _complete(cls, config, Path(reference), name, info)
    source = overrides.processor or reference
    if overrides.processor is not None:
        if not Path(source).is_dir():
            raise HeadwiseError(f"--processor {source} (processor=) is not a folder.")
        configs.check_folder(source)
    processor = _from_pretrained(
        source,
        "the folder" if overrides.processor else where,
        transformers.AutoProcessor.from_pretrained,
        "preprocessor_config.json and tokenizer",
    )
    if hasattr(module, "get_text_features") and not hasattr(processor, "tokenizer"):
        raise HeadwiseError(
            f"{name} has a text tower, and {source} no tokenizer for it. Copy its files from the original model, or "
            "give a folder that has them with --processor DIR (processor= in Python)."
        )
    own = getattr(config, OWN_KEY, None)
    if overrides.context_length is None and isinstance(own, dict) and "context_length" in own:
        overrides = replace(overrides, context_length=own["context_length"])
    if overrides.image_size is not None:
        resize_positions(module, overrides.image_size)
    return wrap(module.to(device), processor, name=name, overrides=overrides)


def _check_config(config: Any, name: str) -> None:
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
    content = config.to_dict()
    configs.check_values(content, f"{name}: config.json")
    if content.get("quantization_config"):
        raise HeadwiseError(
            f"{name} is quantised; heads are edited in weights of float32. Get the checkpoint that it was made from, "
            "and quantise the refined model."
        )
    for part in (config, getattr(config, "vision_config", None), getattr(config, "text_config", None)):
        kernel = getattr(part, "_attn_implementation", None)
        if isinstance(kernel, str) and "/" in kernel:
            raise HeadwiseError(f"{name} asks for code of {kernel} for its attention; headwise runs no such code.")


def _weights_in(folder: Path) -> list[Path]:
    return sorted(folder.glob("model*.safetensors")) or sorted(folder.glob("pytorch_model*.bin"))


def _complete(cls: Any, config: Any, folder: Path, name: str, info: dict) -> Any:
    """A model whose weights have a trainer's prefix, or lie in a trainer's container.

    Raises:
        HeadwiseError: the weights are not whole.
    """
    with torch.device("meta"):
        expected = cls(config).state_dict()
    missing, extra = sorted(info["missing_keys"]), sorted(info["unexpected_keys"])
    tensors = {key: value for file in _weights_in(folder) for key, value in checkpoint.read(file).tensors.items()}
    names = checkpoint.fitted(tensors, expected, f"{name}")
    fixed = {own: tensors[theirs] for theirs, own in names.items()}
    if fixed and not expected.keys() - fixed.keys():
        if problem := checkpoint.difference({key: fixed[key] for key in expected}, expected):
            raise HeadwiseError(f"{name}: the weights do not fit config.json: {problem}.")
        with quiet():
            module, again = cls.from_pretrained(
                None, config=config, state_dict=fixed, dtype=torch.float32, output_loading_info=True
            )
        if not again["missing_keys"]:
            return module
    raise HeadwiseError(
        f"{name}: the weights lack {len(missing)} parameters that the model needs, the first is {missing[0]}. "
        + (f"They have {len(extra)} that it does not know, the first is {extra[0]}. " if extra else "")
        + "transformers would fill them with random numbers; get a complete checkpoint."
    )


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


def _from_pretrained(reference: str, where: str, call: Callable, what: str) -> Any:
    try:
        return call(reference, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds, also for a truncated file
        if isinstance(error, ImportError) and "sentencepiece" in str(error).lower():
            raise HeadwiseError(
                f"The tokenizer of hf:{reference} needs sentencepiece, which is not installed here. "
                "Install it with: pip install 'headwise[siglip]'"
            ) from error
        raise cannot_load(
            f"Cannot read the {what} of hf:{reference} from {where}",
            error,
            "Give a hub id such as hf:openai/clip-vit-base-patch32, or a folder that save_pretrained wrote "
            "(config.json, model.safetensors, preprocessor_config.json, tokenizer files).",
        ) from error


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

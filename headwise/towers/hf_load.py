"""transformers' models and processors by hub id or folder: nothing missing is filled with random numbers, no code is
run.

In: a reference and overrides. Out: the library's model and processor, whole. What heads they have is not looked at
here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from headwise.errors import HeadwiseError
from headwise.hub import offline_unless_reachable
from headwise.towers import checkpoint, configs
from headwise.towers.hf_images import resize_positions
from headwise.towers.overrides import Overrides
from headwise.towers.stated import check_processor
from headwise.towers.whole import cannot_load, check_count, no_foreign_code

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


def load(reference: str, overrides: Overrides) -> tuple[Any, Any, Overrides, tuple[str, ...]]:
    """A model and its processor, the overrides with those that the folder itself records, and what there is to say.

    Arguments:
        reference: a hub id or a folder.
        overrides: what to do otherwise than its files say; the image size is done here.

    Raises:
        HeadwiseError: no such model, files missing or broken, or of another architecture.
    """
    name, local = f"hf:{reference}", os.path.exists(reference) or Path(reference).is_absolute()
    with nullcontext() if local else offline_unless_reachable() as answers, no_foreign_code():
        if local:
            _check_folder(name, Path(reference))
        where = "the folder" if local else "the hub" if answers else "the local cache (the hub does not answer)"
        return _load(reference, name, where, overrides)


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


def _load(reference: str, name: str, where: str, overrides: Overrides) -> tuple[Any, Any, Overrides, tuple[str, ...]]:
    import transformers

    fetch = partial(_from_pretrained, reference, where)
    config = fetch(transformers.AutoConfig.from_pretrained, "config.json")
    _check_config(config, name)
    cls = getattr(transformers, MODELS[config.model_type])
    check_count(lambda: cls(config), _weights_in(Path(reference)), name)
    try:
        with quiet() if where == "the folder" else nullcontext():  # a download shows its progress
            module, info = fetch(partial(cls.from_pretrained, dtype=torch.float32, output_loading_info=True), "weights")
    except HeadwiseError as error:
        if problem := _misshapen(cls, config, Path(reference), name):
            raise HeadwiseError(
                f"{name}: the weights do not fit config.json: {problem}. Correct it, or get the weights that belong to it."
            ) from error
        raise
    if info["missing_keys"]:
        module = _complete(cls, config, Path(reference), name, info)
    source = overrides.processor or reference
    processor = read_processor(source) if overrides.processor else _processor(reference, where)
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
    return module, processor, overrides, unused(module, info["unexpected_keys"], name)


def made_whole(module: Any, folder: Path, name: str) -> tuple[str, ...]:
    """Give a model that another library read from a folder the weights that this one would have refused or found there;
    what there is to say about it.

    Raises:
        HeadwiseError: the weights are not whole.
    """
    files = _weights_in(folder)
    saved = {key for file in files for key in checkpoint.names(file)}
    if not files or saved == set(module.state_dict()):
        return ()
    with quiet():
        again, info = type(module).from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    if info["missing_keys"]:
        again = _complete(type(module), module.config, folder, name, info)
    module.load_state_dict(again.state_dict())
    return unused(module, info["unexpected_keys"], name)


def unused(module: Any, names: Iterable[str], name: str) -> tuple[str, ...]:
    """What to say of weights that the configuration has no place for, though they are parts of this model: blocks above
    its number of layers. Other towers and buffers of older versions are nobody's loss."""
    parts = {key.partition(".")[0] for key in module.state_dict()}
    lost = sorted(key for key in names if key.partition(".")[0] in parts and not key.endswith("position_ids"))
    if not lost:
        return ()
    return (
        f"{name}: {len(lost)} of its weights are not used, the first is {lost[0]}: config.json describes a smaller model "
        "(num_hidden_layers?) than the one that was saved.",
    )


def read_processor(folder: str) -> Any:
    """The processor of transformers in a folder that a user gave.

    Raises:
        HeadwiseError: no folder, or no processor of transformers in it.
    """
    return _processor(check_processor(folder), "the folder")


def _processor(reference: str, where: str) -> Any:
    import transformers

    call = transformers.AutoProcessor.from_pretrained
    return _from_pretrained(reference, where, call, "preprocessor_config.json and tokenizer")


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


def _misshapen(cls: Any, config: Any, folder: Path, name: str) -> str:
    """Which weights in a folder have another shape than the configuration says; empty where none has, or none is there."""
    with torch.device("meta"):
        expected = cls(config).state_dict()
    tensors = {key: value for file in _weights_in(folder) for key, value in checkpoint.read(file).tensors.items()}
    own = {ours: tensors[theirs] for theirs, ours in checkpoint.fitted(tensors, expected, name).items()}
    common = expected.keys() & own.keys()
    return checkpoint.difference(
        {key: own[key] for key in common}, {key: expected[key] for key in expected if key in own}
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

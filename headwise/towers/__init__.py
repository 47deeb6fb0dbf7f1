"""Image towers of every library, behind one contract (`base.py`), loaded by name.

In: a name, or a model that is loaded already. Out: a `Model` whose own walk was compared with its library's forward.
A library is imported when one of its models is asked for; nothing outside this room asks which it was.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import ModuleType

from torch import nn

from headwise.errors import HeadwiseError
from headwise.towers.base import Model, Tower
from headwise.towers.blocks import Block
from headwise.towers.configs import read_config
from headwise.towers.overrides import Overrides
from headwise.towers.tools import verify
from headwise.towers.whole import check_module, check_pixels

__all__ = ["Block", "Model", "Tower", "library", "load", "tower_of", "wrap"]

NAMES = {
    "hf": "hf:openai/clip-vit-base-patch32 (hub id or folder; CLIP, SigLIP, SigLIP 2, Chinese-CLIP, …)",
    "open_clip": "open_clip:ViT-B-32/openai, open_clip:ViT-B-32/FILE, open_clip:local-dir:DIR, open_clip:hf-hub:ORG/REPO",
    "timm": "timm:vit_base_patch16_clip_224.openai (images alone)",
}


def load(
    name: str,
    *,
    device: str = "cpu",
    image_size: int | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: str | None = None,
    resize_mode: str | None = None,
    context_length: int | None = None,
    processor: str | Path | None = None,
) -> Model:
    """A model by name: `demo` (packaged), `hf:…`, `open_clip:…`, `timm:…`, or a local Hugging Face folder.

    Arguments:
        name: see `headwise models`.
        device: `cpu`, `cuda`, `cuda:1`, …
        image_size, mean, std, interpolation, resize_mode, context_length, processor: what to do otherwise than the
            model's files say; see `Overrides`.

    Returns:
        The model in float32 and eval mode.

    Raises:
        HeadwiseError: an unknown name form, a missing library, a missing or broken model, not a CLIP, or overrides
            that this model cannot do.
    """
    overrides = Overrides(
        image_size,
        tuple(mean) if isinstance(mean, Sequence) else mean,
        tuple(std) if isinstance(std, Sequence) else std,
        interpolation,
        resize_mode,
        context_length,
        None if processor is None else str(processor),
    )
    library, colon, reference = name.partition(":")
    if name == "demo":
        from headwise.demo import model_folder

        library, reference = "hf", str(model_folder())
    elif not (colon and library in NAMES and reference):
        if not os.path.isdir(name):
            forms = "".join(f"\n  {form}" for form in NAMES.values())
            raise HeadwiseError(f"{name!r} is not a model name. Write demo, a folder, or one of these forms:{forms}")
        library, reference = _folder(Path(name))
    model = _checked(_library(library).load(reference, device=device, overrides=overrides))
    named = {"name": name} if name == "demo" else {}  # the same name everywhere, not where it lies on this machine
    return replace(model, source=f"{library}:{reference}", **named)


def _checked(model: Model) -> Model:
    verify(model.tower)
    model = replace(model, notes=(*model.notes, *check_pixels(model)))
    for note in model.notes:
        logging.getLogger("headwise").warning(note)  # Python prints it, unless a program says otherwise
    return model


def _folder(path: Path) -> tuple[str, str]:
    """Which library wrote a folder, and its reference there."""
    if (path / "onnx.json").is_file():
        return "onnx", str(path)
    if (path / "open_clip_config.json").is_file():
        return "open_clip", f"local-dir:{path}"
    if (path / "modules.json").is_file():
        return "sentence_transformers", str(path)
    config = read_config(path / "config.json") if (path / "config.json").is_file() else {}
    if "architecture" in config and "model_type" not in config:
        return "timm", f"local-dir:{path}"
    return "hf", str(path)


def wrap(model: nn.Module, processor=None, *, name: str = "") -> Model:
    """A headwise model from a model object that is already loaded; its parameters are shared, not copied.

    Arguments:
        model: a model of transformers, open_clip, timm or sentence-transformers, recognised by structure.
        processor: the library's own: a transformers processor, or (preprocess, tokenizer) for open_clip, or
            (preprocess, encode_texts) for timm; None where the model carries it (sentence-transformers, timm).
        name: what to call it in reports; for open_clip `open_clip:ARCHITECTURE`, which lets it be saved.

    Raises:
        HeadwiseError: the structure is not known; adapters, quantised or offloaded weights; a processor that does
            not belong to the model.
    """
    inner = unwrap(model)
    check_module(inner)
    return _checked(_recognise(inner).wrap(inner, processor, name=name))


def unwrap(module: nn.Module) -> nn.Module:
    """The model inside `torch.compile`'s or `DataParallel`'s wrapper."""
    for attribute in ("_orig_mod", "module"):
        inner = getattr(module, attribute, None)
        if isinstance(inner, nn.Module):
            return unwrap(inner)
    return module


def tower_of(module: nn.Module) -> Tower:
    """The image tower of a live model of any supported family.

    Raises:
        HeadwiseError: the structure is not known; the message lists what was looked for.
    """
    inner = unwrap(module)
    return _recognise(inner).tower_of(inner)


def library(model: Model) -> str:
    """Which library a model is of: `hf`, `open_clip`, `timm` or `sentence_transformers`."""
    return _recognise(unwrap(model.module)).__name__.rpartition(".")[2]


def _library(name: str) -> ModuleType:
    return import_module(f"headwise.towers.{name}")


def _libraries() -> Iterator[ModuleType]:
    yield from map(_library, ("sentence_transformers", "hf", "open_clip", "timm"))


def _recognise(module: nn.Module) -> ModuleType:
    for library in _libraries():
        if library.recognises(module):
            return library
    children = ", ".join(name for name, _ in module.named_children()) or "none"
    looked_for = "; ".join(library.LOOKED_FOR for library in _libraries())
    raise HeadwiseError(
        f"{type(module).__name__} is not a model whose attention heads headwise knows. Looked for: {looked_for}. "
        f"Its direct children are: {children}."
    )

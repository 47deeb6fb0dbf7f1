"""Image towers of every library, behind one contract (`base.py`), loaded by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from torch import nn

from headwise.errors import HeadwiseError
from headwise.towers.base import Model, Tower
from headwise.towers.blocks import Block
from headwise.towers.tools import verify

__all__ = ["Block", "Model", "Tower", "load", "tower_of", "wrap"]

NAMES = {
    "hf": "hf:openai/clip-vit-base-patch32 (hub id or folder; CLIP, SigLIP, SigLIP 2, Chinese-CLIP, …)",
    "open_clip": "open_clip:ViT-B-32/openai, open_clip:ViT-B-32/FILE, open_clip:local-dir:DIR, open_clip:hf-hub:ORG/REPO",
    "timm": "timm:vit_base_patch16_clip_224.openai (images alone)",
}


def load(name: str, *, device: str = "cpu") -> Model:
    """A model by name: `demo` (packaged), `hf:…`, `open_clip:…`, `timm:…`, or a local Hugging Face folder.

    Arguments:
        name: see `headwise models`.
        device: `cpu`, `cuda`, `cuda:1`, …

    Returns:
        The model in float32 and eval mode.

    Raises:
        HeadwiseError: an unknown name form, a missing library, a missing or broken model, or not a CLIP.
    """
    library, colon, reference = name.partition(":")
    if name == "demo":
        from headwise.demo import model_folder

        library, reference = "hf", str(model_folder())
    elif not (colon and library in NAMES and reference):
        if not Path(name).is_dir():
            forms = "".join(f"\n  {form}" for form in NAMES.values())
            raise HeadwiseError(f"{name!r} is not a model name. Write demo, a folder, or one of these forms:{forms}")
        library, reference = _folder(Path(name))
    model = _library(library).load(reference, device=device)
    verify(model.tower)
    return model


def _folder(path: Path) -> tuple[str, str]:
    """Which library wrote a folder, and its reference there."""
    if (path / "open_clip_config.json").is_file():
        return "open_clip", f"local-dir:{path}"
    try:
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        config = {}  # transformers says what is wrong with it
    if isinstance(config, dict) and "architecture" in config and "model_type" not in config:
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
        HeadwiseError: the structure is not known.
    """
    inner = unwrap(model)
    wrapped = _recognise(inner).wrap(inner, processor, name=name)
    verify(wrapped.tower)
    return wrapped


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

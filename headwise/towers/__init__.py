"""Image towers of every library, behind one contract (`base.py`), loaded by name."""

from __future__ import annotations

from torch import nn

from headwise.errors import HeadwiseError
from headwise.towers.base import Block, Model, Tower

__all__ = ["Block", "Model", "Tower", "load", "tower_of", "wrap"]


def load(name: str, *, device: str = "cpu") -> Model:
    """A model by name: `demo` (packaged), `hf:HUB_ID_OR_FOLDER`, or a local Hugging Face folder.

    Arguments:
        name: see `headwise models`.
        device: `cpu`, `cuda`, `cuda:1`, …

    Returns:
        The model in float32 and eval mode.

    Raises:
        HeadwiseError: an unknown name form, a missing or broken model, or not a CLIP.
    """
    from pathlib import Path

    from headwise.towers import hf

    if name == "demo":
        from headwise.demo import model_folder

        return hf.load(str(model_folder()), device=device)
    library, colon, reference = name.partition(":")
    if colon and library == "hf" and reference:
        return hf.load(reference, device=device)
    if Path(name).is_dir():
        return hf.load(name, device=device)
    raise HeadwiseError(
        f"{name!r} is not a model name. Write hf:HUB_ID (hf:openai/clip-vit-base-patch32), hf:FOLDER, or demo."
    )


def wrap(model: nn.Module, processor, *, name: str = "") -> Model:
    """A headwise model from a model object that is already loaded; its parameters are shared, not copied.

    Arguments:
        model: a `CLIPModel`, `CLIPVisionModelWithProjection`, …, recognised by structure.
        processor: the library's own processor for it.
        name: what to call it in reports.

    Raises:
        HeadwiseError: the structure is not known.
    """
    from headwise.towers import hf

    inner = unwrap(model)
    tower_of(inner)
    return hf.wrap(inner, processor, name=name)


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
    from headwise.towers import hf

    inner = unwrap(module)
    if hf.recognises(inner):
        return hf.tower_of(inner)
    children = ", ".join(name for name, _ in inner.named_children()) or "none"
    raise HeadwiseError(
        f"{type(inner).__name__} is not a model whose attention heads headwise knows. Looked for: "
        "vision_model.encoder.layers with self_attn, and visual_projection (Hugging Face CLIP). "
        f"Its direct children are: {children}."
    )

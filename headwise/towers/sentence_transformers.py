"""sentence-transformers with a CLIP inside: the transformers model and its processor are used as they are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from headwise.towers import hf
from headwise.towers.base import Model, Tower

LOOKED_FOR = "a first module with a transformers CLIP in .model (sentence-transformers)"


def _inner(module: Any) -> Any:
    """The transformers model in the first module of a `SentenceTransformer`."""
    first = module[0] if isinstance(module, nn.Sequential) and len(module) else None
    inner = getattr(first, "model", None) or getattr(first, "auto_model", None)
    return inner if isinstance(inner, nn.Module) and hf.recognises(inner) else None


def recognises(module: Any) -> bool:
    return _inner(module) is not None


def tower_of(module: Any) -> Tower:
    """The image tower of the CLIP inside (parameters are shared)."""
    inner = _inner(module)
    assert inner is not None
    return hf.tower_of(inner)


def wrap(module: Any, processor=None, *, name: str = "") -> Model:
    """A headwise model from a `SentenceTransformer` with a CLIP inside, in place, nothing copied.

    Arguments:
        module: the `SentenceTransformer`.
        processor: None: the one that it carries.
        name: what to call it in reports.
    """
    inner = _inner(module)
    assert inner is not None
    assert isinstance(module, nn.Sequential)
    model = hf.wrap(inner, processor or module[0].processor, name=name or "sentence-transformers CLIP")

    def save(folder: Path) -> None:
        module.save(str(folder))  # type: ignore[operator]  # SentenceTransformer's own format

    return replace(model, module=module, save=save)

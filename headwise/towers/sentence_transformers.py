"""sentence-transformers with a CLIP inside: the transformers model and its processor are used as they are.

In: a folder, or a `SentenceTransformer`. Out: the `Model` of `hf.py`, saved as the library's own folder. Its other
modules are not looked at.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from headwise.errors import HeadwiseError
from headwise.towers import hf
from headwise.towers.base import Model, Tower
from headwise.towers.configs import check_folder
from headwise.towers.hf_images import resize_positions
from headwise.towers.hf_load import made_whole, read_processor
from headwise.towers.overrides import Overrides
from headwise.towers.tools import need
from headwise.towers.whole import cannot_load, no_foreign_code

LOOKED_FOR = "a first module with a transformers CLIP in .model (sentence-transformers)"


def _inner(module: Any) -> Any:
    """The transformers model in the first module of a `SentenceTransformer`."""
    first = module[0] if isinstance(module, nn.Sequential) and len(module) else None
    inner = getattr(first, "model", None) or getattr(first, "auto_model", None)
    return inner if isinstance(inner, nn.Module) and hf.recognises(inner) else None


def recognises(module: Any) -> bool:
    """Whether a module is a `SentenceTransformer` with a CLIP inside."""
    return _inner(module) is not None


def tower_of(module: Any) -> Tower:
    """The image tower of the CLIP inside (parameters are shared)."""
    inner = _inner(module)
    assert inner is not None
    return hf.tower_of(inner)


def load(reference: str, *, device: str = "cpu", overrides: Overrides | None = None) -> Model:
    """A folder that `SentenceTransformer.save` wrote, with a CLIP of transformers inside.

    Arguments:
        reference: the folder.
        device: where to put it.
        overrides: what to do otherwise than its files say.

    Raises:
        HeadwiseError: sentence-transformers is not installed; a broken folder, code of its own, or no CLIP inside.
    """
    library, overrides = need("sentence_transformers", "sentence-transformers"), overrides or Overrides()
    for folder in (Path(reference), *(path.parent for path in Path(reference).glob("*/*.json"))):
        check_folder(folder)
    with no_foreign_code():
        try:
            module = library.SentenceTransformer(
                reference, device=device, trust_remote_code=False, local_files_only=True
            )
        except Exception as error:  # sentence-transformers raises many kinds
            raise cannot_load(f"sentence-transformers cannot load {reference}", error) from error
    inner = _inner(module)
    if inner is None:
        raise HeadwiseError(f"{reference}: its first module is no CLIP of transformers. Looked for: {LOOKED_FOR}.")
    notes = made_whole(inner, Path(reference) / _first_path(Path(reference)), reference)
    recorded = getattr(inner.config, hf.OWN_KEY, None)
    if overrides.context_length is None and isinstance(recorded, dict) and "context_length" in recorded:
        overrides = replace(overrides, context_length=recorded["context_length"])
    if overrides.image_size is not None:
        resize_positions(inner, overrides.image_size)
    processor = None
    if overrides.processor is not None:
        processor = read_processor(overrides.processor)
        module[0].processor = processor  # so that it is saved with the model
    model = wrap(module, processor, name=reference, overrides=overrides)
    return replace(model, notes=notes + model.notes)


def _first_path(folder: Path) -> str:
    """Where the first module lies in the folder, as `modules.json` says."""
    parts = json.loads((folder / "modules.json").read_text(encoding="utf-8"))
    return str(min(parts, key=lambda part: part.get("idx", 0)).get("path", ""))


def wrap(module: Any, processor=None, *, name: str = "", overrides: Overrides | None = None) -> Model:
    """A headwise model from a `SentenceTransformer` with a CLIP inside, in place, nothing copied.

    Arguments:
        module: the `SentenceTransformer`.
        processor: None: the one that it carries.
        name: what to call it in reports.
        overrides: what to do otherwise than the processor says.
    """
    inner = _inner(module)
    assert inner is not None
    assert isinstance(module, nn.Sequential)
    own = processor or module[0].processor
    model = hf.wrap(inner, own, name=name or "sentence-transformers CLIP", overrides=overrides)

    def save(folder: Path) -> None:
        with hf.recorded(inner.config, model.overrides):
            module.save(str(folder))  # type: ignore[operator]  # SentenceTransformer's own format

    return replace(model, module=module, save=save)

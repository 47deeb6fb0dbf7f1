"""timm models by timm's own names; a checkpoint's own size and classes are read before the model is made.

In: a reference and overrides. Out: timm's model, and what there is to say about it. What heads it has is not looked
at here.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from headwise.errors import HeadwiseError, cause
from headwise.hub import offline_unless_reachable
from headwise.towers import checkpoint, configs
from headwise.towers.overrides import Overrides
from headwise.towers.whole import cannot_load, check_count, no_foreign_code

FOLDERS = ("hf-hub:", "hf_hub:", "local-dir:")
CROP_MODES = {"shortest": "center", "longest": "border", "squash": "squash"}
AVERAGED = ("state_dict_ema", "model_ema")  # what timm itself takes first from its training checkpoints


def load(timm: ModuleType, reference: str, overrides: Overrides) -> tuple[Any, tuple[str, ...]]:
    """A timm model by reference, and what there is to say about it.

    Raises:
        HeadwiseError: no such model, tag or file; a broken checkpoint; overrides that timm cannot do.
    """
    name, (model_name, _, file) = f"timm:{reference}", reference.partition("/")
    overrides.refuse("context_length", reason="timm's models have no text tower.")
    if reference.startswith(FOLDERS):
        model_name, file = reference, ""
        if reference.startswith("local-dir:") and os.path.isdir(reference.partition(":")[2]):
            configs.check_folder(reference.partition(":")[2])
    elif model_name.split(".")[0] not in timm.list_models():
        close = timm.list_models(f"*{model_name.split('.')[0]}*")[:8]
        raise HeadwiseError(
            f"{name}: timm has no model {model_name!r}. "
            + (f"Similar: {', '.join(close)}." if close else "See timm.list_models('*clip*').")
        )
    if file and not os.path.isfile(file):
        raise HeadwiseError(f"{name}: there is no checkpoint file {file}.")
    local = bool(file) or reference.startswith("local-dir:")
    with nullcontext() if local else offline_unless_reachable(), no_foreign_code():
        try:
            module, notes = _made(timm, name, model_name, file, overrides)
        except HeadwiseError:
            raise
        except Exception as error:  # timm raises many kinds, also for a truncated file
            raise cannot_load(f"timm cannot load {name}", error) from error
    module.pretrained_cfg.update(_preprocess(overrides))
    if overrides.image_size is not None:
        module.pretrained_cfg["input_size"] = (3, overrides.image_size, overrides.image_size)
    return module, notes


def _made(timm: ModuleType, name: str, model: str, file: str, overrides: Overrides) -> tuple[Any, tuple[str, ...]]:
    size = {} if overrides.image_size is None else {"img_size": overrides.image_size}
    if not file or Path(file).suffix in (".npz", ".npy"):
        if model.startswith("local-dir:"):
            files = Path(model.partition(":")[2]).glob("*model.*")
            check_count(lambda: timm.create_model(model, pretrained=False), files, name)
        module = _create(timm, name, model, overrides, pretrained=not file, **size)
        if file:
            timm.models.load_checkpoint(module, file)
        return module, ()
    found = checkpoint.read(file, first=AVERAGED)
    plain = timm.create_model(model, pretrained=False)
    names = checkpoint.fitted(found.tensors, plain.state_dict(), file)
    tensors = {own: found.tensors[key] for key, own in names.items()} or found.tensors
    classifier = plain.pretrained_cfg.get("classifier")
    head = tensors.get(f"{classifier}.weight") if isinstance(classifier, str) else None
    classes = {"num_classes": 0 if head is None else head.shape[0]} if isinstance(classifier, str) else {}
    side, notes = _trained_side(plain, tensors), ()
    own = getattr(getattr(plain, "patch_embed", None), "img_size", (side,))[0]
    if side and side != own:
        module = _create(timm, name, model, overrides, img_size=side, **classes)
        if overrides.image_size is None:
            notes = (
                f"{name}: the checkpoint's positions are for pictures of {side} pixels, the architecture says {own}; "
                f"{side} is used. (--image-size {own} interpolates them.)",
            )
            module.pretrained_cfg["input_size"] = (3, side, side)
    else:
        module = timm.create_model(model, pretrained=False, **classes)
    if problem := checkpoint.difference(tensors, module.state_dict()):
        raise HeadwiseError(f"timm cannot load {name}: {file} is {found.what} that does not fit: {problem}.")
    module.load_state_dict(tensors)
    if overrides.image_size is not None and overrides.image_size != (side or own):
        if not hasattr(module, "set_input_size"):
            overrides.refuse("image_size", reason=f"timm's {model} has no size that can be set.")
        module.set_input_size(img_size=overrides.image_size)
    return module, notes


def _create(timm: ModuleType, name: str, model: str, overrides: Overrides, **options: Any) -> Any:
    try:
        return timm.create_model(model, **options)
    except TypeError as error:
        if "img_size" in options and "img_size" in cause(error):
            overrides.refuse("image_size", reason=f"timm's {model} has no size that can be set.")
            raise HeadwiseError(
                f"{name}: the checkpoint is for pictures of {options['img_size']} pixels, and timm's {model} has no size that "
                "can be set."
            ) from error
        raise


def _trained_side(module: Any, tensors: Mapping[str, torch.Tensor]) -> int | None:
    """The picture's side in pixels that a square position table is for; None where there is none."""
    table, embed = tensors.get("pos_embed"), getattr(module, "patch_embed", None)
    kernel = tensors.get("patch_embed.proj.weight")
    if table is None or kernel is None or embed is None or table.dim() != 3:
        return None
    extra = getattr(module, "num_prefix_tokens", 0) if not getattr(module, "no_embed_class", False) else 0
    side = round((table.shape[1] - extra) ** 0.5)
    return side * kernel.shape[-1] if side * side == table.shape[1] - extra else None


def _preprocess(overrides: Overrides) -> dict[str, Any]:
    found = {key: overrides.given[key] for key in ("mean", "std", "interpolation") if key in overrides.given}
    if overrides.resize_mode is not None:
        found |= {"crop_mode": CROP_MODES[overrides.resize_mode], "crop_pct": 1.0}
    return found

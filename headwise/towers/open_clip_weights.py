"""A checkpoint into an open_clip model, at the resolution and context of the checkpoint's own position tables.

In: a configuration and a file of weights. Out: the model, or a refusal that names the first parameter that does not
fit. Which file, and which configuration, was decided before.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from headwise.errors import HeadwiseError
from headwise.staging import temporary
from headwise.towers import checkpoint
from headwise.towers.overrides import Overrides

OPENAI = ("input_resolution", "context_length", "vocab_size")  # numbers among the weights of OpenAI's own files


@dataclass(frozen=True)
class Loaded:
    """What a reference gave.

    Arguments:
        module: the open_clip model.
        tokenizer: open_clip's for it.
        config: its `model_cfg`, as it is now.
        notes: what a user should know.
        overrides: with those that the folder itself records.
        own: tensors as they were before the image size was changed, where that is how they are saved.
    """

    module: Any
    tokenizer: Any
    config: Mapping
    notes: tuple[str, ...]
    overrides: Overrides
    own: Mapping[str, torch.Tensor] = field(default_factory=dict)


def at_size(loaded: Loaded, name: str) -> Loaded:
    """A model whose image tower is timm's, at the image size that was asked for. open_clip makes such towers at their own
    size and resizes them afterwards (`force_image_size`), so that is the size that the saved model has, too.

    Raises:
        HeadwiseError: this tower, or this version of open_clip, cannot do that.
    """
    vision, size = loaded.config["vision_cfg"], loaded.overrides.image_size
    if "timm_model_name" not in vision or size in (None, vision.get("image_size", 224)):
        return loaded
    visual = loaded.module.visual
    if not all(hasattr(part, "set_input_size") for part in (visual, visual.trunk)) or hasattr(visual.head, "pool"):
        loaded.overrides.refuse(
            "image_size",
            reason=f"{name} is timm's {vision['timm_model_name']} inside open_clip, which has one size alone. "
            "Use an architecture of that size, or the transformers version of this model.",
        )
    before = loaded.module.state_dict()
    visual.set_input_size(size)
    visual.preprocess_cfg["size"] = (size, size)
    after = loaded.module.state_dict()
    note = f"{name}: read at {size} pixels. open_clip itself reads the refined model so with force_image_size={size}."
    return replace(
        loaded,
        notes=(*loaded.notes, note),
        own={key: value for key, value in before.items() if after[key].shape != value.shape},
    )


def with_weights(
    open_clip: ModuleType,
    name: str,
    reference: str,
    config: dict,
    preprocess: dict[str, Any],
    weights: Path,
    device: str,
    overrides: Overrides,
) -> Loaded:
    """A model of this configuration with these weights, at the resolution and context of the checkpoint's own tables.

    Raises:
        HeadwiseError: a file that is no checkpoint, or one that does not fit the architecture.
    """
    numpy = weights.suffix in (".npz", ".npy")
    found = None if numpy else checkpoint.read(weights)
    names = {} if found is None else checkpoint.fitted(found.tensors, _names(config, found.tensors), str(weights))
    tensors = {} if found is None else {own: found.tensors[key] for key, own in names.items()} or found.tensors
    tensors = {key: value for key, value in tensors.items() if key not in OPENAI}
    notes = _own_tables(name, config, tensors, overrides)
    vision, text = config["vision_cfg"], config["text_cfg"]
    module = without_weights(
        open_clip,
        reference,
        device=device,
        force_quick_gelu=bool(config.get("quick_gelu")),
        force_image_size=vision.get("image_size", 224),
        force_context_length=text.get("context_length", 77),
        force_preprocess_cfg=preprocess,
    )
    if found is not None:
        _check_names(name, found, tensors, module)
    try:
        if found is None or (found.plain and found.tensors.keys() == tensors.keys()):
            open_clip.load_checkpoint(module, str(weights))
        else:
            _load_tensors(open_clip, module, tensors)
    except Exception as error:
        if found is None or not (problem := checkpoint.difference(tensors, module.state_dict())):
            raise
        raise HeadwiseError(
            f"open_clip cannot load {name}: {weights} is {found.what} that does not fit the architecture: {problem}."
        ) from error
    return at_size(Loaded(module, None, config, notes, overrides), name)


def without_weights(open_clip: ModuleType, reference: str, **options: Any) -> Any:
    """A model that weights are loaded into afterwards; open_clip warns that it is random."""
    root = logging.getLogger()  # the one that open_clip warns through

    def tell(record: logging.LogRecord) -> bool:
        return "No pretrained weights loaded" not in record.getMessage()

    root.addFilter(tell)
    try:
        return open_clip.create_model(reference, load_weights=False, pretrained_text=False, **options)
    finally:
        root.removeFilter(tell)


def _load_tensors(open_clip: ModuleType, module: Any, tensors: Mapping[str, torch.Tensor]) -> None:
    """Through open_clip's own loading, which takes files alone and converts what others wrote."""
    from safetensors.torch import save_file

    with temporary() as folder:
        path = folder / "weights.safetensors"
        save_file({key: value.contiguous().clone() for key, value in tensors.items()}, path)
        open_clip.load_checkpoint(module, str(path))


def _names(config: Mapping, tensors: Mapping[str, torch.Tensor]) -> set[str]:
    """Names that end what a checkpoint of this kind calls its parameters, whatever is before them."""
    roots = ("visual.", "text.", "transformer.", "text_decoder.", "image_encoder.", "text_encoder.")
    tops = ("logit_scale", "logit_bias", "positional_embedding", "text_projection", "token_embedding.weight",
            "ln_final.weight", "ln_final.bias")  # fmt: skip
    wanted = set()
    for name in map(checkpoint.without_wrappers, tensors):
        starts = [name.find(root) for root in roots if name.startswith(root) or f".{root}" in name]
        starts = [start for start in starts if start == 0 or (start > 0 and name[start - 1] == ".")]
        if starts:
            wanted.add(name[min(starts) :])
        elif (top := next((top for top in tops if name == top or name.endswith(f".{top}")), None)) is not None:
            wanted.add(top)
    return wanted


def _own_tables(name: str, config: dict, tensors: Mapping[str, torch.Tensor], overrides: Overrides) -> tuple[str, ...]:
    """Set the configuration's image size and context to those that the checkpoint's position tables were trained at.

    Returns:
        What there is to say about it.
    """
    vision, text = config["vision_cfg"], config["text_cfg"]
    notes = []
    size = vision.get("image_size", 224)
    side = _trained_side(vision, tensors)
    trunk = "timm_model_name" in vision
    if side and isinstance(size, int) and side != size and (trunk or overrides.image_size is None):
        if trunk:
            raise HeadwiseError(
                f"{name}: the checkpoint has positions for pictures of {side} pixels, the architecture for {size}, and "
                "open_clip loads towers of timm at their own size alone. Use the architecture of that size."
            )
        notes.append(
            f"{name}: the checkpoint's positions are for pictures of {side} pixels, the architecture says {size}; "
            f"{side} is used. (--image-size {size} interpolates them.)"
        )
        vision["image_size"] = side
    if overrides.image_size is not None and not trunk:
        vision["image_size"] = overrides.image_size
    table = tensors.get("text.positional_embedding", tensors.get("positional_embedding"))
    tokens = table.shape[0] - bool(text.get("embed_cls")) if table is not None and table.dim() == 2 else None
    if tokens is not None and tokens != text.get("context_length", 77):
        notes.append(
            f"{name}: the checkpoint's text positions are for {tokens} tokens, the architecture says "
            f"{text.get('context_length', 77)}; {tokens} are used."
        )
        text["context_length"] = tokens
    return tuple(notes)


def _trained_side(vision: Mapping, tensors: Mapping[str, torch.Tensor]) -> int | None:
    """The picture's side in pixels that a square position table is for; None where there is none."""
    table, patch, extra = tensors.get("visual.positional_embedding"), vision.get("patch_size", 16), 1
    if isinstance(vision.get("layers"), list):
        table, patch = tensors.get("visual.attnpool.positional_embedding"), 32
    elif "timm_model_name" in vision:
        table, kernel = tensors.get("visual.trunk.pos_embed"), tensors.get("visual.trunk.patch_embed.proj.weight")
        if table is None or kernel is None or table.dim() != 3:
            return None
        table, patch, extra = table[0], kernel.shape[-1], int("visual.trunk.cls_token" in tensors)
        extra += tensors["visual.trunk.reg_token"].shape[1] if "visual.trunk.reg_token" in tensors else 0
    if table is None or table.dim() != 2 or not isinstance(patch, int):
        return None
    side = round((len(table) - extra) ** 0.5)
    return side * patch if side * side == len(table) - extra else None


def _check_names(name: str, found: checkpoint.Checkpoint, tensors: Mapping[str, torch.Tensor], module: Any) -> None:
    """
    Raises:
        HeadwiseError: a checkpoint of transformers, or of the image tower alone.
    """
    if any(part in key for key in tensors for part in checkpoint.HUGGING_FACE):
        raise HeadwiseError(
            f"{name}: {found.path} is {found.what} with the names of transformers (the first is {next(iter(tensors))}). "
            "Load the folder that it comes from with hf:FOLDER (config.json and processor beside it)."
        )
    visual = set(module.visual.state_dict())
    if visual and len(visual & {key.removeprefix("visual.") for key in found.tensors}) * 10 >= 9 * len(visual):
        texts = set(module.state_dict()) - {f"visual.{key}" for key in visual}
        bare = {key.removeprefix("text.") for key in texts} - {"logit_scale", "logit_bias"} - visual
        if bare and not bare & {key.removeprefix("text.") for key in tensors}:
            raise HeadwiseError(
                f"{name}: {found.path} is {found.what} of the image tower alone: it lacks {len(texts)} parameters of "
                f"the text tower, the first is {sorted(texts)[0]}. Give the whole checkpoint; or build the model in "
                "Python, load this file into model.visual, and give it to headwise.wrap."
            )

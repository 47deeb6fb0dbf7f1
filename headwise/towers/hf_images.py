"""Pictures of transformers models: another size, mean, interpolation or resizing than the model's files say.

In: the library's image processor, and overrides. Out: a processor that does what they say; a position table
interpolated by transformers' own rule. Without overrides nothing here is used.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from headwise.errors import HeadwiseError
from headwise.towers.hf_blocks import vision_of
from headwise.towers.overrides import Overrides


def with_overrides(image_processor: Any, overrides: Overrides, size: int) -> Any:
    """An image processor that does what the overrides say.

    Arguments:
        image_processor: of transformers; unchanged.
        overrides: what to change.
        size: R of the tower, with the overrides.

    Raises:
        HeadwiseError: a processor that cannot resize the longer side.
    """
    changes: dict[str, Any] = {}
    if overrides.mean is not None:
        changes |= {"image_mean": list(overrides.mean), "do_normalize": True}
    if overrides.std is not None:
        changes |= {"image_std": list(overrides.std), "do_normalize": True}
    if overrides.interpolation is not None:
        from PIL import Image

        changes["resample"] = int(Image.Resampling[overrides.interpolation.upper()])
    if overrides.resize_mode == "longest":
        overrides.refuse("resize_mode", reason="transformers' processors cannot fill a picture up; shortest or squash.")
    spec = image_processor.to_dict()
    if overrides.resize_mode is not None or overrides.image_size is not None:
        mode = overrides.resize_mode or ("shortest" if "shortest_edge" in _sides(spec) else "squash")
        changes |= {"do_resize": True, "do_center_crop": mode == "shortest"}
        if mode == "shortest":
            changes |= {"size": {"shortest_edge": _edge(spec, size)}, "crop_size": {"height": size, "width": size}}
        else:
            changes |= {"size": {"height": size, "width": size}}
    return type(image_processor).from_dict({**spec, **changes}) if changes else image_processor


def _sides(spec: dict) -> dict:
    size = spec.get("size") or {}
    return {key: value for key, value in size.items() if value} if isinstance(size, dict) else {}


def _edge(spec: dict, size: int) -> int:
    """The shorter side before the crop: in the same proportion to the crop as it was."""
    edge, crop = _sides(spec).get("shortest_edge"), (spec.get("crop_size") or {})
    side = crop.get("height") if isinstance(crop, dict) else crop
    return round(size * edge / side) if edge and side else size


def resize_positions(module: Any, size: int) -> None:
    """Interpolate a vision tower's position table for pictures of another size, by transformers' own rule (bicubic).

    Arguments:
        module: the whole model; changed in place, its configuration too.
        size: R in pixels.

    Raises:
        HeadwiseError: smaller than a patch, or positions that headwise does not know.
    """
    embeddings: Any = vision_of(module).embeddings
    table, patch = embeddings.position_embedding.weight.detach(), embeddings.patch_size  # (N, D)
    extra = 1 if hasattr(embeddings, "class_embedding") else 0
    old, new = round((len(table) - extra) ** 0.5), size // patch
    if new < 1 or old * old + extra != len(table):
        raise HeadwiseError(f"An image size of {size} does not go with patches of {patch} and {len(table)} positions.")
    grid = table[extra:].view(1, old, old, -1).permute(0, 3, 1, 2)  # (1, D, old, old)
    grid = nn.functional.interpolate(grid.float(), size=(new, new), mode="bicubic", align_corners=False)
    rows = torch.cat([table[:extra], grid.permute(0, 2, 3, 1).flatten(0, 2).to(table.dtype)])  # (N', D)
    embeddings.position_embedding = nn.Embedding(len(rows), rows.shape[1], _weight=rows.contiguous())
    ids = torch.arange(len(rows), device=rows.device).unsqueeze(0)
    embeddings.register_buffer("position_ids", ids, persistent="position_ids" in embeddings.state_dict())
    embeddings.num_patches, embeddings.num_positions, embeddings.image_size = new * new, len(rows), size
    owner = getattr(module.config, "vision_config", module.config)
    for config in (owner, getattr(embeddings, "config", owner), getattr(vision_of(module), "config", owner)):
        config.image_size = size

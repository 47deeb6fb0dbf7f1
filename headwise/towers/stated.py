"""What the processor in a folder says of pictures, in the words of libraries that have no such processors.

In: overrides with the folder of a processor of transformers, or of an open_clip model. Out: the same overrides with
its mean, deviation, interpolation and resizing; and a refusal where the library then makes other pixels than the
processor itself. Texts are not looked at.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from headwise.errors import HeadwiseError, cause
from headwise.towers import configs
from headwise.towers.base import Model
from headwise.towers.hf_images import with_overrides
from headwise.towers.overrides import Overrides
from headwise.towers.whole import no_foreign_code

FILE, OPEN_CLIP = "preprocessor_config.json", "open_clip_config.json"
FILES = (FILE, "processor_config.json")
SAID = ("mean", "std", "interpolation", "resize_mode")
# Libraries resize with different code (of Pillow or torchvision), which differs by a level or two of 255, by more only
# at single pixels of noise; another mean, interpolation or crop differs by more than this on average.
MEAN_APART = 0.02


@dataclass(frozen=True)
class Stated:
    """What a folder says.

    Arguments:
        folder: the folder.
        overrides: as given, with what the folder says where nothing else was given.
        pixels: R of the tower → the processor's own function, picture → pixels; None without a processor.
    """

    folder: str
    overrides: Overrides
    pixels: Callable[[int], Callable[[Any], torch.Tensor]]


def stated(overrides: Overrides) -> Stated | None:
    """What the processor that was asked for says of pictures; None where none was.

    Raises:
        HeadwiseError: no such folder, no processor in it, a broken one, or one that no other library can follow.
    """
    if overrides.processor is None:
        return None
    folder = Path(check_processor(overrides.processor))
    asked = replace(overrides, processor=None)
    if any((folder / name).is_file() for name in FILES):
        found, pixels = _of_transformers(folder, asked)
    elif (folder / OPEN_CLIP).is_file():
        found, pixels = _of_open_clip(folder, asked)
    else:
        raise HeadwiseError(
            f"--processor {folder} (processor=) holds no {FILE} of transformers and no {OPEN_CLIP}. Say how pictures are "
            "preprocessed with --image-size, --mean, --std, --interpolation and --resize-mode."
        )
    found = {key: value for key, value in found.items() if getattr(overrides, key) is None}
    return Stated(str(folder), replace(overrides, **found), pixels)


def check_processor(folder: str) -> str:
    """The folder of a processor, whose configurations are sound.

    Raises:
        HeadwiseError: no folder, or a broken or hostile configuration in it.
    """
    if not os.path.isdir(folder):
        raise HeadwiseError(f"--processor {folder} (processor=) is not a folder.")
    configs.check_folder(folder)
    return folder


def _of_transformers(folder: Path, asked: Overrides) -> tuple[dict[str, Any], Callable]:
    from transformers import AutoImageProcessor

    try:
        with no_foreign_code():
            processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds
        raise HeadwiseError(f"--processor {folder} (processor=) cannot be read: {cause(error)}.") from error
    spec = processor.to_dict()
    size = spec.get("size") or {}
    sides = {key: value for key, value in size.items() if value} if isinstance(size, Mapping) else {}
    found: dict[str, Any] = {"resize_mode": "shortest" if "shortest_edge" in sides else "squash"}
    kind = {2: "bilinear", 3: "bicubic"}.get(int(spec.get("resample", 3) or 0))
    if kind is None and asked.interpolation is None:
        raise HeadwiseError(
            f"--processor {folder} (processor=) resizes neither bicubic nor bilinear; say which is nearest with "
            "--interpolation."
        )
    found["interpolation"] = kind
    plain = not spec.get("do_normalize", True)
    for key, name, otherwise in (("mean", "image_mean", 0.0), ("std", "image_std", 1.0)):
        value = [otherwise] * 3 if plain else spec.get(name)
        found[key] = (
            None if value is None else tuple(map(float, value if isinstance(value, list | tuple) else [value] * 3))
        )

    def pixels(resolution: int) -> Callable[[Any], torch.Tensor]:
        own = with_overrides(processor, asked, resolution)
        return lambda picture: own(images=[picture], return_tensors="pt")["pixel_values"][0]

    return found, pixels


def _of_open_clip(folder: Path, asked: Overrides) -> tuple[dict[str, Any], Callable]:
    from headwise.towers.open_clip_images import transform_of

    content = configs.read_config(folder / OPEN_CLIP)
    says, model = content.get("preprocess_cfg") or {}, content.get("model_cfg") or {}
    side = asked.image_size or (model.get("vision_cfg") or {}).get("image_size") or 224
    given = {key: asked.given[key] for key in SAID if key in asked.given}
    own = transform_of({**says, **given, "size": side})
    found = {key: tuple(says[key]) if isinstance(says[key], list) else says[key] for key in SAID if key in says}
    return found, lambda _: own


def check_stated(model: Model, said: Stated | None) -> None:
    """
    Raises:
        HeadwiseError: the model's pixels are not those of the processor that was asked for.
    """
    from PIL import Image

    if said is None:
        return
    theirs = said.pixels(model.tower.resolution)
    generator = torch.Generator().manual_seed(0)
    for width, height in ((60, 40), (33, 99), (300, 200)):
        noise = torch.randint(0, 256, (height // 3, width // 3, 3), generator=generator, dtype=torch.uint8)
        picture = Image.fromarray(noise.numpy()).resize((width, height), Image.Resampling.BICUBIC)
        one, other = model.preprocess(picture).float(), theirs(picture).float()  # (3, R, R) twice
        if one.shape != other.shape:
            raise HeadwiseError(
                f"--processor {said.folder} (processor=) makes pictures of {tuple(other.shape)}, {model.name} takes "
                f"{tuple(one.shape)}. Give --image-size too: {one.shape[-1]} fits the pictures to the model, "
                f"{other.shape[-1]} the model to the pictures."
            )
        apart = float((one - other).abs().mean())
        if not apart <= MEAN_APART:
            raise HeadwiseError(
                f"{model.name}'s library cannot do what --processor {said.folder} (processor=) does: the pixels differ "
                f"by {apart:.3g} on average. Say what it can do with --mean, --std, --interpolation and --resize-mode, "
                "or pass the processor's own function to headwise.wrap."
            )

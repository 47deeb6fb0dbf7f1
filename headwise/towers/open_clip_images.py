"""Pictures of open_clip models: which of open_clip's configurations a preprocessing is, so that saving can say it.

In: a preprocessing, or a configuration. Out: the other of the two; None where no configuration says it. Compared by
what it makes of pictures, not by its name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch

from headwise.errors import HeadwiseError

PROBES = ((60, 40), (33, 99))


def transform_of(preprocess: Mapping[str, Any]) -> Callable:
    """open_clip's own preprocessing of a configuration (`preprocess_cfg`)."""
    from open_clip.transform import PreprocessCfg, image_transform_v2

    transform: Any = image_transform_v2(PreprocessCfg(**preprocess), is_train=False)
    return transform


def own_transform(visual: Any) -> Callable:
    """The preprocessing that an open_clip model carries.

    Raises:
        HeadwiseError: it carries none.
    """
    config = getattr(visual, "preprocess_cfg", None)
    if config is None:
        raise HeadwiseError(
            "This open_clip model does not carry its preprocessing. Pass it: "
            "headwise.wrap(model, (preprocess, tokenizer))."
        )
    return transform_of(config)


def described(preprocess: Callable, carried: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration of a preprocessing that a user gave; None where open_clip's configurations cannot say it.

    Arguments:
        preprocess: picture → pixels.
        carried: what the model says of itself; where the user's is the same, it is returned.
    """
    for guess in (dict(carried), {**carried, **_read(preprocess)}):
        if guess and _same(preprocess, transform_of(guess)):
            return guess
    return None


def _read(preprocess: Any) -> dict[str, Any]:
    """What a torchvision `Compose` says of itself, in open_clip's words."""
    found: dict[str, Any] = {}
    for step in getattr(preprocess, "transforms", ()):
        kind = type(step).__name__
        if kind == "Normalize":
            found |= {"mean": tuple(map(float, step.mean)), "std": tuple(map(float, step.std))}
        elif kind in ("Resize", "ResizeKeepRatio"):
            found["interpolation"] = str(getattr(step.interpolation, "value", step.interpolation))
            squash = isinstance(step.size, list | tuple) and len(step.size) == 2
            found["resize_mode"] = "longest" if kind == "ResizeKeepRatio" else "squash" if squash else "shortest"
    return found


def _same(one: Callable, other: Callable) -> bool:
    from PIL import Image

    generator = torch.Generator().manual_seed(0)
    for width, height in PROBES:
        noise = torch.randint(0, 256, (height, width, 3), generator=generator, dtype=torch.uint8)
        picture = Image.fromarray(noise.numpy())
        try:
            a, b = one(picture), other(picture)
        except Exception:  # whatever the user's function raises is said when its pixels are checked
            return False
        if not isinstance(a, torch.Tensor) or a.shape != b.shape or not torch.allclose(a.float(), b, atol=1e-5):
            return False
    return True

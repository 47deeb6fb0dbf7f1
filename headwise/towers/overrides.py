"""What a user may say about a model when loading it: how pictures are preprocessed and where captions are cut.

In: values as users type them. Out: `Overrides`, checked. What a library makes of them, or that it cannot, is in its
own file.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from headwise.errors import HeadwiseError
from headwise.wording import option

INTERPOLATIONS = ("bicubic", "bilinear")
RESIZE_MODES = ("shortest", "longest", "squash")
LARGEST = 4096  # pixels a side: ten times what towers are made for
IMAGE = ("image_size", "mean", "std", "interpolation", "resize_mode")


@dataclass(frozen=True)
class Overrides:
    """What to do otherwise than the model's own files say; None: as they say.

    Arguments:
        image_size: R in pixels; the position table is interpolated by the library's own rule.
        mean, std: per channel, of pixels in 0..1.
        interpolation: `bicubic` or `bilinear`.
        resize_mode: `shortest` (the shorter side becomes R, the centre is cropped), `longest` (the longer side
            becomes R, the rest is filled) or `squash` (both sides become R).
        context_length: captions are cut at so many tokens, special ones included.
        processor: a folder with a transformers processor, in place of the model's own.

    Raises:
        HeadwiseError: a value that no model can have.
    """

    image_size: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    interpolation: str | None = None
    resize_mode: str | None = None
    context_length: int | None = None
    processor: str | None = None

    def __post_init__(self) -> None:
        for name in ("mean", "std"):
            if (value := getattr(self, name)) is not None:
                object.__setattr__(self, name, _channels(name, value))
        if self.std is not None and min(self.std) <= 0:
            raise HeadwiseError(f"A standard deviation of {min(self.std)} is not above 0.")
        if self.processor is not None:
            object.__setattr__(self, "processor", str(self.processor))
        _one_of("interpolation", self.interpolation, INTERPOLATIONS)
        _one_of("resize mode", self.resize_mode, RESIZE_MODES)
        if self.image_size is not None and not 1 <= _whole("image size", self.image_size) <= LARGEST:
            raise HeadwiseError(f"An image size of {self.image_size} pixels is not one from 1 to {LARGEST}.")
        if self.context_length is not None and _whole("context length", self.context_length) < 3:
            raise HeadwiseError(
                f"A context length of {self.context_length} leaves no room for a word between the special tokens; "
                "3 is the least."
            )

    @property
    def given(self) -> dict[str, Any]:
        """What was set, as plain JSON values."""
        found = {name: value for name, value in asdict(self).items() if value is not None}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}

    def refuse(self, *names: str, reason: str) -> None:
        """
        Raises:
            HeadwiseError: one of these was set.
        """
        if asked := [name for name in names if name in self.given]:
            raise HeadwiseError(f"{' and '.join(map(option, asked))} cannot be set here: {reason}")


def _channels(name: str, value: Any) -> tuple[float, ...]:
    numbers: Sequence = (value,) if isinstance(value, int | float) else tuple(value)
    numbers = numbers * 3 if len(numbers) == 1 else numbers
    try:
        found = tuple(float(number) for number in numbers)
    except (TypeError, ValueError, OverflowError) as error:
        raise HeadwiseError(f"The {name} {value!r} is not numbers: {error}. Give one, or three.") from error
    if len(found) != 3 or not all(map(math.isfinite, found)):
        raise HeadwiseError(f"The {name} {value!r} is not one finite number for each of three channels.")
    return found


def _one_of(what: str, value: str | None, known: Sequence[str]) -> None:
    if value is not None and value not in known:
        raise HeadwiseError(f"{value!r} is not an {what}".replace("an resize", "a resize") + f": {', '.join(known)}.")


def _whole(what: str, value: Any) -> int:
    if type(value) is not int:
        raise HeadwiseError(f"The {what} {value!r} is not a whole number.")
    return value

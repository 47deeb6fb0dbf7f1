"""Cells of a table: the image in one, the text in one.

In: any value that a file or a program puts into a cell. Out: nothing, a text, the name of a file, or an encoded
image. A refusal is a reason without a place; whoever knows the row adds it.
"""

from __future__ import annotations

import base64
import binascii
import io
import os
import re
from collections.abc import Mapping

import numpy as np

from headwise.errors import HeadwiseError

# how PNG, JPEG, GIF, WebP and TIFF begin in base64, as tables hold pictures
WRITTEN = re.compile(r"(?:data:[\w/+.;=-]*,)?(?=iVBORw0KGgo|/9j/|R0lGOD|UklGR|SUkqA|TU0AK)[A-Za-z0-9+/\s]{60,}=*\s*")
DATA_URL = "data:"
NEEDED = "a path, encoded bytes, a PIL image or a uint8 array is needed"


def blank(value: object) -> bool:
    """Whether a cell holds nothing: None, no text but spaces, or what pandas and numpy write for it (NaN, NaT, NA)."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    if isinstance(value, str):
        return not value.strip()
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def text(value: object) -> str | None:
    """A cell as a name of a split, a group or a class; None if it is blank. Whole floats become integers, as pandas
    makes floats of a column of integers with a gap.

    Raises:
        HeadwiseError: not valid UTF-8 (a reason, without a place).
    """
    if blank(value):
        return None
    if isinstance(value, list | tuple | np.ndarray | Mapping):
        raise HeadwiseError(f"{value!r:.40} is a {type(value).__name__}; one name is needed")
    if isinstance(value, float | np.floating) and float(value).is_integer():
        value = int(value)
    found = str(value).strip()
    check_utf8(found, f"{found[:40]!r}")
    return found


def check_utf8(value: str, what: str) -> None:
    """
    Raises:
        HeadwiseError: bytes that are not UTF-8, which readers turn into lone surrogates (a reason, without a place).
    """
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise HeadwiseError(f"{what} is not valid UTF-8; save the file in this encoding")


def image_name(value: object) -> str | None:
    """The file that an image cell names, None if the cell holds the image itself.

    Raises:
        HeadwiseError: a cell that holds neither (a reason, without a place).
    """
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and value.strip():
        return None if _base64(value) else value.strip()
    if isinstance(value, bytes | bytearray | memoryview | np.ndarray) or hasattr(value, "convert") or _tensor(value):
        return None
    kind = "nothing" if blank(value) else f"a {type(value).__name__}"
    raise HeadwiseError(f"the image is {kind}; {NEEDED}")


def image_bytes(value: object) -> bytes:
    """The encoded image that a cell holds; pictures in memory become PNG.

    Raises:
        HeadwiseError: an array that is no picture (a reason, without a place).
    """
    if isinstance(value, Mapping):
        value = value["bytes"]
    if isinstance(value, str):
        try:
            return base64.b64decode("".join(value.rpartition(",")[2].split()), validate=True)
        except binascii.Error as error:
            raise HeadwiseError(f"the image in base64 is damaged ({error})") from None
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return _png(_array(value) if _tensor(value) else value)


def number(value: object) -> int | None:
    """A whole number as Python, numpy and torch write one; None for anything else."""
    if isinstance(value, bool | np.bool_):
        return None
    if _tensor(value):
        return int(value) if value.ndim == 0 and "int" in str(value.dtype) else None  # type: ignore[attr-defined]
    return int(value) if isinstance(value, int | np.integer) else None


def _base64(value: str) -> bool:
    return WRITTEN.fullmatch(value.strip()) is not None or value.strip().startswith(DATA_URL + "image/")


def _tensor(value: object) -> bool:
    return type(value).__module__ == "torch" and hasattr(value, "detach")


def _array(tensor) -> np.ndarray:
    """A tensor (3, height, width), uint8 or what torchvision's `ToTensor` makes of it → uint8 (height, width, 3)."""
    tensor = tensor.detach().cpu()
    near = 0.07 if str(tensor.dtype).rpartition(".")[2] == "float16" else 0.01  # half of the last bit, of 255
    values = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # numpy knows no bfloat16
    if values.ndim == 3 and values.shape[0] in (1, 3):
        values = np.moveaxis(values, 0, 2)  # (h, w, c)
    if np.issubdtype(values.dtype, np.floating):
        scaled = values * 255
        whole = np.rint(scaled)
        if not (np.abs(scaled - whole) < near).all() or whole.min(initial=0) < 0 or whole.max(initial=0) > 255:
            raise HeadwiseError(
                "a tensor that is no picture any more (normalised or resized); give the picture before transforms"
            )
        values = whole.astype(np.uint8)
    return values


def _png(picture) -> bytes:
    from PIL import Image, ImageOps

    from headwise.data.decode import to_rgb

    if isinstance(picture, np.ndarray):
        channels = picture.shape[2] if picture.ndim == 3 else 1
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or channels not in (1, 3, 4) or not picture.size:
            raise HeadwiseError(
                f"an array of {picture.dtype} {picture.shape} is not a picture; uint8 (height, width, 3) is needed"
            )
        picture = Image.fromarray(picture.squeeze(2) if picture.shape[2:] == (1,) else picture)
    stream = io.BytesIO()
    to_rgb(ImageOps.exif_transpose(picture)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()

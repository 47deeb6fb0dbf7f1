"""Bytes → an RGB picture, the same way for every source.

As the field's loaders do: first frame of an animation, `convert("RGB")` (which drops an alpha channel, it
does not composite it). Beyond them: the EXIF orientation is applied (as `datasets` does), and 16-bit grey is
scaled to 8 bits instead of clipped to white, and floats of 0..1 are scaled instead of cut to black.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

from headwise.data.kinds import other_kind
from headwise.errors import HeadwiseError

VERSION = 3  # part of every cache key: raise it when a picture comes out differently
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I", "F")
DARKEST = 4096  # a 16-bit picture without a value this large holds 12 bits or fewer
DIM = 16  # a picture of floats above 1 without a value this large is no picture in 0..255
_RANGES = "scale it to 0..255 or 0..65535 (floats: 0..1)"


@contextmanager
def pillow_warnings() -> Iterator[None]:
    """Inside, a decompression-bomb warning is an error, and remarks on odd metadata are silent.

    Warning filters belong to the process: enter this once around a pool of threads, not in each thread.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def open_image(data: bytes) -> Image.Image:
    """Header only.

    Raises:
        HeadwiseError: not an image, or more pixels than Pillow's safety limit. The message is a reason
            without a place, for a list of bad rows.
    """
    if not data:
        raise HeadwiseError("the image is empty (0 bytes)")
    try:
        image = Image.open(io.BytesIO(data))
        limit = Image.MAX_IMAGE_PIXELS
        if limit and image.width * image.height > limit:
            raise _too_large()
        return image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large() from None
    except (HeadwiseError, MemoryError):
        raise
    except Image.UnidentifiedImageError:
        raise HeadwiseError(f"not an image ({other_kind(data[:512]) or 'no format that Pillow knows'})") from None
    except Exception as error:  # broken headers raise many kinds
        raise HeadwiseError(f"not a readable image ({_first_line(error)})") from None


def decode(data: bytes) -> Image.Image:
    """The picture in RGB, upright.

    Raises:
        HeadwiseError: truncated or broken, or as for `open_image`.
    """
    image = open_image(data)
    deep = _sixteen_bits(image)
    try:
        return _not_black(to_rgb(ImageOps.exif_transpose(image)), deep)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large() from None
    except (HeadwiseError, MemoryError):  # short of memory is no fault of the picture
        raise
    except Exception as error:
        raise HeadwiseError(f"truncated or broken image ({_first_line(error)})") from None


def decode_small(data: bytes, size: int) -> Image.Image:
    """The whole file decoded, as `decode`, but JPEGs at the smallest scale that is at least `size`: enough to
    find what is broken at a third of the time.

    Raises:
        HeadwiseError: as for `decode`.
    """
    image = open_image(data)
    deep = _sixteen_bits(image)
    try:
        image.draft("RGB", (size, size))
        return _not_black(to_rgb(ImageOps.exif_transpose(image)), deep)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large() from None
    except (HeadwiseError, MemoryError):  # short of memory is no fault of the picture
        raise
    except Exception as error:
        raise HeadwiseError(f"truncated or broken image ({_first_line(error)})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """8 bits for each of three colours, whatever the picture has.

    Raises:
        HeadwiseError: numbers of which nobody can say what is white (a reason, without a place).
    """
    if image.mode in DEEP:
        image = Image.fromarray(_eight_bits(np.asarray(image)))
    return image.convert("RGB")


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey (h, w) of more than 8 bits → uint8 (h, w): 0..1 (floats), 0..255 or 0..65535, by the largest value.

    Values of 16 bits lose their lower 8, as Pillow itself reads 16-bit colour. A picture of another range (12 bits,
    32 bits, heights in metres) would come out black or white without a word, so it is refused.
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    floats = values.dtype.kind == "f"
    if not (np.isfinite(low) and np.isfinite(high)) or low < 0 or high > 65535:
        raise HeadwiseError(f"values from {low:g} to {high:g}; {_RANGES}")
    if floats and high <= 1:
        return np.rint(values * 255).astype(np.uint8)
    if floats and high < DIM:
        raise HeadwiseError(f"floats up to {high:g}, neither in 0..1 nor in 0..255; {_RANGES}")
    if high <= 255:
        return np.rint(values).astype(np.uint8)
    if high < DARKEST:
        raise HeadwiseError(f"values up to {high:g} of 65535, it would be almost black; {_RANGES}")
    return (values.astype(np.int64) >> 8).astype(np.uint8)


def _sixteen_bits(image: Image.Image) -> bool:
    """Whether a file has 16 bits a colour, which Pillow makes 8 when it reads the pixels."""
    return image.mode not in DEEP and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _not_black(picture: Image.Image, deep: bool) -> Image.Image:
    """
    Raises:
        HeadwiseError: 16 bits a colour that hold 12 or fewer: the picture comes out almost black.
    """
    highest = max(high for _, high in picture.getextrema()) if deep else 255  # type: ignore[misc]
    if highest < DARKEST >> 8:
        raise HeadwiseError(f"values below {DARKEST} of 65535, it would be almost black; {_RANGES}")
    return picture


def _too_large() -> HeadwiseError:
    return HeadwiseError(
        f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, it could be a decompression bomb; make it smaller"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__

"""Bytes → an RGB picture, the same way for every source.

As the field's loaders do: first frame of an animation, `convert("RGB")` (which drops an alpha channel, it
does not composite it). Beyond them: the EXIF orientation is applied (as `datasets` does), and 16-bit grey is
scaled to 8 bits instead of clipped to white.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps

from headwise.errors import HeadwiseError

VERSION = 1  # part of every cache key: raise it when a picture comes out differently
DEEP = ("I;16", "I;16L", "I;16B", "I;16N", "I")


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
    except HeadwiseError:
        raise
    except Image.UnidentifiedImageError:
        raise HeadwiseError("not an image (no format that Pillow knows)") from None
    except Exception as error:  # broken headers raise many kinds
        raise HeadwiseError(f"not a readable image ({_first_line(error)})") from None


def decode(data: bytes) -> Image.Image:
    """The picture in RGB, upright.

    Raises:
        HeadwiseError: truncated or broken, or as for `open_image`.
    """
    image = open_image(data)
    try:
        return to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large() from None
    except Exception as error:
        raise HeadwiseError(f"truncated or broken image ({_first_line(error)})") from None


def decode_small(data: bytes, size: int) -> Image.Image:
    """The whole file decoded, as `decode`, but JPEGs at the smallest scale that is at least `size`: enough to
    find what is broken at a third of the time."""
    image = open_image(data)
    try:
        image.draft("RGB", (size, size))
        return to_rgb(ImageOps.exif_transpose(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_large() from None
    except Exception as error:
        raise HeadwiseError(f"truncated or broken image ({_first_line(error)})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in DEEP:
        values = np.asarray(image).astype(np.int64)  # (h, w)
        if image.mode != "I" or values.max(initial=0) > 255:
            values = values >> 8  # as Pillow itself reads 16-bit colour
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def _too_large() -> HeadwiseError:
    return HeadwiseError(
        f"more than {Image.MAX_IMAGE_PIXELS:,} pixels, it could be a decompression bomb; make it smaller"
    )


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__

"""Every image decoded once: which are broken, and what each looks like in a few bytes.

In: images whose hash is known. Out: the same with their looks (8 × 8 × RGB), and why others are broken. The verdict
on a set of images is remembered in the cache, so that later runs do not decode again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from PIL import Image

from headwise.checked import Damaged
from headwise.data.decode import VERSION, decode_small, pillow_warnings
from headwise.data.pairs import ImageRef
from headwise.data.workers import Progress, each
from headwise.errors import HeadwiseError
from headwise.files import OTHER_CACHE, write_files

SIDE = 8  # a look is 8 × 8 pixels in RGB
LOOK_BYTES = SIDE * SIDE * 3


def look_of(image: Image.Image) -> bytes:
    """A picture's thumbnail, 8 × 8 × RGB (192 bytes)."""
    return image.resize((SIDE, SIDE), Image.Resampling.BOX).tobytes()


def check_images(
    refs: Sequence[ImageRef],
    *,
    cache_dir: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[list[ImageRef], dict[int, str]]:
    """Decode every image.

    Arguments:
        refs: images whose hash is known.
        cache_dir: where the verdict is remembered; None: nowhere.

    Returns:
        The images with their looks, and index → reason of those that are broken.
    """
    digest = hashlib.sha256(f"{VERSION} {LOOK_BYTES}".encode())
    for ref in refs:
        digest.update(ref.hash.encode())
    path = None if cache_dir is None else cache_dir / "checked" / f"{digest.hexdigest()[:32]}"
    verdict = _load(path, len(refs)) if path else None
    if verdict is None:
        verdict = _decode_all(refs, workers, progress)
        if path:
            _save(path, *verdict)
    elif verdict[1]:  # what could not be read may be readable now: another Pillow, another limit of pixels
        looks, known = verdict
        some = sorted(known)
        found, still = _decode_all([refs[i] for i in some], workers, None)
        for i, look in zip(some, found, strict=True):
            looks[i] = look
        verdict = looks, {some[k]: reason for k, reason in still.items()}
        if path and verdict[1] != known:
            _save(path, *verdict)
    looks, reasons = verdict
    return [replace(ref, look=look) for ref, look in zip(refs, looks, strict=True)], reasons


def _decode_all(refs: Sequence[ImageRef], workers: int | None, progress: Progress | None):
    def check(ref: ImageRef) -> bytes | str:
        data = ref.read()
        try:
            return look_of(decode_small(data, SIDE * 8))
        except HeadwiseError as error:
            return str(error)

    looks: list[bytes] = []
    reasons: dict[int, str] = {}
    with pillow_warnings():
        for i, found in enumerate(each(check, refs, workers, progress)):
            looks.append(found if isinstance(found, bytes) else bytes(LOOK_BYTES))
            if isinstance(found, str):
                reasons[i] = found
    return looks, reasons


def _load(path: Path, count: int) -> tuple[list[bytes], dict[int, str]] | None:
    """The remembered verdict, or None if there is none or it is damaged, which is said."""
    try:
        head, _, body = path.read_bytes().partition(b"\n")
        found = json.loads(head)
        if found["digest"] != _digest(found["reasons"], body) or len(body) != count * LOOK_BYTES:
            raise Damaged("the checksum differs")
        reasons = {int(i): reason for i, reason in found["reasons"].items()}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        logging.getLogger("headwise").warning(
            f"What is remembered of these images in {path} is damaged; they are decoded and looked at again."
        )
        return None
    return [body[i : i + LOOK_BYTES] for i in range(0, len(body), LOOK_BYTES)], reasons


def _digest(reasons: Mapping[int, str], body: bytes) -> str:
    """Of all that is remembered: another row's reason would leave out another image."""
    return hashlib.sha256(json.dumps(reasons).encode() + b"\n" + body).hexdigest()


def _save(path: Path, looks: list[bytes], reasons: dict[int, str]) -> None:
    body = b"".join(looks)
    head = json.dumps({"digest": _digest(reasons, body), "reasons": reasons}).encode()
    write_files(path.parent, {path.name: head + b"\n" + body}, advice=OTHER_CACHE)

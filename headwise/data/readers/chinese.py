"""Chinese-CLIP's layout: `{split}_imgs.tsv` (id, tab, base64) and `{split}_texts.jsonl` (text, image_ids).

A text may belong to several images. As in Chinese-CLIP's own evaluation it is one query and one entry of the gallery:
text → image is right if any of its images is found, image → text if any of the image's texts is.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from itertools import count
from pathlib import Path

from headwise.data.files import join
from headwise.data.place import Place
from headwise.data.readers.tables import lines_of
from headwise.data.rows import Row, Table
from headwise.errors import HeadwiseError

IMAGES, TEXTS = "_imgs.tsv", "_texts.jsonl"


def read_chinese_clip(place: Place) -> Table:
    """
    Raises:
        HeadwiseError: no such folder, a split without its texts, or no images at all.
    """
    folder = Path(place.location)
    if not os.path.isdir(folder):
        raise HeadwiseError(f"{place.location} is not a folder; one with {{split}}{IMAGES} files is needed.")
    found = sorted(path.name.removesuffix(IMAGES) for path in folder.glob(f"*{IMAGES}"))
    if not found:
        raise HeadwiseError(f"{place.location} holds no {{split}}{IMAGES}, such as test{IMAGES}.")
    for split in place.split:
        if split not in found:
            raise HeadwiseError(f"{place.name}: there is no split {split!r}. Its splits are: {', '.join(found)}.")
    splits = [split for split in found if place.keep(split)]
    for split in splits:
        if not (folder / f"{split}{TEXTS}").is_file():
            raise HeadwiseError(f"{folder / (split + TEXTS)} does not exist; {split}{IMAGES} needs it.")

    def rows() -> Iterator[Row]:
        texts = count()  # a text is its line
        for split in splits:
            yield from _split(place.location, split, texts)

    return Table(place.name, rows())


def _split(folder: str, split: str, numbers: Iterator[int]) -> Iterator[Row]:
    """First the rows of the images in their order, then what is wrong with texts."""
    images, texts = join(folder, f"{split}{IMAGES}"), join(folder, f"{split}{TEXTS}")
    captions: dict[str, dict[int, object]] = defaultdict(dict)
    places: dict[str, str] = {}
    bad: list[Row] = []
    for number, line in enumerate(lines_of(texts), 1):
        if line.strip():
            origin = f"{texts} line {number}"
            problem = _take(line, next(numbers), captions, places, origin)
            if problem:
                bad.append(Row(origin, problem=problem, split=split))
    seen: dict[str, int] = {}
    offset = 0
    for number, line in enumerate(_raw_lines(images), 1):
        start, offset = offset, offset + len(line)
        if not line.strip():
            continue
        origin = f"{images} line {number}"
        name, tab, _ = line.partition(b"\t")
        key = name.decode("utf-8", "replace").strip().removeprefix("\ufeff")
        if not tab:
            yield Row(origin, problem="not of the form id, tab, base64", split=split)
        elif key in seen:
            yield Row(origin, problem=f"image {key} is already in line {seen[key]}", split=split)
        else:
            seen[key] = number
            fetch = partial(_fetch, images, start + len(name) + 1, len(line) - len(name) - 1)
            found = captions.get(key, {})
            yield Row(
                origin,
                fetch=fetch,
                captions=tuple(found.values()),
                key=f"{images}#{key}",
                id=key,
                split=split,
                problem=None if found else f"no text names image {key}",
                text_ids=tuple(found),
            )
    for key, origin in places.items():
        if key not in seen:
            yield Row(origin, problem=f"image {key} is not in {split}{IMAGES}", split=split)
    yield from bad


def _take(
    line: str, text: int, captions: dict[str, dict[int, object]], places: dict[str, str], origin: str
) -> str | None:
    """Add a line's text to its images; what is wrong with the line, if anything."""
    try:
        item = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error})"
    if not isinstance(item, dict) or "text" not in item:
        return "not an object with 'text' and 'image_ids'"
    if not isinstance(item.get("image_ids"), list) or not item["image_ids"]:
        return "image_ids names no image"
    for image in item["image_ids"]:
        captions[str(image)][text] = item["text"]
        places.setdefault(str(image), origin)
    return None


def _raw_lines(path: str) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            yield from file
    except OSError as error:
        raise HeadwiseError(f"{path}: cannot be read: {error.strerror or error}") from None


def _fetch(path: str, start: int, length: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        data = file.read(length)
    try:
        # both alphabets are in use
        return base64.b64decode(data.strip().replace(b"-", b"+").replace(b"_", b"/"), validate=True)
    except binascii.Error as error:
        raise HeadwiseError(f"the image is not valid base64 ({error})") from None

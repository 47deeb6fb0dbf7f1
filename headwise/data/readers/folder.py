"""A folder of images: with a metadata file, with a `.txt` of captions beside each image, or with a folder for each
class.

In: a folder. Out: records of its metadata file, rows of images with their text files, or records of image and class.
Which of the three it is, is seen in the folder. Symbolic links that lead out of it become bad rows.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from headwise.data.columns import Wanted
from headwise.data.files import outside
from headwise.data.readers.arrow import read_parquet
from headwise.data.readers.tables import read_table
from headwise.data.records import Record, Records
from headwise.data.rows import Row, Table
from headwise.data.split_words import meaning
from headwise.errors import HeadwiseError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")


def read_folder(folder: str, wanted: Wanted) -> Table | Records:
    """The images of a folder and of its subfolders.

    Captions come from `metadata.csv`, `.tsv`, `.jsonl` or `.parquet` in the folder (image paths relative to
    it), or else from a `.txt` beside each image, one caption a line. Where there is neither, and every image is in a
    subfolder, the subfolders are classes (`cat/1.jpg`), below a folder for each split if there are any
    (`train/cat/1.jpg`). Symbolic links that lead out of the folder are bad rows.

    Raises:
        HeadwiseError: no images, or neither captions nor classes.
    """
    found = [name for name in METADATA if (Path(folder) / name).is_file()]
    if len(found) > 1:
        raise HeadwiseError(f"{folder} has {' and '.join(found)}; keep one, or give the one you mean by its path.")
    if found:
        path = str(Path(folder) / found[0])
        kind = found[0].rsplit(".", 1)[1]
        return replace(read_parquet(path) if kind == "parquet" else read_table(path, kind), name=folder)
    images, texts = _files(folder)
    if not images:
        raise HeadwiseError(
            f"{folder} holds no images ({', '.join(IMAGE_ENDINGS)}) and no metadata file ({', '.join(METADATA)})."
        )
    if texts:
        return Table(folder, _rows(folder, images, texts))
    if (classes := _classes(folder, images)) is not None:
        return classes
    raise HeadwiseError(
        f"{folder} holds {len(images):,} images but no captions. Put a metadata.csv with the columns file_name and "
        "caption into it, a .txt file beside each image, or every image into the folder of its class."
    )


def _files(folder: str) -> tuple[list[str], list[str]]:
    """Paths of images and of texts, relative to the folder, sorted."""
    images, texts = [], []
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = os.path.relpath(os.path.join(place, name), folder)
            if name.lower().endswith(IMAGE_ENDINGS):
                images.append(path)
            elif name.lower().endswith(".txt"):
                texts.append(path)
    return images, texts


def _classes(folder: str, images: list[str]) -> Records | None:
    """Images whose class is their folder, None unless each has one and there are several."""
    parts = [name.split(os.sep)[:-1] for name in images]
    split = all(len(part) > 1 and meaning(part[0]) for part in parts)
    level = 1 if split else 0
    if any(len(part) <= level for part in parts) or len({part[level] for part in parts}) < 2:
        return None

    def records() -> Iterator[Record]:
        for name, part in zip(images, parts, strict=True):
            cells = {"image": name, "label": part[level]} | ({"split": part[0]} if split else {})
            yield Record(os.path.join(folder, name), cells)

    return Records(folder, ("image", "label", *(("split",) if split else ())), records())


def _rows(folder: str, images: list[str], texts: list[str]) -> Iterator[Row]:
    by_stem = {os.path.splitext(name)[0]: name for name in texts}
    for name in images:
        path = os.path.join(folder, name)
        sidecar = by_stem.pop(os.path.splitext(name)[0], None)
        row = Row(path, (name,), id=name)
        if sidecar is None:
            yield replace(row, problem="there is no .txt with captions beside the image")
        elif outside(path, folder) or outside(os.path.join(folder, sidecar), folder):
            yield replace(row, problem="a symbolic link leads out of the folder")
        else:
            yield _captioned(row, os.path.join(folder, sidecar))
    for name in by_stem.values():
        yield Row(os.path.join(folder, name), problem="captions without an image of the same name beside them")


def _captioned(row: Row, sidecar: str) -> Row:
    try:
        text = Path(sidecar).read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        return replace(row, problem=f"the captions {sidecar} cannot be read ({error})")
    return replace(row, captions=tuple(text.split("\n")))  # other marks of Unicode may stand in a caption

"""A folder of images with a metadata file, or with a `.txt` of captions beside each image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from headwise.data.columns import Wanted
from headwise.data.files import outside, read_bytes
from headwise.data.readers.arrow import read_parquet
from headwise.data.readers.tables import read_table
from headwise.data.rows import Row, Table
from headwise.errors import HeadwiseError

IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")
METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")


def read_folder(folder: str, wanted: Wanted) -> Table:
    """The images of a folder and of its subfolders.

    Captions come from `metadata.csv`, `.tsv`, `.jsonl` or `.parquet` in the folder (image paths relative to
    it), or else from a `.txt` beside each image, one caption a line. Symbolic links that lead out of the
    folder are bad rows.

    Raises:
        HeadwiseError: no images, or captions of neither kind.
    """
    found = [name for name in METADATA if (Path(folder) / name).is_file()]
    if len(found) > 1:
        raise HeadwiseError(f"{folder} has {' and '.join(found)}; keep one, or give the one you mean by its path.")
    if found:
        path = str(Path(folder) / found[0])
        kind = found[0].rsplit(".", 1)[1]
        table = read_parquet(path, wanted, folder) if kind == "parquet" else read_table(path, kind, wanted, folder)
        return replace(table, name=folder, rows=(_inside(row, folder) for row in table.rows))
    images, texts = _files(folder)
    if not images:
        raise HeadwiseError(
            f"{folder} holds no images ({', '.join(IMAGE_ENDINGS)}) and no metadata file ({', '.join(METADATA)})."
        )
    if not texts:
        raise HeadwiseError(
            f"{folder} holds {len(images):,} images but no captions. Put a metadata.csv with the columns file_name and "
            "caption into it, or a .txt file beside each image."
        )
    return Table(folder, _rows(folder, images, texts))


def _inside(row: Row, folder: str) -> Row:
    if row.path is not None and "://" not in row.path and outside(row.path, folder):
        return replace(row, problem=f"the image {row.path} is outside the folder")
    return row


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


def _rows(folder: str, images: list[str], texts: list[str]) -> Iterator[Row]:
    by_stem = {os.path.splitext(name)[0]: name for name in texts}
    for name in images:
        path = os.path.join(folder, name)
        sidecar = by_stem.pop(os.path.splitext(name)[0], None)
        row = Row(path, partial(read_bytes, path), key=path, id=name, path=path)
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
    return replace(row, captions=tuple(line for line in text.splitlines() if line.strip()))

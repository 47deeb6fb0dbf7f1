"""A folder of images: with a metadata file, with a `.txt` of captions beside each image, or with a folder for each
class.

In: a folder. Out: records of its metadata file, rows of images with their text files, or records of image and class.
Which of the three it is, is seen in the folder. Symbolic links that lead out of it become bad rows.
"""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from headwise.data.captions import lines_in
from headwise.data.columns import Wanted
from headwise.data.files import outside
from headwise.data.readers.arrow import read_parquet
from headwise.data.readers.tables import read_table
from headwise.data.records import Record, Records
from headwise.data.rows import Row, Table
from headwise.data.split_words import meaning
from headwise.errors import HeadwiseError

# also such as Pillow may not read here: an image that is left out without a word would be worse than a bad row
IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jp2", ".jxl", ".ppm", ".pgm", ".tga"),
)
METADATA = ("metadata.csv", "metadata.tsv", "metadata.jsonl", "metadata.parquet")


def read_folder(folder: str, wanted: Wanted) -> Table | Records:
    """The images of a folder and of its subfolders.

    Captions come from `metadata.csv`, `.tsv`, `.jsonl` or `.parquet` in the folder (image paths relative to
    it), or else from a `.txt` beside each image, one caption a line. Where there is neither, and every image is in a
    subfolder, the subfolders are classes (`cat/1.jpg`), below a folder for each split if there are any
    (`train/cat/1.jpg`). Where the images alone are wanted, all of them. Symbolic links that lead out of the folder are bad rows.

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
    images, texts, links = _files(folder)
    if links:
        raise HeadwiseError(
            f"{links[0]} is a link to a folder, and links are not followed. Put the folder itself there, or give a "
            "metadata file that names the images."
        )
    if not images:
        raise HeadwiseError(
            f"{folder} holds no images ({', '.join(IMAGE_ENDINGS)}) and no metadata file ({', '.join(METADATA)})."
        )
    stems = {stem for name in images for stem in _stems(name)}
    if wanted.bare:
        return Table(folder, (_image(folder, name) for name in images))
    if any(_plain(os.path.splitext(name)[0]) in stems for name in texts):
        return Table(folder, _rows(folder, images, texts))
    if (classes := _classes(folder, images)) is not None:
        return classes
    raise HeadwiseError(
        f"{folder} holds {len(images):,} images but no captions. Put a metadata.csv with the columns file_name and "
        "caption into it, a .txt file of the same name beside each image, or every image into the folder of its class "
        f"(cat/1.jpg, or train/cat/1.jpg).{_others(folder)}"
    )


def _others(folder: str) -> str:
    """A hint at tables in the folder that have another name."""
    endings = (".csv", ".tsv", ".json", ".jsonl", ".parquet", "captions.txt")
    tables = sorted(name for name in os.listdir(folder) if name.lower().endswith(endings))
    return f" If {tables[0]} holds the captions, give it by its path." if tables else ""


def _plain(stem: str) -> str:
    return unicodedata.normalize("NFC", stem)


def _stems(name: str) -> tuple[str, str]:
    """What the .txt beside an image may be called without its ending: `1` or `1.jpg`."""
    return _plain(os.path.splitext(name)[0]), _plain(name)


def _files(folder: str) -> tuple[list[str], list[str], list[str]]:
    """Paths of images and of texts, relative to the folder, sorted, and links to folders. What is hidden (`.name`,
    `__MACOSX`) is no data."""
    images, texts, links = [], [], []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name != "__MACOSX")
        links += [path for name in folders if os.path.islink(path := os.path.join(place, name))]
        for name in sorted(names):
            if name.startswith("."):
                continue
            path = os.path.relpath(os.path.join(place, name), folder)
            if name.lower().endswith(IMAGE_ENDINGS):
                images.append(path)
            elif name.lower().endswith(".txt"):
                texts.append(path)
    return images, texts, links


def _classes(folder: str, images: list[str]) -> Records | None:
    """Images whose class is their folder, None unless each has one and there are several."""
    parts = [name.split(os.sep)[:-1] for name in images]
    named = [bool(part) and not part[0].isdecimal() and meaning(part[0]) is not None for part in parts]
    split = all(named) and all(len(part) > 1 for part in parts)
    level = 1 if split else 0
    if all(named) and not split:
        return None  # train/1.jpg has no class
    if not split and any(name and len(part) > 1 for name, part in zip(named, parts, strict=True)):
        odd = next(
            part[0] if part else "." for name, part in zip(named, parts, strict=True) if not name or len(part) < 2
        )
        raise HeadwiseError(
            f"{folder}: some folders in it are splits with folders of classes, but not {odd}. Name it as a split (train, "
            "val, test), or give the folder of one split."
        )
    if any(len(part) <= level for part in parts) or len({part[level] for part in parts}) < 2:
        return None

    def records() -> Iterator[Record]:
        for name, part in zip(images, parts, strict=True):
            cells = {"image": name, "label": part[level]} | ({"split": part[0]} if split else {})
            yield Record(os.path.join(folder, name), cells)

    return Records(folder, ("image", "label", *(("split",) if split else ())), records())


def _image(folder: str, name: str) -> Row:
    path = os.path.join(folder, name)
    row = Row(path, (name,), id=name)
    return replace(row, problem="a symbolic link leads out of the folder") if outside(path, folder) else row


def _rows(folder: str, images: list[str], texts: list[str]) -> Iterator[Row]:
    by_stem = {_plain(os.path.splitext(name)[0]): name for name in texts}
    for name in images:
        path = os.path.join(folder, name)
        sidecar = next((by_stem.pop(stem) for stem in _stems(name) if stem in by_stem), None)
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
        return replace(row, captions=lines_in(Path(sidecar).read_bytes()))
    except (OSError, HeadwiseError) as error:
        return replace(row, problem=f"the captions {sidecar} cannot be read ({error})")

"""Flickr's caption files: `image,caption` as CSV, and `image#number<TAB>caption` (Flickr tokens, Flickr30k-CNA).

In: a `Place` that names one such file. Out: a row for every line. Not read as ordinary tables, because captions with
commas may stand there without quotation marks.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

from headwise.data.columns import caption_columns
from headwise.data.files import require_file
from headwise.data.place import Place
from headwise.data.readers.tables import lines_of
from headwise.data.rows import Row, Table
from headwise.errors import HeadwiseError

CAPTION_OF = re.compile(r"^(?P<image>.+?)#(?P<number>\w+)[ \t]+(?P<caption>.*)$")
GLUED = re.compile(r"(?P<number>\d+)\s+(?P<caption>.+)")  # Kaggle's file of Flickr30k lacks one mark
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
ENDINGS = ("", ".jpg", ".jpeg", ".png", ".webp")


def read_flickr(place: Place) -> Table:
    """Lines of image, comma, caption (or `|`, with a number between), after one line of headings. Captions that
    hold commas may be quoted or not: all that follows the image's name is the caption. Token files are read, too.

    Raises:
        HeadwiseError: no such file, or headings that are not of this kind.
    """
    require_file(place.location, "a file of image,caption lines")
    lines = lines_of(place.location)
    header = next(lines, "").strip()
    if CAPTION_OF.match(header):
        return read_cna(place)
    mark = "|" if "|" in header else ","
    fields = [name.strip().strip('"') for name in header.split(mark)]
    if len(fields) not in (2, 3):
        raise HeadwiseError(
            f"{place.location}: the first line must be image{mark}caption; it is {header[:80]!r}. "
            "For other columns give the file without flickr:."
        )

    captions = caption_columns(fields)
    if fields[0].lower().endswith(IMAGE_ENDINGS):
        raise HeadwiseError(
            f"{place.location}: the first line must be image{mark}caption; it is {header[:80]!r}. Put such a line before it."
        )
    if captions and captions[-1] != fields[-1]:
        raise HeadwiseError(
            f"{place.location}: the caption must be the last column; the columns are {header[:80]!r}. "
            "Give the file without flickr:."
        )

    def rows() -> Iterator[Row]:
        for number, line in enumerate(lines, 2):
            text = line.strip()
            if text:
                cells = [cell.strip() for cell in text.split(mark, len(fields) - 1)]
                yield _row(f"{place.location} line {number}", cells, len(fields))

    return Table(place.name, rows())


def _row(origin: str, cells: list[str], fields: int) -> Row:
    if fields == 3 and len(cells) == 2 and (glued := GLUED.match(cells[1])):
        cells = [cells[0], glued["number"], glued["caption"]]
    if len(cells) < fields:
        return Row(origin, problem="no caption after the image's name")
    image, caption = cells[0].strip('"'), cells[-1]
    if len(caption) > 1 and caption[0] == caption[-1] == '"':
        caption = next(csv.reader([caption]))[0]
    return _image(origin, image, caption)


def read_cna(place: Place) -> Table:
    """Lines of `<image>#<number><TAB><caption>`; the image's name may lack its ending.

    Raises:
        HeadwiseError: no such file.
    """
    require_file(place.location, "a file of image#number, tab, caption lines")

    def rows() -> Iterator[Row]:
        for number, line in enumerate(lines_of(place.location), 1):
            if not line.strip():
                continue
            origin, found = f"{place.location} line {number}", CAPTION_OF.match(line.strip())
            if found is None:
                yield Row(origin, problem="not of the form image#number, tab, caption")
            else:
                yield _image(origin, found["image"], found["caption"])

    return Table(place.name, rows())


def _image(origin: str, name: str, caption: str) -> Row:
    if not name:
        return Row(origin, problem="no image's name")
    return Row(origin, tuple(name + ending for ending in ENDINGS), captions=(caption,), id=name)

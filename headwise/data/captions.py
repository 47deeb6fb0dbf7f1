"""Caption cells as people write them → texts.

A cell is a text, a list of texts, or a text that holds a list: in JSON, or as Python, numpy and pandas print one
(`['a red bus', 'a bus']`, `['a red bus' 'a bus']`, `array(['a bus'], dtype=object)`), which is what a table holds after
`to_csv`. What begins like such a list and is none is refused: read as one caption it would be wrong without a word.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from headwise.data.cells import blank, check_utf8
from headwise.errors import HeadwiseError
from headwise.wording import printable

ARRAY = re.compile(r"(?:\w+\.)?array\(\s*(?P<items>.*?)\s*(?:,\s*dtype=(?:[\w.<>]+|'[^']*'))?\s*,?\s*\)", re.DOTALL)
LISTED = re.compile(  # how a list begins
    r"""[\[(][\[(\s]*(?:(?:(?:\w+\.)?str_\(\s*)?[uUbBrR]?['"]|(?:None|nan|NaN|<NA>)\s*[,\])])|(?:\w+\.)?array\(\s*\["""
)
ITEM = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
WRAPPED = re.compile(r"(?:\w+\.)?str_\(\s*")
NOTHING = re.compile(r"None|nan|NaN|<NA>|null")
JOINTS = ("|", "<sep>", "[SEP]")  # what people put between captions in one cell
GAP = re.compile(r"\s*,\s*|\s+")


def texts_of(cells: Iterable[object]) -> list[str]:
    """The captions in cells; blank ones are none.

    Raises:
        HeadwiseError: a reason, without a place: something else than text, text that is not UTF-8, half a list.
    """
    return [value.strip() for cell in cells for value in _values(cell) if not blank(_checked(value))]


def text_of(cell: object) -> str | None:
    """The one text in a cell that holds no list; None if it is blank.

    Raises:
        HeadwiseError: as `texts_of`.
    """
    return None if blank(_checked(cell)) else str(cell).strip()


def why_none(cells: Sequence[object]) -> str:
    """Why these cells hold no caption, for the list of bad rows."""
    if not cells:
        return "there is no caption"
    return "the caption is empty" if any(isinstance(cell, str) for cell in cells) else "the caption is missing"


def remarks(captions: Sequence[str], silent: int) -> Iterator[str]:
    """What would be wrong without a word: captions left out, several in one.

    Arguments:
        silent: rows without a caption, about images that have others.
    """
    if captions and silent:
        yield f"{silent:,} blank {'caption was' if silent == 1 else 'captions were'} left out."
    for mark in JOINTS:
        joined = [text for text in captions if mark in text and all(part.strip() for part in text.split(mark, 1))]
        if len(joined) > max(1, len(captions) / 2):
            yield (
                f"{len(joined):,} of {len(captions):,} captions hold a {mark!r}, such as {printable(joined[0])[:60]!r}. "
                "Each is read as one caption; if it is several, give them in rows, in columns (caption_1, caption_2) or "
                "as a JSON list."
            )


def _checked(value: object) -> object:
    if not blank(value):
        if not isinstance(value, str):
            raise HeadwiseError(f"the caption is {_shown(value)}, a {type(value).__name__} and not text")
        check_utf8(value, "the caption")
    return value


def _shown(value: object) -> str:
    try:
        return f"{value!r:.40}"
    except RecursionError:
        return "deeply nested"


def _values(cell: object) -> Iterator:
    if isinstance(cell, np.ndarray):
        cell = cell.tolist()
    if isinstance(cell, str):
        yield from _written_list(cell)
    elif isinstance(cell, list | tuple):
        yield from cell
    else:
        yield cell


def _written_list(cell: str) -> Sequence[object]:
    """The items of a list in a text; the text itself where it holds none."""
    plain = cell.strip()
    if plain.startswith("["):
        try:
            value = json.loads(plain)
        except (ValueError, RecursionError):  # brackets in a caption, thousands of them in a damaged one
            pass
        else:
            if isinstance(value, list) and value:
                return value
    if plain == "[]":
        return []
    if not LISTED.match(plain) or (plain.startswith("(") and not plain.endswith(")")):
        return [cell]
    found = _items(plain)
    if found is None and plain.startswith("("):
        return [cell]
    if found is None:
        raise HeadwiseError(f"the caption {plain[:40]!r} begins like a list of captions and is no whole one")
    return found


def _items(plain: str) -> list[str | None] | None:
    """Items of a list as Python or numpy print it, None if this is none."""
    array = ARRAY.fullmatch(plain)
    inner = array["items"] if array else plain
    if inner[0] + inner[-1] not in ("[]", "()"):
        return None
    inner, at = inner[1:-1].strip(), 0
    items: list[str | None] = []
    while at < len(inner):
        wrapped = WRAPPED.match(inner, at)
        at = wrapped.end() if wrapped else at
        nothing = NOTHING.match(inner, at)
        found = nothing or ITEM.match(inner, at)
        if found is None:
            return None
        try:
            items.append(None if nothing else ast.literal_eval(found[0].replace("\n", "\\n")))
        except (ValueError, SyntaxError):
            return None
        at = found.end()
        if wrapped:
            if not inner.startswith(")", at):
                return None
            at += 1
        gap = GAP.match(inner, at)
        if gap is None and at < len(inner):
            return None
        at = gap.end() if gap else at
    return items

"""Caption cells as people write them → texts.

A cell is a text, a list of texts, or a text that holds a list: in JSON, or as Python, numpy and pandas print one
(`['a red bus', 'a bus']`, `['a red bus' 'a bus']`, `array(['a bus'], dtype=object)`), which is what a table holds after
`to_csv`. In place of a text there may be an object with a field of captions (`{"raw": "a bus", "tokens": [...]}`).
What begins like such a list or object and is none is refused: read as one caption it would be wrong without a word.
"""

from __future__ import annotations

import ast
import codecs
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np

from headwise.data.cells import blank, check_utf8
from headwise.data.columns import caption_columns
from headwise.errors import HeadwiseError
from headwise.plain import terminal

ARRAY = re.compile(r"(?:\w+\.)?array\(\s*(?P<items>.*?)\s*(?:,\s*dtype=(?:[\w.<>]+|'[^']*'))?\s*,?\s*\)", re.DOTALL)
LISTED = re.compile(  # how a list begins
    r"""[\[(][\[(\s]*(?:(?:(?:\w+\.)?str_\(\s*)?[uUbBrR]?['"]|(?:None|nan|NaN|<NA>)\s*[,\])])|(?:\w+\.)?array\(\s*\["""
)
ITEM = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""", re.DOTALL)
WRAPPED = re.compile(r"(?:\w+\.)?str_\(\s*")
NOTHING = re.compile(r"None|nan|NaN|<NA>|null")
OBJECT = re.compile(r"""(?:\[\s*)?\{\s*[uUbBrR]?(?:'[^'\\]*'|"[^"\\]*")\s*[:,}]""")  # how an object begins, or a set
SERIES = re.compile(r"\n(?:Name: .*, )?(?:Length: \d+, )?dtype: \S+$")  # how a printed pandas.Series ends
WROTE_BLANK = ("None", "nan", "NaN", "NAN", "<NA>", "null", "NULL", "NaT")  # what programs write for a blank cell
JOINTS = ("|", "<sep>", "[SEP]", "<br>", ";", "\n")  # what people put between captions in one cell
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


def lines_in(data: bytes) -> tuple[str, ...]:
    """The lines of a file of captions, whatever ends them (LF, CR LF, CR); other marks of Unicode may stand in a
    caption. UTF-8, or UTF-16 and UTF-32 with a byte order mark.

    Raises:
        HeadwiseError: text that is neither (a reason, without a place).
    """
    marked = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
    try:
        text = data.decode(json.detect_encoding(data) if marked else "utf-8-sig")
    except UnicodeDecodeError:
        raise HeadwiseError("the caption is not valid UTF-8; save the file in this encoding") from None
    return tuple(re.split(r"\r\n|\r|\n", text))


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
    if words := [text for text in captions if text in WROTE_BLANK]:
        yield (
            f"{len(words):,} of {len(captions):,} captions {'is' if len(words) == 1 else 'are'} {words[0]!r} or the like, "
            "as programs write for a blank cell, and read as this word. If it stands for no caption, empty the cells."
        )
    for mark in JOINTS:
        joined = [text for text in captions if mark in text and all(part.strip() for part in text.split(mark, 1))]
        if len(joined) > max(1, len(captions) / 2):
            yield (
                f"{len(joined):,} of {len(captions):,} captions hold a {mark!r}, such as {terminal(joined[0])[:60]!r}. "
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
    items = _written(cell) if isinstance(cell, str) else cell if isinstance(cell, list | tuple) else [cell]
    for item in items:
        if isinstance(item, Mapping) and item:
            yield from _fields(item)
        else:
            yield item


def _fields(item: Mapping) -> Iterator:
    """The texts in the fields of captions of an object."""
    names = caption_columns([name for name in item if isinstance(name, str)])
    if not names:
        raise HeadwiseError(
            f"the caption is {_shown(dict(item))}, an object without a field that is named as captions are "
            "(caption, text, raw, sentence)"
        )
    for name in names:
        value = item[name]
        yield from value if isinstance(value, list | tuple) else [value]


def _written(cell: str) -> Sequence[object]:
    """The items of a list or object in a text; the text itself where it holds none."""
    plain = cell.strip()
    if plain.startswith(("[", "{")):
        try:
            value = json.loads(plain)
        except (ValueError, RecursionError):  # brackets in a caption, thousands of them in a damaged one
            pass
        else:
            if isinstance(value, list) and value:
                return value
            if isinstance(value, dict) and value:
                return [value]
    if plain == "[]":
        return []
    if SERIES.search(plain):
        raise HeadwiseError(f"the caption {plain[:40]!r} is a pandas.Series as it is printed; save it as a list")
    if OBJECT.match(plain):
        return _object(plain)
    if not LISTED.match(plain) or (plain.startswith("(") and not plain.endswith(")")):
        return [cell]
    found = _items(plain)
    if found is None and plain.startswith("("):
        return [cell]
    if found is None:
        raise HeadwiseError(f"the caption {plain[:40]!r} begins like a list of captions and is no whole one")
    return found


def _object(plain: str) -> Sequence[object]:
    """What Python prints as `{'raw': 'a bus'}`, `[{'raw': 'a bus'}]` or, of a set, `{'a bus', 'a car'}`."""
    try:
        value = ast.literal_eval(plain)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        raise HeadwiseError(f"the caption {plain[:40]!r} begins like an object and is no whole one") from None
    if isinstance(value, set):
        if len(value) == 1:
            return [plain]  # somebody's braces
        raise HeadwiseError(f"the caption {plain[:40]!r} is a set as Python prints it; save it as a list")
    return value if isinstance(value, list) else [value]


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

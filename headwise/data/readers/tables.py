"""CSV, TSV and JSONL files → records.

Read line by line with the standard library: every cell stays text (a caption may well be `NA` or `2024`),
and every message has its line number. What stands between the cells and how the letters are encoded is seen in the
file itself, since programs that save as `.csv` do not agree on either.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from headwise.data.files import require_file
from headwise.data.kinds import other_kind
from headwise.data.opening import open_binary
from headwise.data.records import Record, Records
from headwise.errors import HeadwiseError

Line = tuple[int, Mapping[str, object], str | None]  # line, cells, what is wrong with the line
MARKS = {"csv": ",", "tsv": "\t"}
OPEN = re.compile(r'(?:^|[\t|])\s*"(?:[^"]|"")*$')  # a cell that starts with a quotation mark and does not end
MOST_LINES = 100  # of one cell in a file without the rule that marks are quoted
OTHERS = ("\t", ";", "|", ",")
HINT = re.compile(r'"?sep=(.)"?\s*')  # the first line that Excel writes to say what stands between its cells


def read_table(location: str, kind: str) -> Records:
    """A table whose image column holds paths or URLs.

    Arguments:
        location: the file, local or remote.
        kind: `csv`, `tsv` or `jsonl`.

    Raises:
        HeadwiseError: no such file, or an empty one.
    """
    require_file(location, f"a {kind.upper()} file")
    refuse_other(location)
    lines = _jsonl(location) if kind == "jsonl" else _delimited(location, MARKS[kind])
    columns = tuple(next(lines)[1])
    return Records(location, columns, (Record(f"{location} line {n}", cells, problem) for n, cells, problem in lines))


def refuse_other(location: str) -> None:
    """
    Raises:
        HeadwiseError: by its first bytes the file is something else than text, or stands for another file.
    """
    try:
        with open_binary(location) as file:
            found = other_kind(file.read(512))
    except OSError as error:
        raise HeadwiseError(f"{location}: cannot be read: {error.strerror or error}") from error
    if found:
        raise HeadwiseError(f"{location} is {found}.")


def lines_of(location: str) -> Iterator[str]:
    """Lines of a text file, UTF-8 or, by its first bytes, UTF-16 or UTF-32. Bytes that are not UTF-8 become lone
    surrogates, which the checks of cells find.

    Raises:
        HeadwiseError: the file cannot be read.
    """
    try:
        file = open_binary(location)
        with file:
            encoding = json.detect_encoding(file.read(4))
            file.seek(0)
            with io.TextIOWrapper(file, encoding, errors="surrogateescape", newline="") as text:
                yield from text
    except OSError as error:
        raise HeadwiseError(f"{location}: cannot be read: {error.strerror or error}") from error
    except UnicodeError as error:
        raise HeadwiseError(f"{location}: begins like a file in {encoding} and is none ({error}).") from error


def _delimited(location: str, own: str) -> Iterator[Line]:
    """The header as a record whose keys are the column names, then a record for each line that is not blank."""
    lines = lines_of(location)
    first, skipped = next(lines, ""), 0
    while first and not first.strip():
        first, skipped = next(lines, ""), skipped + 1
    if hint := HINT.fullmatch(first):
        own, first, skipped = hint[1], next(lines, ""), skipped + 1
    mark = _mark(first, own)
    plain = mark in "\t|"  # unquoted is the rule there, and a caption may start with a quotation mark
    spaced = not plain and all(cell.startswith(" ") for cell in first.rstrip().split(mark)[1:])
    lines = chain([first], lines)
    reader = _plain(lines, mark) if plain else _quoted(lines, mark, spaced)
    line = 1 + skipped
    try:
        header = [name.strip() for name in next(reader, (0, []))[1]]
        if not any(header):
            raise HeadwiseError(f"{location} is empty; its first line must name the columns.")
        if repeated := sorted({name for name in header if name and header.count(name) > 1}):
            raise HeadwiseError(f"{location}: the column {repeated[0]!r} appears twice. Rename one.")
        yield line, dict.fromkeys(header), None
        for at, cells in reader:
            line = at + skipped
            if any(cell.strip() for cell in cells):
                wrong = len(cells) != len(header)
                problem = f"{len(cells)} fields, the header has {len(header)} (quote captions that hold a {mark!r}"
                problem += (
                    ", or read the file as flickr:FILE)" if len(cells) > len(header) == 2 and mark == "," else ")"
                )
                yield line, dict(zip(header, cells, strict=False)), problem if wrong else None
    except _NotQuoted as error:
        raise HeadwiseError(
            f"{location} line {error.line + skipped}: {error}. A field that starts with a quotation mark must end with one; "
            "inside it, double the mark."
        ) from error


class _NotQuoted(Exception):
    line = 0


def _quoted(lines: Iterable[str], mark: str, spaced: bool) -> Iterator[tuple[int, list[str]]]:
    """The first line and the cells of each row."""
    reader = csv.reader(lines, delimiter=mark, skipinitialspace=spaced, strict=True)
    line = 1
    try:
        for cells in reader:
            yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        found = _NotQuoted(str(error))
        found.line = line
        raise found from error


def _mark(header: str, own: str) -> str:
    """What stands between the cells: what the file's ending says, unless another mark makes columns of its header."""

    def columns(mark: str) -> int:
        try:
            return len(next(csv.reader([header], delimiter=mark)))
        except csv.Error:
            return 1

    if columns(own) > 1:
        return own
    return max((own, *OTHERS), key=columns)


def _plain(lines: Iterable[str], mark: str) -> Iterator[tuple[int, list[str]]]:
    """As `_quoted`, of text in which a quotation mark is a letter unless it surrounds a cell."""
    width, number, lines = 0, 0, iter(lines)
    waiting: deque[str] = deque()  # lines that were read ahead
    while waiting or (more := next(lines, None)) is not None:
        line = waiting.popleft() if waiting else str(more)
        number += 1
        text = line.rstrip("\r\n")
        cells = [_unquoted(cell.strip(" ")) for cell in text.split(mark)]
        width = width or len(cells)
        if len(cells) > width and '"' in text:  # a mark inside quotation marks, perhaps
            quoted = next(csv.reader([text], delimiter=mark, skipinitialspace=True))
            cells = quoted if len(quoted) == width else cells
        whole = None
        if OPEN.search(text) and text.count(mark) < width:  # a line break inside quotation marks, perhaps
            whole = _over_lines(line, mark, width, waiting, lines)
        yield number, cells if whole is None else whole[0]
        number += 0 if whole is None else whole[1]


def _over_lines(
    line: str, mark: str, width: int, waiting: deque[str], lines: Iterator[str]
) -> tuple[list[str], int] | None:
    """The cells of a line whose quoted cell goes on in the next lines, and how many these are; None unless one of them
    ends the cell and all together have as many cells as there are columns."""
    text = line
    for count in range(1, MOST_LINES + 1):
        if len(waiting) < count:
            more = next(lines, None)
            if more is None:
                return None
            waiting.append(more)
        following = waiting[count - 1]
        if following.count(mark) >= width - 1 and not text.count(mark) < width - 1:
            return None  # a row of its own: the mark of the former is a letter
        text += following
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True))
        except csv.Error:
            continue
        if len(rows) == 1 and len(rows[0]) == width:
            for _ in range(count):
                waiting.popleft()
            return rows[0], count
    return None


def _unquoted(cell: str) -> str:
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
    return cell[1:-1].replace('""', '"') if quoted else cell


def _jsonl(location: str) -> Iterator[Line]:
    """As `_delimited`; the header is all keys of all lines."""
    first, good, columns = None, False, {}
    for record in _json_lines(location):  # twice: a key may come first in the last line
        first, good = first or record, good or record[2] is None
        columns |= dict.fromkeys(record[1])
    if not good:
        reason = f" line {first[0]}: {first[2]}" if first else " is empty"
        raise HeadwiseError(f"{location}{reason}; each line must be a JSON object.")
    yield 0, columns, None
    yield from _json_lines(location)


def _json_lines(location: str) -> Iterator[Line]:
    for number, line in enumerate(lines_of(location), 1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            yield number, {}, f"not JSON ({error})"
            continue
        if isinstance(value, dict):
            yield number, value, None
        else:
            yield number, {}, f"a JSON {type(value).__name__}, not an object"

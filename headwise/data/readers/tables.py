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
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from headwise.data.files import require_file
from headwise.data.opening import open_binary
from headwise.data.records import Record, Records
from headwise.errors import HeadwiseError

Line = tuple[int, Mapping[str, object], str | None]  # line, cells, what is wrong with the line
MARKS = {"csv": ",", "tsv": "\t"}
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
    lines = _jsonl(location) if kind == "jsonl" else _delimited(location, MARKS[kind])
    columns = tuple(next(lines)[1])
    return Records(location, columns, (Record(f"{location} line {n}", cells, problem) for n, cells, problem in lines))


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
    if hint := HINT.fullmatch(first):
        own, first, skipped = hint[1], next(lines, ""), 1
    mark = _mark(first, own)
    plain = mark in "\t|"  # unquoted is the rule there, and a caption may start with a quotation mark
    spaced = not plain and all(cell.startswith(" ") for cell in first.rstrip().split(mark)[1:])
    lines = chain([first], lines)
    reader = _plain(lines, mark) if plain else csv.reader(lines, delimiter=mark, skipinitialspace=spaced, strict=True)
    line = 1 + skipped
    try:
        header = [name.strip() for name in next(iter(reader), None) or []]
        if not any(header):
            raise HeadwiseError(f"{location} is empty; its first line must name the columns.")
        if repeated := sorted({name for name in header if name and header.count(name) > 1}):
            raise HeadwiseError(f"{location}: the column {repeated[0]!r} appears twice. Rename one.")
        yield line, dict.fromkeys(header), None
        line += 1
        for cells in reader:
            if any(cell.strip() for cell in cells):
                wrong = len(cells) != len(header)
                problem = f"{len(cells)} fields, the header has {len(header)} (quote captions that hold a {mark!r})"
                yield line, dict(zip(header, cells, strict=False)), problem if wrong else None
            line = reader.line_num + 1 + skipped if isinstance(reader, _CsvReader) else line + 1
    except csv.Error as error:
        raise HeadwiseError(
            f"{location} line {line}: {error}. A field that starts with a quotation mark must end with one; "
            "inside it, double the mark."
        ) from error


_CsvReader = type(csv.reader([]))


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


def _plain(lines: Iterable[str], mark: str) -> Iterator[list[str]]:
    width = 0
    for line in lines:
        text = line.rstrip("\r\n")
        cells = [_unquoted(cell.strip(" ")) for cell in text.split(mark)]
        width = width or len(cells)
        if len(cells) > width and '"' in text:  # a mark inside quotation marks, perhaps
            quoted = next(csv.reader([text], delimiter=mark, skipinitialspace=True))
            cells = quoted if len(quoted) == width else cells
        yield cells


def _unquoted(cell: str) -> str:
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
    return cell[1:-1].replace('""', '"') if quoted else cell


def _jsonl(location: str) -> Iterator[Line]:
    """As `_delimited`; the header is all keys of the first line that is an object."""
    records = _json_lines(location)
    start = []
    for record in records:
        start.append(record)
        if record[2] is None:
            break
    else:
        reason = f" line {start[0][0]}: {start[0][2]}" if start else " is empty"
        raise HeadwiseError(f"{location}{reason}; each line must be a JSON object.")
    yield 0, dict.fromkeys(start[-1][1]), None
    yield from start
    yield from records


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

"""CSV, TSV and JSONL files → rows.

Read line by line with the standard library: every cell stays text (a caption may well be `NA` or `2024`),
and every message has its line number.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial

from headwise.data.columns import Columns, Wanted, choose
from headwise.data.files import join, open_binary, parent, read_bytes, require_file
from headwise.data.rows import Row, Table
from headwise.errors import HeadwiseError

Record = tuple[int, Mapping[str, object], str | None]  # line, cells, what is wrong with the line


def read_table(location: str, kind: str, wanted: Wanted, folder: str | None = None) -> Table:
    """A table with an image column of paths or URLs.

    Arguments:
        location: the file, local or remote.
        kind: `csv`, `tsv` or `jsonl`.
        wanted: the columns that were asked for.
        folder: what relative image paths are relative to; by default the file's folder.

    Raises:
        HeadwiseError: no such file, an empty one, or a missing column.
    """
    require_file(location, f"a {kind.upper()} file")
    records = _jsonl(location) if kind == "jsonl" else _delimited(location, "\t" if kind == "tsv" else ",")
    names = next(records)[1]
    columns = choose(list(names), wanted, location)
    base = parent(location) if folder is None else folder
    if columns.label is None:
        return Table(location, (_row(location, base, columns, *record) for record in records))
    return with_labels(location, columns.label, _labelled(location, base, columns, list(records)))


def _labelled(location: str, base: str, columns: Columns, records: list[Record]) -> list[tuple[Row, object]]:
    return [(_row(location, base, columns, *record), record[1].get(columns.label or "")) for record in records]


def with_labels(location: str, column: str, labelled: list[tuple[Row, object]]) -> Table:
    """A classification table: classes are the values of the label column, sorted (numbers as numbers).

    Raises:
        HeadwiseError: fewer than two classes.
    """
    values = {str(label).strip() for row, label in labelled if not row.problem and label not in (None, "")}
    names = sorted(values, key=lambda name: (0, int(name), "") if name.isdecimal() else (1, 0, name))
    if len(names) < 2:
        raise HeadwiseError(
            f"{location}: column {column!r} has {len(names)} class ({', '.join(names) or 'none'}); "
            "classification needs two or more."
        )
    index = {name: i for i, name in enumerate(names)}

    def rows() -> Iterator[Row]:
        for row, label in labelled:
            found = index.get(str(label).strip())
            yield replace(row, label=found, problem=row.problem or ("there is no label" if found is None else None))

    return Table(location, list(rows()), class_names=tuple(names))


def _row(location: str, base: str, columns: Columns, line: int, cells: Mapping, problem: str | None) -> Row:
    origin = f"{location} line {line}"
    if problem:
        return Row(origin, problem=problem)
    name = cells.get(columns.image)
    if not isinstance(name, str) or not name.strip():
        return Row(origin, problem=f"column {columns.image!r} names no image")
    path = join(base, name.strip())
    return Row(
        origin=origin,
        fetch=partial(read_bytes, path),
        captions=tuple(cells.get(name) for name in columns.captions),
        key=path,
        id=name.strip(),
        path=path,
        split=_text(cells, columns.split),
        group=_text(cells, columns.group),
    )


def _text(cells: Mapping, column: str | None) -> str | None:
    value = None if column is None else cells.get(column)
    return None if value is None or value == "" else str(value)


def lines_of(location: str) -> Iterator[str]:
    """Lines of a text file. Bytes that are not UTF-8 become lone surrogates, which the caption check finds.

    Raises:
        HeadwiseError: the file cannot be read.
    """
    try:
        file = open_binary(location)
        with io.TextIOWrapper(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as text:
            yield from text
    except OSError as error:
        raise HeadwiseError(f"{location}: cannot be read: {error.strerror or error}") from None


def _delimited(location: str, delimiter: str) -> Iterator[Record]:
    """The header as a record whose keys are the column names, then a record for each line that is not blank."""
    lines = lines_of(location)
    # an unquoted TSV is the rule, and a caption in it may start with a quotation mark
    reader = csv.reader(lines, strict=True) if delimiter == "," else _tsv(lines, delimiter)
    line = 1
    try:
        header = next(iter(reader), None)
        if not header:
            raise HeadwiseError(f"{location} is empty; its first line must name the columns.")
        if repeated := sorted({name for name in header if header.count(name) > 1}):
            raise HeadwiseError(f"{location}: the column {repeated[0]!r} appears twice. Rename one.")
        yield 1, dict.fromkeys(header), None
        line = 2
        for cells in reader:
            if cells and cells != [""]:
                wrong = len(cells) != len(header)
                problem = (
                    f"{len(cells)} fields, the header has {len(header)} (quote captions that hold a {delimiter!r})"
                )
                yield line, dict(zip(header, cells, strict=False)), problem if wrong else None
            line = reader.line_num + 1 if isinstance(reader, _CsvReader) else line + 1
    except csv.Error as error:
        raise HeadwiseError(
            f"{location} line {line}: {error}. A field that starts with a quotation mark must end with one; "
            "inside it, double the mark."
        ) from None


_CsvReader = type(csv.reader([]))


def _tsv(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    for line in lines:
        yield [_unquoted(cell) for cell in line.rstrip("\r\n").split(delimiter)]


def _unquoted(cell: str) -> str:
    quoted = len(cell) > 1 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1].replace('""', "")
    return cell[1:-1].replace('""', '"') if quoted else cell


def _jsonl(location: str) -> Iterator[Record]:
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


def _json_lines(location: str) -> Iterator[Record]:
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

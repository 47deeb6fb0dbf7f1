"""Named columns → rows: which column has what, images named or held, labels numbered.

A reader of tables yields records and knows nothing of roles; this is the one place that does.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np

from headwise.data import cells as cell
from headwise.data.captions import LISTED
from headwise.data.columns import Columns, Wanted, choose
from headwise.data.rows import Row, Table
from headwise.errors import HeadwiseError

MOST_DIGITS = 18  # of a label that is sorted as a number


@dataclass(frozen=True, slots=True)
class Record:
    """One record of a source with named columns.

    Arguments:
        origin: file and line or row, for messages.
        cells: column → value; may be slow to look up.
        problem: why the reader itself found the record bad.
    """

    origin: str
    cells: Mapping[str, object]
    problem: str | None = None


@dataclass(frozen=True)
class Records:
    """What a reader of named columns yields.

    Arguments:
        columns: their names.
        class_names: column → the classes that its numbers stand for, where the source says so.
        roots: as in `Table`.
    """

    name: str
    columns: tuple[str, ...]
    records: Iterable[Record]
    class_names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    roots: tuple[str, ...] = ()


def rows_of(records: Records, wanted: Wanted) -> Table:
    """The rows of records.

    Raises:
        HeadwiseError: a column that is missing, or labels that are no two classes.
    """
    columns = choose(records.columns, wanted, records.name)
    table = Table(records.name, (), roots=records.roots)
    if columns.label is None:
        return replace(table, rows=(_row(records.name, record, columns, wanted.bare) for record in records.records))
    if columns.label in records.class_names:
        names = records.class_names[columns.label]
        rows = (_numbered(_row(records.name, r, columns), r, columns.label, len(names)) for r in records.records)
        return replace(table, rows=rows, class_names=names)
    return _labelled(table, columns, records)


def _row(source: str, record: Record, columns: Columns, alone: bool = False) -> Row:
    bad = partial(Row, record.origin)
    if record.problem:
        return bad(problem=record.problem)
    value = record.cells.get(columns.image)
    if cell.blank(value):
        return bad(problem=f"column {columns.image!r} names no image")
    try:
        name = cell.image_name(value)
        split, group = (
            None if column is None else cell.text(record.cells.get(column)) for column in (columns.split, columns.group)
        )
    except HeadwiseError as error:
        return bad(problem=str(error))
    captions = tuple(record.cells.get(column) for column in columns.captions)
    # a row with several captions is a whole image; single captions of the same bytes belong together, and images alone
    whole = not alone and (
        len(captions) != 1 or any(isinstance(value, list | tuple | np.ndarray) for value in captions)
    )
    known = name or (value.get("path") if isinstance(value, Mapping) else None)
    return Row(
        record.origin,
        names=() if name is None else spellings(name),
        fetch=partial(_held, record.cells, columns.image) if name is None else None,
        captions=captions,
        key=record.origin if name is None and whole else None,
        id=str(known or record.origin.removeprefix(source).strip()),
        split=split,
        group=group,
    )


def spellings(name: str) -> tuple[str, ...]:
    """A file's name and how another system may spell it: Windows with backslashes, a Mac with letters and accents apart."""
    slashes = [name, name.replace("\\", "/")] if "://" not in name else [name]
    return tuple(dict.fromkeys(f(text) for text in slashes for f in (str, *_FORMS)))


_FORMS = (partial(unicodedata.normalize, "NFC"), partial(unicodedata.normalize, "NFD"))


def _held(cells: Mapping[str, object], column: str) -> bytes:
    return cell.image_bytes(cells[column])


def _numbered(row: Row, record: Record, column: str, classes: int) -> Row:
    """A row whose label is the number of a class that the source itself names."""
    value = record.cells.get(column) if not row.problem else None
    number = cell.number(value)
    if number is not None and 0 <= number < classes:
        return replace(row, label=number)
    return replace(row, problem=row.problem or f"label {value!r:.40} is not one of the {classes} classes")


def _labelled(table: Table, columns: Columns, records: Records) -> Table:
    """A classification table: classes are the values of the label column, sorted (numbers as numbers)."""
    found: list[tuple[Row, str | None]] = []
    for record in records.records:
        row, label = _row(records.name, record, columns), None
        if not row.problem:
            try:
                label = cell.text(record.cells.get(str(columns.label)))
            except HeadwiseError as error:
                row = replace(row, problem=f"the label {error}")
            if label is not None and LISTED.match(label):
                row = replace(row, problem=f"the label {label[:40]!r} is a list; one class is needed")
        found.append((row, label))
    names = sorted({label for _, label in found if label is not None}, key=_order)
    if len(names) < 2:
        why = next((f"{row.origin}: {row.problem}." for row, _ in found if row.problem), "")
        raise HeadwiseError(
            f"{table.name}: column {columns.label!r} has {len(names)} class ({', '.join(names) or 'none'}); "
            f"classification needs two or more.{' ' + why if why else ''}"
        )
    index = {name: i for i, name in enumerate(names)}

    def rows() -> Iterator[Row]:
        for row, label in found:
            number = None if label is None else index[label]
            yield replace(row, label=number, problem=row.problem or ("there is no label" if number is None else None))

    return replace(table, rows=list(rows()), class_names=tuple(names))


def _order(name: str) -> tuple[int, int, str]:
    return (0, int(name), name) if name.isdecimal() and len(name) <= MOST_DIGITS else (1, 0, name)

"""What a reader yields: rows, nothing checked yet."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a source, nothing checked yet.

    Arguments:
        origin: file and line or row, for messages.
        fetch: returns the encoded image; None if the row has no image.
        captions: caption cells, of any type; a cell may be a list, or text that holds a JSON list.
        key: rows with the same key are about the same image; None: the same bytes are.
        id: what to call the image.
        problem: why the reader itself found the row bad.
        text_ids: the number of the text in each caption cell, where texts may belong to several images; such a cell
            is one text.
        present, counted: queries, as in `Pairs`.
    """

    origin: str
    fetch: Callable[[], bytes] | None = None
    captions: tuple[object, ...] = ()
    key: str | None = None
    id: str = ""
    path: str | None = None
    split: str | None = None
    group: str | None = None
    label: int | None = None
    problem: str | None = None
    text_ids: tuple[int, ...] | None = None
    present: tuple[int, ...] | None = None
    counted: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Table:
    """What a reader returns: its rows, and what is known about the whole source."""

    name: str
    rows: Iterable[Row]
    class_names: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    kind: str | None = None  # as in `Pairs`

    @property
    def classification(self) -> bool:
        return self.class_names is not None and self.kind is None

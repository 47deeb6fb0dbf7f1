"""What a reader yields: rows, nothing checked yet.

A `Row` says what its image is called, or how to fetch it, and holds its cells as they came; a `Table` is an iterable
of rows with what is known of the whole. Whether an image may be read, and is whole, is found out in `assemble.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from headwise.data.images import ANYWHERE, Images


@dataclass(frozen=True, slots=True)
class Row:
    """One record of a source, nothing checked yet. Its image is one of `names`, or what `fetch` returns.

    Arguments:
        origin: file and line or row, for messages.
        names: the image's file as the source names it; of several the first that is there.
        fetch: returns the encoded image, where the source itself holds it.
        captions: caption cells, of any type; a cell may be a list, or text that holds one.
        key: rows with the same key are about the same image; None: rows of the same file are, or of the same bytes.
        id: what to call the image.
        problem: why the reader itself found the row bad.
        text_ids: the number of the text in each caption cell, where texts may belong to several images; such a cell
            is one text.
        present, counted: queries, as in `Pairs`.
    """

    origin: str
    names: tuple[str, ...] = ()
    fetch: Callable[[], bytes] | None = None
    captions: tuple[object, ...] = ()
    key: str | None = None
    id: str = ""
    split: str | None = None
    group: str | None = None
    label: int | None = None
    problem: str | None = None
    text_ids: tuple[int, ...] | None = None
    present: tuple[int, ...] | None = None
    counted: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Table:
    """The rows of a source, and what is known about the whole of it.

    Arguments:
        roots: folders beside the source's own in which the reader keeps its images.
        kind: as in `Pairs`.
        images: where the images that rows name are looked for.
    """

    name: str
    rows: Iterable[Row]
    class_names: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    kind: str | None = None
    roots: tuple[str, ...] = ()
    images: Images = ANYWHERE

    @property
    def classification(self) -> bool:
        """Whether its images have labels."""
        return self.class_names is not None and self.kind is None

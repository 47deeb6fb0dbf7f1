"""Parquet files, `datasets` folders, hub data sets and objects in memory → rows.

Images are never decoded by `datasets`: the encoded bytes are what is hashed, and decoding is ours.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from headwise.data.columns import Columns, Wanted, choose
from headwise.data.files import is_remote, join, local_copy, parent, read_bytes, require_file
from headwise.data.readers.tables import with_labels
from headwise.data.rows import Row, Table
from headwise.errors import HeadwiseError

if TYPE_CHECKING:
    from datasets import Dataset


def read_parquet(location: str, wanted: Wanted, folder: str | None = None) -> Table:
    """A Parquet file whose image column holds bytes, `{"bytes", "path"}` records, or paths.

    Raises:
        HeadwiseError: no such file, not Parquet, or a missing column.
    """
    from datasets import Dataset

    require_file(location, "a Parquet file")
    with quiet_datasets():
        try:
            dataset = Dataset.from_parquet(local_copy(location) if is_remote(location) else location)
        except Exception as error:  # pyarrow and datasets raise many kinds
            raise HeadwiseError(f"{location}: not a readable Parquet file ({root_cause(error)})") from None
    return dataset_table(dataset, location, wanted, parent(location) if folder is None else folder)  # type: ignore


def dataset_table(dataset: Dataset, name: str, wanted: Wanted, folder: str | None = None) -> Table:
    """The rows of one split of a `datasets` data set."""
    from datasets import ClassLabel, Image

    columns = choose(dataset.column_names, wanted, name)
    feature = dataset.features[columns.image]
    if isinstance(feature, Image):
        dataset = dataset.cast_column(columns.image, Image(decode=False))
    needed = [columns.image, *columns.captions, columns.split, columns.group, columns.label]
    dataset = dataset.select_columns(list(dict.fromkeys(c for c in needed if c)))
    light = dataset.remove_columns(columns.image)
    label = dataset.features.get(columns.label) if columns.label else None
    names = tuple(label.names) if isinstance(label, ClassLabel) else None

    def rows() -> Iterator[tuple[Row, object]]:
        for i in range(len(dataset)):
            cells: Any = light[i] if light.column_names else {}
            yield _row(f"{name} row {i}", partial(_cell, dataset, columns.image, i), cells, columns, folder, i)

    if columns.label is None:
        return Table(name, (row for row, _ in rows()))
    if names is None:
        return with_labels(name, columns.label, list(rows()))
    return Table(name, (_labelled(row, value, len(names)) for row, value in rows()), class_names=names)


def _labelled(row: Row, value: object, classes: int) -> Row:
    if isinstance(value, int) and 0 <= value < classes:
        return replace(row, label=value)
    return replace(row, problem=row.problem or f"label {value!r} is not one of the {classes} classes")


def _cell(dataset: Dataset, column: str, index: int) -> object:
    return dataset[index][column]


def _row(origin: str, cell, cells: Mapping, columns: Columns, folder: str | None, index: int) -> tuple[Row, object]:
    """A row whose image is fetched from `cell()` when it is needed."""
    value, path, problem = cell(), None, None
    try:
        path = image_path(value, folder)
    except HeadwiseError as error:
        problem = str(error)
    # a row with a list of captions is a whole image; single captions of the same bytes belong together
    several = any(isinstance(cells.get(name), list | tuple) for name in columns.captions) or not columns.captions
    name = path or (value.get("path") if isinstance(value, Mapping) else None)
    row = Row(
        origin=origin,
        fetch=partial(_fetch, cell, folder),
        captions=tuple(cells.get(name) for name in columns.captions),
        key=path or (origin if several else None),
        id=str(name or f"row {index}"),
        path=path,
        split=_text(cells, columns.split),
        group=_text(cells, columns.group),
        problem=problem,
    )
    return row, cells.get(columns.label) if columns.label else None


def _text(cells: Mapping, column: str | None) -> str | None:
    value = None if column is None else cells.get(column)
    return None if value is None or value == "" else str(value)


def image_path(value: object, folder: str | None) -> str | None:
    """The path in an image cell, None if the cell holds the image itself.

    Raises:
        HeadwiseError: a cell that holds neither (a reason, without a place).
    """
    if isinstance(value, Mapping):
        value = value.get("path") if value.get("bytes") is None else value["bytes"]
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    if isinstance(value, str) and value.strip():
        return join(folder or "", value)
    if isinstance(value, bytes | bytearray | memoryview | np.ndarray) or hasattr(value, "convert"):
        return None
    kind = "nothing" if value is None or value == "" else f"a {type(value).__name__}"
    raise HeadwiseError(f"the image is {kind}; a path, encoded bytes, a PIL image or a uint8 array is needed")


def _fetch(cell, folder: str | None) -> bytes:
    return image_bytes(cell(), folder)


def image_bytes(value: object, folder: str | None = None) -> bytes:
    """The encoded image in a cell; pictures in memory become PNG."""
    path = image_path(value, folder)
    if path is not None:
        return read_bytes(path)
    if isinstance(value, Mapping):
        value = value["bytes"]
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    return _png(value)


def _png(picture) -> bytes:
    from PIL import Image, ImageOps

    from headwise.data.decode import to_rgb

    if isinstance(picture, np.ndarray):
        channels = picture.shape[2] if picture.ndim == 3 else 1
        if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or channels not in (1, 3, 4):
            raise HeadwiseError(
                f"an array of {picture.dtype} {picture.shape} is not a picture; uint8 (height, width, 3) is needed"
            )
        picture = Image.fromarray(picture.squeeze(2) if picture.shape[2:] == (1,) else picture)
    stream = io.BytesIO()
    to_rgb(ImageOps.exif_transpose(picture)).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


# ---- objects in memory


def read_object(source: object, name: str, wanted: Wanted) -> Table:
    """Pictures and captions that a program already holds.

    Arguments:
        source: a `datasets` data set, a mapping of columns ({"images": [...], "captions": [...]}), a list of
            mappings, or a list of (image, caption or captions). Images are paths, encoded bytes, PIL images or
            uint8 arrays.

    Raises:
        HeadwiseError: none of these, or columns of different lengths.
    """
    if hasattr(source, "column_names") and hasattr(source, "cast_column"):
        if isinstance(source.column_names, dict):  # type: ignore
            raise HeadwiseError(f"{name} has splits ({', '.join(source)}); give one of them.")  # type: ignore
        return dataset_table(source, name, wanted)  # type: ignore
    records = _records(source, name)
    if not records:
        raise HeadwiseError(f"{name}: no rows. Give at least two images with a caption each.")
    columns = choose(list(records[0]), wanted, name)
    labelled = [
        _row(f"{name} item {i}", partial(record.get, columns.image), record, columns, None, i)
        for i, record in enumerate(records)
    ]
    if columns.label is not None:
        return with_labels(name, columns.label, labelled)
    return Table(name, [row for row, _ in labelled])


def _records(source: Any, name: str) -> list[Mapping]:
    if isinstance(source, Mapping):
        lengths = {key: len(values) for key, values in source.items() if hasattr(values, "__len__")}
        if len(lengths) < len(source) or len(set(lengths.values())) > 1:
            found = ", ".join(f"{key}: {lengths.get(key, 'no list')}" for key in source)
            raise HeadwiseError(f"{name}: the columns must be lists of one length; they are {found}.")
        return [dict(zip(source, values, strict=True)) for values in zip(*source.values(), strict=True)]
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        if all(isinstance(item, Mapping) for item in source):
            return list(source)
        if all(isinstance(item, tuple | list) and len(item) == 2 for item in source):
            return [{"image": image, "captions": captions} for image, captions in source]
    raise HeadwiseError(
        f"{name}: a {type(source).__name__} cannot be read. Give a file or folder by name, a datasets.Dataset, "
        '{"images": [...], "captions": [...]}, or a list of (image, caption).'
    )


# ---- the datasets library


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """No progress bars and log lines of `datasets` inside; errors are still raised."""
    import datasets

    shown, level = datasets.is_progress_bar_enabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()


def root_cause(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__

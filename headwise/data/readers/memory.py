"""Objects that a program holds → records: data frames, data sets, columns, lists.

In: an object. Out: records whose cells are the object's own values. pandas, polars, pyarrow and torch are recognised
by what they are, and never imported for it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

from headwise.data.cells import image_bytes, image_name, number
from headwise.data.columns import Wanted, choose
from headwise.data.readers.arrow import dataset_records
from headwise.data.records import Record, Records
from headwise.errors import HeadwiseError

KNOWN = (
    "a file or folder by name, a pandas or polars DataFrame, a datasets.Dataset, a torch Dataset of (image, text), "
    '{"images": [...], "captions": [...]}, or a list of (image, caption)'
)


def read_object(source: object, name: str) -> Records:
    """Pictures and captions in memory.

    Arguments:
        source: a `datasets` data set, a pandas or polars data frame, a pyarrow table, a torch data set whose items
            are (image, text or texts) or (image, class number) with `classes`, a mapping of columns, a list of
            mappings, or a list of (image, caption or captions). Images are paths, encoded bytes, PIL images, uint8
            arrays or tensors.

    Raises:
        HeadwiseError: none of these, or columns of different lengths.
    """
    if hasattr(source, "column_names") and hasattr(source, "cast_column"):
        if isinstance(source.column_names, dict):  # type: ignore
            raise HeadwiseError(f"{name} has splits ({', '.join(source)}); give one of them.")  # type: ignore
        if not hasattr(source, "__len__"):
            raise HeadwiseError(f"{name} is streamed; it has to be read more than once. Load it without streaming.")
        return dataset_records(source, name)  # type: ignore
    if isinstance(source, Mapping):
        return _columns(source, name)
    if (columns := _frame(source, name)) is not None:
        return _columns(columns, name)
    if isinstance(source, Sequence) and not isinstance(source, str | bytes):
        return _listed(source, name)
    if _torch_dataset(source):
        return _items(source, name)
    raise HeadwiseError(f"{name}: a {type(source).__name__} cannot be read. Give {KNOWN}.")


def _frame(source: Any, name: str) -> Mapping[str, Sequence] | None:
    """The columns of a data frame of pandas or polars, or of a pyarrow table; None if this is none."""
    library = type(source).__module__.partition(".")[0]
    kind = type(source).__name__
    if library == "polars" and kind == "LazyFrame":
        raise HeadwiseError(f"{name} is a polars LazyFrame, which holds no rows yet. Give it as .collect().")
    if library == "pandas" and kind == "DataFrame":
        if source.columns.nlevels > 1:
            raise HeadwiseError(f"{name}: its columns have several levels. Give a frame with plain column names.")
        labels = [str(column) for column in source.columns]
        if repeated := sorted({label for label in labels if labels.count(label) > 1}):
            raise HeadwiseError(f"{name}: the column {repeated[0]!r} appears twice. Rename one.")
        return {label: source.iloc[:, i].tolist() for i, label in enumerate(labels)}
    if library == "polars" and kind == "DataFrame":
        return {column: source[column].to_list() for column in source.columns}
    if library == "pyarrow" and kind in ("Table", "RecordBatch"):
        return source.to_pydict()
    return None


def _columns(source: Mapping, name: str) -> Records:
    columns = {
        str(key): values.tolist() if hasattr(values, "tolist") and getattr(values, "ndim", 1) == 1 else values
        for key, values in source.items()
    }
    lengths = {k: len(v) for k, v in columns.items() if hasattr(v, "__len__") and not isinstance(v, str | bytes)}
    if len(lengths) < len(columns) or len(set(lengths.values())) > 1:
        found = ", ".join(f"{key}: {lengths.get(key, 'no list')}" for key in columns)
        raise HeadwiseError(f"{name}: the columns must be lists of one length; they are {found}.")
    rows = (dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return _records(list(rows), tuple(columns), name)


def _listed(source: Sequence, name: str) -> Records:
    if all(isinstance(item, Mapping) for item in source):
        return _records(source, tuple(dict.fromkeys(str(key) for item in source for key in item)), name)
    if all(isinstance(item, tuple | list) and len(item) == 2 for item in source):
        return _records([{"image": a, "captions": b} for a, b in source], ("image", "captions"), name)
    raise HeadwiseError(f"{name}: a {type(source).__name__} of such items cannot be read. Give {KNOWN}.")


def _records(rows: Sequence[Mapping], columns: tuple[str, ...], name: str) -> Records:
    if not rows:
        raise HeadwiseError(f"{name}: no rows. Give at least two images with a caption each.")
    return Records(name, columns, (Record(f"{name} item {i}", row) for i, row in enumerate(rows)))


# ---- torch


def _torch_dataset(source: object) -> bool:
    return hasattr(source, "__getitem__") and hasattr(source, "__len__") and not hasattr(source, "dtype")


def _items(source: Any, name: str) -> Records:
    """Items are looked at once for their texts; pictures are asked for again when they are needed."""
    if not len(source):
        raise HeadwiseError(f"{name}: no rows. Give at least two images with a caption each.")
    first = _item(source, 0, name)
    classes = _classes(source)
    numbered = number(first[1]) is not None
    labelled = numbered and isinstance(classes, list | tuple) and all(map(_is_text, classes))
    if numbered and not labelled:
        raise HeadwiseError(f"{name}: its items are (image, number), and it has no list `classes` of their names.")
    try:
        held = image_name(first[0]) is None
        steady = not held or image_bytes(first[0]) == image_bytes(_item(source, 0, name)[0])
    except HeadwiseError as error:
        raise HeadwiseError(f"{name}: item 0: {error}.") from error
    if not steady:
        raise HeadwiseError(f"{name} gives another picture each time. Take its random transforms away.")
    column = "label" if labelled else "captions"

    def records() -> Iterator[Record]:
        for i in range(len(source)):
            text = _item(source, i, name)[1]
            text = list(text) if isinstance(text, tuple) else text
            yield Record(f"{name} item {i}", _Item(partial(_item, source, i, name), column, text))

    names = {"label": tuple(classes)} if labelled and classes is not None else {}
    return Records(name, ("image", column), records(), names)


def _classes(source: Any) -> Any:
    """The class names of a data set, or of that of which it is a part (`torch.utils.data.Subset`)."""
    while not hasattr(source, "classes") and hasattr(source, "dataset") and hasattr(source, "indices"):
        source = source.dataset
    return getattr(source, "classes", None)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _item(source: Any, index: int, name: str) -> tuple[Any, Any]:
    """(image, text) of an item.

    Raises:
        HeadwiseError: the data set cannot give it, or gives something else.
    """
    try:
        item = source[index]
    except Exception as error:  # a user's own code
        raise HeadwiseError(f"{name}: item {index} cannot be had ({type(error).__name__}: {error}).") from error
    if isinstance(item, Mapping):
        columns = choose([str(key) for key in item], Wanted(), f"{name} item {index}")
        texts = [item[column] for column in columns.captions] or [item[columns.label]]
        return item[columns.image], texts[0] if len(texts) == 1 else tuple(texts)
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise HeadwiseError(f"{name}: item {index} is a {type(item).__name__}; (image, text) is needed.")
    return item[0], item[1]


class _Item(Mapping[str, object]):
    """(image, text) as named cells; the image is asked for each time."""

    def __init__(self, item, column: str, text: object):
        self._item, self._column, self._text = item, column, text

    def __getitem__(self, name: str) -> object:
        if name == self._column:
            return self._text
        if name == "image":
            return self._item()[0]
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(("image", self._column))

    def __len__(self) -> int:
        return 2

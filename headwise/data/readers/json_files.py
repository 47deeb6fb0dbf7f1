"""JSON files, and those that hold records: a list of objects, columns, or captions by the image's name.

In: a file. Out: `load_json` gives what it holds, for the readers of the field's own formats; `read_json` gives
records. A file of a format that has a kind of its own is refused with the name of that kind.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from headwise.data.columns import IMAGE
from headwise.data.files import require_file
from headwise.data.opening import read_bytes
from headwise.data.readers.tables import read_table
from headwise.data.records import Record, Records
from headwise.data.split_words import meaning
from headwise.errors import HeadwiseError

SHAPES = (
    'a list of objects [{"image": "a.png", "caption": "a cat"}, ...], columns {"image": [...], "caption": [...]}, '
    'or captions by image {"a.png": ["a cat", "the cat"], ...}'
)


def load_json(location: str) -> object:
    """What a JSON file holds.

    Raises:
        HeadwiseError: no such file, not JSON.
    """
    require_file(location, "a JSON file")
    try:
        return json.loads(read_bytes(location))
    except OSError as error:
        raise HeadwiseError(f"{location}: cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise HeadwiseError(f"{location}: not JSON ({error}). Is the file complete?") from error


def read_json(location: str) -> Records:
    """Records in a JSON file, in any of the shapes that people and pandas write; also one object a line.

    Raises:
        HeadwiseError: not JSON, or JSON of another shape; the field's own formats are named with their kind.
    """
    try:
        data = load_json(location)
    except HeadwiseError as error:
        if isinstance(error.__cause__, json.JSONDecodeError) and error.__cause__.msg == "Extra data":
            return read_table(location, "jsonl")
        raise
    if isinstance(data, dict):
        _refuse_known(data, location)
    items = list(_items(data, location))
    columns = dict.fromkeys(str(key) for item in items if isinstance(item, Mapping) for key in item)
    if not columns:
        raise HeadwiseError(f"{location}: no records. A JSON file may hold {SHAPES}.")

    def records() -> Iterator[Record]:
        for i, item in enumerate(items):
            if isinstance(item, Mapping):
                yield Record(f"{location} item {i}", item)
            else:
                yield Record(f"{location} item {i}", {}, f"a JSON {type(item).__name__}, not an object")

    return Records(location, tuple(columns), records())


def _refuse_known(data: dict, location: str) -> None:
    images = data.get("images")
    if not isinstance(images, list):
        if isinstance(data.get("labels"), list) and isinstance(data.get("data"), list):
            raise HeadwiseError(f"{location} is one of Cola's files; read it as cola:{location}.")
        return
    if isinstance(data.get("annotations"), list):
        raise HeadwiseError(f"{location} is a file of COCO captions; read it as coco:{location}?images=DIR.")
    if images and isinstance(images[0], dict) and "sentences" in images[0]:
        raise HeadwiseError(f"{location} is a file of Karpathy's splits; read it as karpathy:{location}?images=DIR.")


def _items(data: object, location: str) -> Sequence[object]:
    """The records in a JSON value of any known shape."""
    if isinstance(data, list):
        if data and all(isinstance(item, list) and len(item) == 2 for item in data):
            return [{"image": image, "captions": captions} for image, captions in data]
        return data
    if not isinstance(data, dict) or not data:
        raise HeadwiseError(f"{location}: a JSON {type(data).__name__} without records. It may hold {SHAPES}.")
    values = list(data.values())
    if isinstance(data.get("columns"), list) and _all(data.get("data"), list):
        return [dict(zip(data["columns"], row, strict=False)) for row in data["data"]]
    if any(str(key).lower() in IMAGE for key in data) and len(set(map(type, values))) == 1:
        return _columns(data, location)
    lists = [value for value in values if _all(value, dict)]
    if len(lists) == 1:
        return lists[0]
    if lists and len(lists) == len(values) and all(map(meaning, data)):
        return [{"split": key, **item} for key, items in data.items() for item in items]
    if lists:
        found = ", ".join(str(key)[:40] for key, value in data.items() if _all(value, dict))
        raise HeadwiseError(
            f"{location} holds several lists of records ({found[:200]}). Save the one you mean by itself."
        )
    if all(isinstance(value, dict) for value in values):
        return [value if _names_image(value) else {"image": key, **value} for key, value in data.items()]
    if all(isinstance(value, str | list) for value in values):
        return [{"image": key, "captions": value} for key, value in data.items()]
    raise HeadwiseError(f"{location}: its keys are {', '.join(map(str, list(data)[:10]))}. It may hold {SHAPES}.")


def _all(value: object, kind: type) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(item, kind) for item in value)


def _names_image(item: dict) -> bool:
    return any(str(key).lower() in IMAGE for key in item)


def _columns(data: dict, location: str) -> list[dict]:
    """Columns as lists of one length, or as pandas writes them, {column: {row: value}}."""
    if all(isinstance(value, dict) for value in data.values()):
        rows = dict.fromkeys(row for column in data.values() for row in column)
        return [{name: column.get(row) for name, column in data.items()} for row in rows]
    if not all(isinstance(value, list) for value in data.values()):
        return [data]
    if len({len(value) for value in data.values()}) > 1:
        found = ", ".join(f"{name}: {len(value)}" for name, value in data.items())
        raise HeadwiseError(f"{location}: the columns must have one length; they have {found}.")
    return [dict(zip(data, row, strict=True)) for row in zip(*data.values(), strict=True)]

"""JSON annotation files: Karpathy's splits, and COCO captions.

In: a `Place` that names one such file. Out: a row for every image with its captions, and one for every entry that is
wrong. An image may have several names (`DIR/filepath/filename`, `DIR/filename`); which is there is found later.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator

from headwise.data.place import Place
from headwise.data.readers.json_files import load_json
from headwise.data.rows import Row, Table
from headwise.errors import HeadwiseError


def read_karpathy(place: Place) -> Table:
    """`{"images": [{"filename", "filepath"?, "split", "sentences": [{"raw"}]}]}`; `restval` counts as `train`.

    Images are looked for as DIR/filepath/filename and as DIR/filename.

    Raises:
        HeadwiseError: not such a file.
    """
    images = _list(_load(place.location), "images", place.location)

    def rows() -> Iterator[Row]:
        for i, item in enumerate(images):
            origin = f"{place.location} image {i}"
            if not isinstance(item, dict) or not isinstance(item.get("filename"), str):
                yield Row(origin, problem="no filename")
                continue
            sentences = item.get("sentences")
            if not isinstance(sentences, list):
                yield Row(origin, problem="no list of sentences")
                continue
            captions = tuple(s.get("raw") if isinstance(s, dict) else s for s in sentences)
            split = item.get("split")
            split = "train" if split == "restval" else None if split is None else str(split)
            names = (item["filename"],)
            if isinstance(item.get("filepath"), str):
                names = (os.path.join(item["filepath"], item["filename"]), *names)
            yield _row(origin, names, captions, split)

    return Table(place.name, rows())


TAKEN: list[object] = []  # marks the captions of an image that was listed before


def read_coco(place: Place) -> Table:
    """`{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`.

    Captions of an image that is not listed, and images without captions, are bad rows.

    Raises:
        HeadwiseError: not such a file.
    """
    data = _load(place.location)
    images = _list(data, "images", place.location)
    annotations = _list(data, "annotations", place.location)

    def rows() -> Iterator[Row]:
        captions: dict[str, list[object]] = defaultdict(list)
        known = {str(item.get("id")) for item in images if isinstance(item, dict)}
        for i, item in enumerate(annotations):
            image = str(item.get("image_id")) if isinstance(item, dict) else None
            if image not in known:
                problem = "not an object" if image is None else f"a caption of image {image}, which is not listed"
                yield Row(f"{place.location} annotation {i}", problem=problem)
            else:
                captions[image].append(item.get("caption"))
        names: dict[str, str] = {}  # id → file name
        for i, item in enumerate(images):
            origin = f"{place.location} image {i}"
            if not isinstance(item, dict) or not isinstance(item.get("file_name"), str):
                yield Row(origin, problem="no file_name")
                continue
            key, name = str(item.get("id")), item["file_name"]
            if names.setdefault(key, name) != name:
                yield Row(origin, problem=f"image {name} has the id {key}, as {names[key]} has")
                continue
            if captions.get(key) is TAKEN:
                continue  # listed twice
            found = captions.get(key)
            captions[key] = TAKEN
            if not found:
                yield Row(origin, problem=f"image {item['file_name']} has no caption")
            else:
                yield _row(origin, (item["file_name"],), tuple(found), None)

    return Table(place.name, rows())


def _row(origin: str, names: tuple[str, ...], captions: tuple, split: str | None) -> Row:
    return Row(f"{origin} ({names[-1]})", names, captions=captions, id=names[-1], split=split)


def _load(location: str) -> dict:
    data = load_json(location)
    if not isinstance(data, dict):
        raise HeadwiseError(f"{location}: a JSON {type(data).__name__}; an object with 'images' is needed.")
    return data


def _list(data: dict, key: str, location: str) -> list:
    if not isinstance(data.get(key), list):
        raise HeadwiseError(f"{location}: no list {key!r} in it. It has: {', '.join(map(str, data)) or 'nothing'}.")
    return data[key]

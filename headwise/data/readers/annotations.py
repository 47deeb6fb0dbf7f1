"""JSON annotation files: Karpathy's splits, and COCO captions."""

from __future__ import annotations

import json
import os
from collections import defaultdict
from collections.abc import Iterator
from functools import partial

from headwise.data.files import is_remote, join, parent, read_bytes, require_file
from headwise.data.place import Place
from headwise.data.rows import Row, Table
from headwise.errors import HeadwiseError


def read_karpathy(place: Place) -> Table:
    """`{"images": [{"filename", "filepath"?, "split", "sentences": [{"raw"}]}]}`; `restval` counts as `train`.

    Images are looked for as DIR/filepath/filename and as DIR/filename.

    Raises:
        HeadwiseError: not such a file.
    """
    images = _list(_load(place.location), "images", place.location)
    base = place.images if place.images is not None else parent(place.location)

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
            names = [item["filename"]]
            if isinstance(item.get("filepath"), str):
                names.insert(0, os.path.join(item["filepath"], item["filename"]))
            yield _row(origin, base, names, captions, split)

    return Table(place.name, rows())


def read_coco(place: Place) -> Table:
    """`{"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}`.

    Captions of an image that is not listed, and images without captions, are bad rows.

    Raises:
        HeadwiseError: not such a file.
    """
    data = _load(place.location)
    images = _list(data, "images", place.location)
    annotations = _list(data, "annotations", place.location)
    base = place.images if place.images is not None else parent(place.location)

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
        for i, item in enumerate(images):
            origin = f"{place.location} image {i}"
            if not isinstance(item, dict) or not isinstance(item.get("file_name"), str):
                yield Row(origin, problem="no file_name")
                continue
            found = captions.get(str(item.get("id")))
            if not found:
                yield Row(origin, problem=f"image {item['file_name']} has no caption")
            else:
                yield _row(origin, base, [item["file_name"]], tuple(found), None)

    return Table(place.name, rows())


def _row(origin: str, base: str, names: list[str], captions: tuple, split: str | None) -> Row:
    paths = [join(base, name) for name in names]
    path = next((p for p in paths if not is_remote(p) and os.path.exists(p)), paths[0])
    return Row(
        f"{origin} ({names[-1]})",
        partial(read_bytes, path),
        captions=captions,
        key=path,
        id=names[-1],
        path=path,
        split=split,
    )


def _load(location: str) -> dict:
    data = load_json(location)
    if not isinstance(data, dict):
        raise HeadwiseError(f"{location}: a JSON {type(data).__name__}; an object with 'images' is needed.")
    return data


def load_json(location: str) -> object:
    """What a JSON file holds.

    Raises:
        HeadwiseError: no such file, not JSON.
    """
    require_file(location, "a JSON file")
    try:
        return json.loads(read_bytes(location).decode("utf-8-sig"))
    except OSError as error:
        raise HeadwiseError(f"{location}: cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise HeadwiseError(f"{location}: not JSON ({error}). Is the file complete?") from None


def _list(data: dict, key: str, location: str) -> list:
    if not isinstance(data.get(key), list):
        raise HeadwiseError(f"{location}: no list {key!r} in it. It has: {', '.join(map(str, data)) or 'nothing'}.")
    return data[key]

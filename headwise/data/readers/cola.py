"""Cola's files (Ray et al. 2023, arXiv 2305.03689), as its authors publish them.

Multi-object: a list of [image 1, caption 1, image 2, caption 2], where the captions swap attributes. Single-object:
`labels`, the queries, and `data`, a list of [image, annotation, label, hard_list], the last two with a 0 or 1 for each
query (the annotation is absent in the PACO version); an object with these keys, or a list of the two.
"""

from __future__ import annotations

from collections.abc import Iterator

from headwise.data.files import is_remote
from headwise.data.pairs import COLA_PAIRS
from headwise.data.place import Place
from headwise.data.readers.json_files import load_json
from headwise.data.rows import Row, Table
from headwise.errors import HeadwiseError


def read_cola(place: Place) -> Table:
    """Either of Cola's settings; the file itself says which.

    Images are URLs or paths; with `images=DIR` they are looked for there, by their path and by their last name.

    Raises:
        HeadwiseError: not such a file.
    """
    data = load_json(place.location)
    if isinstance(data, dict) and "labels" in data and "data" in data:
        data = [data["labels"], data["data"]]
    if not isinstance(data, list) or not data:
        raise HeadwiseError(f"{place.location}: neither Cola's list of pairs nor an object with 'labels' and 'data'.")
    if len(data) == 2 and all(isinstance(part, list) for part in data) and _texts(data[0]) and _lists(data[1]):
        return _single(place, data[0], data[1])
    return Table(place.name, _multi(place, data), kind=COLA_PAIRS)


def _texts(value: list) -> bool:
    return bool(value) and all(isinstance(name, str) and name.strip() for name in value)


def _lists(value: list) -> bool:
    return bool(value) and all(isinstance(item, list) for item in value)


def _multi(place: Place, data: list) -> Iterator[Row]:
    for number, item in enumerate(data):
        origin = f"{place.location} pair {number}"
        if not (isinstance(item, list) and len(item) == 4 and isinstance(item[0], str) and isinstance(item[2], str)):
            yield Row(origin, problem="not of the form [image 1, caption 1, image 2, caption 2]")
            continue
        for which in (0, 1):
            image, caption = item[2 * which], item[2 * which + 1]
            yield Row(
                f"{origin}, image {which + 1}",
                _names(place, image),
                captions=(caption,),
                key=f"{number} {which}",  # the same picture in another pair is another image
                id=f"{image.rsplit('/', 1)[-1]} of pair {number}",
                group=str(number),
            )


def _single(place: Place, names: list[str], data: list) -> Table:
    if len(set(names)) != len(names):
        raise HeadwiseError(f"{place.location}: a query appears twice in 'labels'.")

    def rows() -> Iterator[Row]:
        for number, item in enumerate(data):
            origin = f"{place.location} image {number}"
            if len(item) not in (3, 4) or not isinstance(item[0], str):
                yield Row(origin, problem="not of the form [image, annotation, label, hard_list]")
                continue
            present, counted = _ones(item[-2], len(names)), _ones(item[-1], len(names))
            if present is None or counted is None:
                yield Row(
                    origin, problem=f"label and hard_list must hold a 0 or 1 for each of the {len(names)} queries"
                )
                continue
            yield Row(
                origin,
                _names(place, item[0]),
                key=f"{number}",
                id=item[0],
                present=present,
                counted=counted,
            )

    return Table(place.name, rows(), class_names=tuple(names), kind="cola_single_object")


def _ones(flags: object, count: int) -> tuple[int, ...] | None:
    """Where the ones are; None if these are not `count` zeros and ones."""
    if not isinstance(flags, list) or len(flags) != count or any(flag not in (0, 1) for flag in flags):
        return None
    return tuple(i for i, flag in enumerate(flags) if flag)


def _names(place: Place, name: str) -> tuple[str, ...]:
    """What an image may be called: in the folder that was given by its path or its last name, else as the file says."""
    last = name.rsplit("/", 1)[-1]
    if place.images is None:
        return (name,)
    return (last,) if is_remote(name) or is_remote(place.images) else (name, last)

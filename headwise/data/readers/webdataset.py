"""WebDataset archives as clip_benchmark lays them out, for retrieval and for classification.

    DIR/{split}/nshards.txt  DIR/{split}/{0..}.tar  DIR/dataset_type.txt
    DIR/classnames.txt  DIR/zeroshot_classification_templates.txt

Nothing is ever unpacked: images are read in place, from their offset in the archive.
"""

from __future__ import annotations

import glob
import json
import os
import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

from headwise.data.captions import lines_in
from headwise.data.cells import blank
from headwise.data.columns import caption_columns
from headwise.data.files import is_remote, join, parent
from headwise.data.opening import open_binary, read_bytes
from headwise.data.place import Place
from headwise.data.rows import Row, Table
from headwise.errors import HeadwiseError

# clip_benchmark's, in its order of preference, and what others write
IMAGE_ENDINGS = ("webp", "png", "jpg", "jpeg", "img", "image", "gif", "bmp", "tif", "tiff")
TEXT_ENDINGS = ("txt", "cap", "caption", "captions", "text")
JSON_ENDING = "json"  # img2dataset's: an object with the caption among its fields
MOST_DIGITS = 18  # of a number in a name or a file
RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
MOST_SHARDS = 1_000_000
PACKED = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}  # by the file's first bytes


@dataclass(frozen=True)
class Member:
    """A file in an archive; `problem` when it cannot be used."""

    key: str
    ending: str
    offset: int
    size: int
    problem: str | None = None


def read_webdataset(place: Place) -> Table:
    """
    Raises:
        HeadwiseError: no archives, an unknown split, a multi-label set, or a classification set without
            classnames.txt.
    """
    shards, root = _shards(place)
    kind = _kind(root, shards)
    if kind == "retrieval":
        return Table(place.name, _rows(shards, place.wanted.strict.caption))
    names = _lines(join(root, "classnames.txt"))
    if not names:
        raise HeadwiseError(
            f"{place.name} is a classification set, but {join(root, 'classnames.txt')} is missing or empty. "
            "Give it one class name a line, class 0 first."
        )
    if len(names) < 2:
        raise HeadwiseError(f"{place.name} has 1 class ({names[0]}); classification needs two or more.")
    templates = _lines(join(root, "zeroshot_classification_templates.txt"))
    return Table(place.name, _rows(shards, len(names)), class_names=tuple(names), templates=tuple(templates) or None)


def _shards(place: Place) -> tuple[list[tuple[str | None, str]], str]:
    """(split, archive) of every shard, and the folder of the files about the whole."""
    location = place.location.rstrip("/")
    if found := RANGE.search(location):
        if max(map(len, found.groups())) > MOST_DIGITS:
            raise HeadwiseError(f"{place.name}: {found[0][:60]} are too many archives.")
        first, last = int(found[1]), int(found[2])
        if not 0 <= last - first < MOST_SHARDS:
            raise HeadwiseError(f"{place.name}: {last - first + 1:,} archives; 1 to {MOST_SHARDS:,} can be read.")
        width = len(found[1]) if found[1].startswith("0") else 0
        paths = [RANGE.sub(str(i).zfill(width), location, count=1) for i in range(first, last + 1)]
        return [(None, path) for path in paths], _root(location)
    if not is_remote(location) and not os.path.isdir(location):
        paths = sorted(glob.glob(location), key=_natural)
        if not paths:
            raise HeadwiseError(f"{place.name}: there is no such folder, and no archive of that name.")
        return [(None, path) for path in paths], _root(location)
    splits = list(place.split) or _splits(location)
    shards: list[tuple[str | None, str]] = []
    for split in splits:
        shards += [(split, path) for path in _of_split(place.name, location, split)]
    if not shards and not is_remote(location):
        shards = [(None, path) for path in sorted(glob.glob(join(glob.escape(location), "*.tar")), key=_natural)]
        location = _root(join(location, "*.tar")) if shards else location
    if not shards:
        raise HeadwiseError(f"{place.name}: neither {{split}}/nshards.txt nor .tar files are there.")
    return shards, location


def _splits(location: str) -> list[str]:
    if is_remote(location):
        return ["test"]  # what clip_benchmark reads; others by ?split=
    return sorted(name for name in os.listdir(location) if os.path.isfile(join(location, f"{name}/nshards.txt")))


def _of_split(name: str, location: str, split: str) -> list[str]:
    count = _lines(join(location, f"{split}/nshards.txt"))
    if not count:
        there = ", ".join(_splits(location)) or "none"
        raise HeadwiseError(
            f"{name}: there is no split {split!r} ({split}/nshards.txt is missing). Its splits are: {there}."
        )
    if not count[0].isdecimal() or not 0 < int(count[0][:9]) <= MOST_SHARDS:
        raise HeadwiseError(f"{join(location, split)}/nshards.txt: {count[0][:40]!r} is not a number of archives.")
    return [join(location, f"{split}/{i}.tar") for i in range(int(count[0]))]


def _root(pattern: str) -> str:
    """The folder with classnames.txt for archives of this pattern: theirs, or the one above."""
    here = parent(pattern)
    about = ("classnames.txt", "dataset_type.txt")
    return here if any(_lines(join(here, name)) for name in about) else parent(here)


def _natural(path: str) -> list[tuple[int, str]]:
    """A key that sorts 2.tar before 10.tar: numbers by their length, then by their digits."""
    parts = re.split(r"(\d+)", path)
    return [(len(part.lstrip("0")), part.lstrip("0")) if part.isdecimal() else (0, part) for part in parts]


def _lines(location: str) -> list[str]:
    """Stripped lines of a small text file; none if there is no such file."""
    try:
        return [line.strip() for line in read_bytes(location).decode("utf-8-sig").split("\n") if line.strip()]
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return []
    except (OSError, ValueError) as error:
        raise HeadwiseError(f"{location}: cannot be read: {error}") from error


def _kind(root: str, shards: list[tuple[str | None, str]]) -> str:
    said = _lines(join(root, "dataset_type.txt"))
    kind = said[0].lower() if said else "unknown"
    if kind not in ("retrieval", "classification", "unknown"):
        raise HeadwiseError(f"{join(root, 'dataset_type.txt')}: {kind!r} sets cannot be evaluated here.")
    if kind != "unknown":
        return kind
    if _lines(join(root, "classnames.txt")):
        return "classification"
    endings = {member.ending for member in _members(shards[0][1])}
    return "classification" if "cls" in endings and not endings & {*TEXT_ENDINGS, JSON_ENDING} else "retrieval"


def _rows(shards: list[tuple[str | None, str]], wanted: int | str | None) -> Iterator[Row]:
    """
    Arguments:
        wanted: how many classes there are, or for captions the field that holds them in a .json, None to guess.
    """
    for split, path in shards:
        for key, group in groupby(_members(path), lambda member: member.key):
            for name, members in _apart(key, list(group)):
                yield _sample(path, split, name, members, wanted)


def _apart(key: str, members: list[Member]) -> list[tuple[str, list[Member]]]:
    """The samples among files that are one by their names up to the first dot: several where each name up to the last
    dot has an image and something else (`a.v1.1.jpg`, `a.v1.1.txt`, `a.v1.2.jpg`, `a.v1.2.txt`)."""
    by_name: dict[str, list[Member]] = {}
    for member in members:
        middle, dot, ending = member.ending.rpartition(".")
        by_name.setdefault(f"{key}.{middle}" if dot else key, []).append(replace(member, ending=ending))
    whole = [{member.ending for member in found} for found in by_name.values()]
    if len(by_name) > 1 and all(found & set(IMAGE_ENDINGS) and found - set(IMAGE_ENDINGS) for found in whole):
        return list(by_name.items())
    return [(key, members)]


def _sample(path: str, split: str | None, key: str, members: list[Member], wanted: int | str | None) -> Row:
    origin, by_ending = f"{path} {key}".rstrip(), {member.ending: member for member in members}
    several = defaultdict(list)  # a.left.png is an image, too, unless there is an a.png or a.jpg
    for member in members:
        if "." in member.ending:
            several[member.ending.rpartition(".")[2]].append(member)
    problem = next((member.problem for member in members if member.problem), None)
    if len(by_ending) < len(members):
        problem = problem or f"two files have the same name {key}"
    images = [by_ending[ending] for ending in IMAGE_ENDINGS if ending in by_ending][:1]
    images = images or [member for ending in IMAGE_ENDINGS for member in several[ending]]
    if len(images) > 1:
        found = ", ".join(member.ending for member in images[:4])
        problem = (
            problem or f"several images ({found}), and none with the name {key}.{images[0].ending.rpartition('.')[2]}"
        )
    image = images[0] if images else None
    endings = ("cls",) if isinstance(wanted, int) else (*TEXT_ENDINGS, JSON_ENDING)
    if problem is None and image is None:
        problem = f"no image ({', '.join(IMAGE_ENDINGS)}), only {', '.join(sorted(by_ending))}"
    texts = [[by_ending[ending]] if ending in by_ending else several[ending] for ending in endings]
    texts = [found for found in texts if found]
    if problem is None and not texts:
        problem = f"no .{endings[0]} beside the image"
    if problem is not None or image is None:
        return Row(origin, problem=problem, split=split)
    row = Row(
        origin,
        fetch=partial(_fetch, path, image.offset, image.size),
        key=f"{path}:{image.offset}",
        id=f"{os.path.basename(path)}/{key}",
        split=split,
    )
    for found in texts:
        captions: list[object] = []
        for text in sorted(found, key=lambda member: _natural(member.ending)):  # a.1.txt, a.2.txt
            row = _with_text(row, _fetch(path, text.offset, text.size), text.ending, wanted)
            captions += row.captions
        row = replace(row, captions=tuple(captions))
        if row.problem or row.label is not None or any(not blank(cell) for cell in row.captions):
            break  # the next one counts only where this one is empty
    return row


def _with_text(row: Row, data: bytes, ending: str, wanted: int | str | None) -> Row:
    if isinstance(wanted, int):
        text = data[:100].decode("utf-8", "replace").strip().removeprefix("\ufeff")
        if not text.isdecimal() or len(text) > MOST_DIGITS or int(text) >= wanted:
            return replace(row, problem=f"label {text[:20]!r} is not a class number below {wanted}")
        return replace(row, label=int(text))
    if ending.rpartition(".")[2] == JSON_ENDING:
        return _with_fields(row, data, wanted)
    try:
        return replace(row, captions=lines_in(data))
    except HeadwiseError as error:
        return replace(row, problem=str(error))


def _with_fields(row: Row, data: bytes, wanted: str | None) -> Row:
    """A row with the captions in a JSON object."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError) as error:
        return replace(row, problem=f"the .json beside the image is not JSON ({error})")
    if not isinstance(fields, dict):
        return replace(row, problem=f"the .json beside the image holds a {type(fields).__name__}, not an object")
    names = caption_columns(list(fields)) if wanted is None else tuple(name for name in [wanted] if name in fields)
    if not names:
        what = "caption" if wanted is None else wanted
        return replace(row, problem=f"no field {what!r} in the .json beside the image, only {', '.join(fields)[:80]}")
    return replace(row, captions=tuple(fields[name] for name in names))


def _members(path: str) -> Iterator[Member]:
    """The files of an archive in order; where it is truncated, a last one that says so.

    Raises:
        HeadwiseError: not there, or not a tar archive.
    """
    try:
        file = open_binary(path)
    except OSError as error:
        raise HeadwiseError(f"{path}: cannot be read: {error.strerror or error}") from None
    count = 0
    with file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        packed = PACKED.get(file.read(2))
        file.seek(0)
        try:
            with tarfile.open(fileobj=file, mode="r:") as archive:
                for info in archive:
                    if info.isdir() or os.path.basename(info.name).startswith("._"):
                        continue  # a Mac's notes on a file
                    count += 1
                    yield _member(info, size)
                end = archive.offset
        except (tarfile.TarError, OSError, ValueError, OverflowError, RecursionError) as error:
            if not count:
                way_out = (
                    f" It is compressed with {packed}; unpack it first, images are read from their place."
                    if packed
                    else ""
                )
                raise HeadwiseError(f"{path}: not a readable tar archive ({error}).{way_out}") from None
            yield Member("", "", 0, 0, f"the archive is truncated or broken after {count:,} files ({error})")
            return
        file.seek(min(end, size))
        if file.read(512) != bytes(512) and not _ended(file, end):
            yield Member("", "", 0, 0, f"the archive is truncated after {count:,} files (it has no end mark)")


def _ended(file, end: int) -> bool:
    """Whether the block before `end` is the end mark: tarfile may have read past it."""
    file.seek(max(0, end - 512))
    return end >= 512 and file.read(512) == bytes(512)


def _member(info: tarfile.TarInfo, size: int) -> Member:
    folder, _, base = info.name.rpartition("/")
    stem, _, ending = base.partition(".")
    key = f"{folder}/{stem}" if folder else stem
    problem = None
    if info.name.startswith("/") or ".." in info.name.split("/"):
        problem = f"the name {info.name!r} leads out of the archive"
    elif not info.isreg():
        problem = f"{info.name!r} is a link or a special file"
    elif info.offset_data + info.size > size:
        problem = f"{info.name!r} is truncated"
    return Member(key, ending.lower(), info.offset_data, info.size, problem)


def _fetch(path: str, offset: int, size: int) -> bytes:
    with open_binary(path) as file:
        file.seek(offset)
        return file.read(size)

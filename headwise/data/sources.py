"""`kind:location?key=value&…`, what a user types → the reader of that kind."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import parse_qsl

from headwise.data.columns import Wanted
from headwise.data.files import is_remote
from headwise.data.place import Place
from headwise.data.rows import Table
from headwise.errors import HeadwiseError

KINDS = {
    "karpathy": "Karpathy's JSON: karpathy:dataset_coco.json?images=DIR",
    "coco": "COCO captions JSON: coco:captions_val2014.json?images=DIR",
    "flickr": "Flickr's image,caption file: flickr:captions.csv?images=DIR",
    "cna": "lines of ID#K, tab, caption: cna:test.txt?images=DIR",
    "chinese-clip": "a folder of {split}_imgs.tsv and {split}_texts.jsonl: chinese-clip:DIR?split=test",
    "wds": "WebDataset as clip_benchmark lays it out: wds:DIR?split=test, or wds:'DIR/*.tar'",
    "cola": "Cola's multi-object or single-object file: cola:FILE.json?images=DIR",
    "mix": "several sources with weights, listed in a file: mix:FILE.json",
    "hf": "a data set of the Hugging Face hub: hf:OWNER/NAME?split=test&image=image&captions=raw",
}
TABLES = ("csv", "tsv", "jsonl")
EXPECTED = "a .csv, .tsv, .jsonl or .parquet file, a folder of images, or one of: " + ", ".join(f"{k}:" for k in KINDS)
OPTIONS = ("image", "caption", "captions", "group", "label", "images", "split", "config")


def open_named(name: str, wanted: Wanted, images: str | None = None) -> Table:
    """The rows of a source by its name.

    Raises:
        HeadwiseError: an unknown kind or option, nothing at that place, or a split that is not there.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind in KINDS and not rest.startswith("//"):
        place = parse(name, rest, wanted, images)
        return narrowed(_reader(kind)(place), place)
    if colon and len(kind) > 1 and not is_remote(name) and not os.path.exists(name):
        known = "\n".join(f"  {text}" for text in KINDS.values())
        raise HeadwiseError(f"{name}: {kind!r} is not a kind of source. Known are a file or folder, and:\n{known}")
    place = Place(name, name, wanted, images) if os.path.exists(name) else parse(name, name, wanted, images)
    return narrowed(open_file(place), place)


def parse(name: str, rest: str, wanted: Wanted, images: str | None) -> Place:
    location, _, query = rest.partition("?")
    if not location:
        raise HeadwiseError(f"{name!r} names no file or folder. Give {EXPECTED}.")
    options = dict(parse_qsl(query, keep_blank_values=True))
    if unknown := sorted(set(options) - set(OPTIONS)):
        raise HeadwiseError(f"{name}: unknown option {unknown[0]!r}. Known are {', '.join(OPTIONS)}.")
    return Place(
        name=name,
        location=location,
        wanted=_columns(wanted, options),
        images=options.get("images", images),
        split=tuple(part.strip() for part in options.get("split", "").split(",") if part.strip()),
        config=options.get("config"),
    )


def _columns(wanted: Wanted, options: Mapping[str, str]) -> Wanted:
    given = {key: options[key] for key in ("image", "caption", "group", "label") if key in options}
    if "captions" in options:
        given["caption"] = options["captions"]
    return replace(wanted, **given)


def narrowed(table: Table, place: Place) -> Table:
    """Only the rows of the wanted splits.

    Raises:
        HeadwiseError: while reading, at the end: a wanted split that no row has.
    """
    if not place.split:
        return table

    def rows():
        seen = set()
        for row in table.rows:
            seen.add(row.split)
            if place.keep(row.split) or (row.problem is not None and row.split is None):
                yield row
        if missing := [name for name in place.split if name not in seen]:
            there = ", ".join(sorted(str(name) for name in seen if name)) or "none"
            raise HeadwiseError(f"{place.name}: there is no split {missing[0]!r}. Its splits are: {there}.")

    return replace(table, rows=rows())


def _reader(kind: str) -> Callable[[Place], Table]:
    if kind in ("karpathy", "coco"):
        from headwise.data.readers import annotations

        return annotations.read_karpathy if kind == "karpathy" else annotations.read_coco
    if kind in ("flickr", "cna"):
        from headwise.data.readers import flickr

        return flickr.read_flickr if kind == "flickr" else flickr.read_cna
    if kind == "chinese-clip":
        from headwise.data.readers.chinese import read_chinese_clip

        return read_chinese_clip
    if kind == "cola":
        from headwise.data.readers.cola import read_cola

        return read_cola
    if kind == "wds":
        from headwise.data.readers.webdataset import read_webdataset

        return read_webdataset
    from headwise.data.readers.hub import read_hub

    return read_hub


def open_file(place: Place) -> Table:
    """A file or folder by its path; its ending says what it is."""
    from headwise.data.readers.arrow import read_parquet
    from headwise.data.readers.folder import read_folder
    from headwise.data.readers.hub import is_saved, read_saved
    from headwise.data.readers.tables import read_table

    location, wanted = place.location, place.wanted
    if not is_remote(location):
        if os.path.isdir(location):  # unlike Path's, an answer also for a name that no file can have
            return read_saved(place) if is_saved(location) else read_folder(location, wanted)
        if not os.path.exists(location):
            raise HeadwiseError(f"{location} does not exist. Give {EXPECTED}.")
    ending = location.lower().rsplit(".", 1)[-1]
    if ending in TABLES:
        return read_table(location, ending, wanted, place.images)
    if ending == "parquet":
        return read_parquet(location, wanted, place.images)
    raise HeadwiseError(f"{location}: the ending .{ending} is not known. Give {EXPECTED}.")

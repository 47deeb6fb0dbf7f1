"""`kind:location?key=value&…`, what a user types → the reader of that kind.

In: a name. Out: a `Table`, narrowed to the splits that were asked for. A new reader is one file in `readers/` and its
name here; what its rows mean is known further on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import replace
from urllib.parse import parse_qsl

from headwise.data.columns import Wanted
from headwise.data.files import is_remote
from headwise.data.images import images_of, local_name
from headwise.data.place import Place
from headwise.data.readers import annotations, flickr, hub
from headwise.data.readers.arrow import read_parquet
from headwise.data.readers.chinese import read_chinese_clip
from headwise.data.readers.cola import read_cola
from headwise.data.readers.folder import read_folder
from headwise.data.readers.json_files import read_json
from headwise.data.readers.tables import read_table
from headwise.data.readers.webdataset import read_webdataset
from headwise.data.records import Records, rows_of
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
TABLES = {"csv": "csv", "tsv": "tsv", "tab": "tsv", "jsonl": "jsonl", "ndjson": "jsonl"}  # ending → kind
EXPECTED = "a .csv, .tsv, .json, .jsonl or .parquet file, a folder of images, or one of: " + ", ".join(
    f"{k}:" for k in KINDS
)
READERS: Mapping[str, Callable[[Place], Table | Records]] = {
    "karpathy": annotations.read_karpathy,
    "coco": annotations.read_coco,
    "flickr": flickr.read_flickr,
    "cna": flickr.read_cna,
    "chinese-clip": read_chinese_clip,
    "wds": read_webdataset,
    "cola": read_cola,
    "hf": hub.read_hub,
}
OPTIONS = ("image", "caption", "captions", "group", "label", "images", "split", "config")


def open_named(name: str, wanted: Wanted, images: str | None = None, remote: bool = False) -> Table:
    """The rows of a source by its name: open → records → rows.

    Raises:
        HeadwiseError: an unknown kind or option, nothing at that place, or a split that is not there.
    """
    kind, colon, rest = name.partition(":")
    if colon and kind in READERS and not rest.startswith("//"):
        place, reader = parse(name, rest, wanted, images, remote), READERS[kind]
        if kind == "hf" and not os.path.isdir(place.location):
            place = replace(place, remote=True)  # the hub is remote itself
    else:
        name = local_name(name)
        if colon and len(kind) > 1 and not is_remote(name) and name.startswith(kind) and not os.path.exists(name):
            known = "\n".join(f"  {text}" for text in KINDS.values())
            raise HeadwiseError(f"{name}: {kind!r} is not a kind of source. Known are a file or folder, and:\n{known}")
        whole = os.path.exists(name)
        place = Place(name, name, wanted, images, remote=remote) if whole else parse(name, name, wanted, images, remote)
        reader = _open_file
    found = reader(place)
    table = rows_of(found, place.wanted) if isinstance(found, Records) else found
    return narrowed(replace(table, images=images_of(place, table.roots)), place)


def parse(name: str, rest: str, wanted: Wanted, images: str | None, remote: bool) -> Place:
    """A source with the options that follow its name.

    Raises:
        HeadwiseError: no location, or an unknown option.
    """
    location, _, query = rest.partition("?")
    location = local_name(location)
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
        remote=remote,
    )


def _columns(wanted: Wanted, options: Mapping[str, str]) -> Wanted:
    given = {key: options[key] for key in ("image", "caption", "group", "label") if key in options}
    if "captions" in options:
        given["caption"] = options["captions"]
    if given.keys() & {"caption", "label"}:  # one of them, as this source's name says
        wanted = wanted.without(wanted.loose & {"caption", "label"})
    return replace(wanted, **given, loose=wanted.loose - given.keys())


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


def _open_file(place: Place) -> Table | Records:
    """A file or folder by its path; its ending says what it is."""
    location = place.location
    if not is_remote(location):
        if os.path.isdir(location):  # unlike Path's, an answer also for a name that no file can have
            return hub.read_saved(place) if hub.is_saved(location) else read_folder(location, place.wanted)
        if not os.path.exists(location):
            raise HeadwiseError(f"{location} does not exist. Give {EXPECTED}.")
    ending = location.lower().rsplit(".", 1)[-1]
    if ending in TABLES:
        return read_table(location, TABLES[ending])
    if ending == "parquet":
        return read_parquet(location)
    if ending == "json":
        return read_json(location)
    raise HeadwiseError(f"{location}: the ending .{ending} is not known. Give {EXPECTED}.")

"""Any source by the name a user types → `Pairs`.

In: a name, or an object in memory, and which columns are what. Out: `Pairs`. The way is `sources` (which reader) →
`readers/` (records or rows) → `records` (roles of columns) → `assemble` (checks); a mixture goes it for each part.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from difflib import get_close_matches
from inspect import Parameter, signature

from headwise.data.assemble import Bad, assemble, check_equal
from headwise.data.columns import ROLES, Wanted
from headwise.data.files import cache_folder, is_remote
from headwise.data.images import images_in_memory
from headwise.data.mix import KIND, read_mix
from headwise.data.pairs import Pairs
from headwise.data.records import rows_of
from headwise.data.remote import nothing_kept
from headwise.data.rows import Row, Table
from headwise.data.sources import open_named
from headwise.data.workers import Progress
from headwise.errors import HeadwiseError
from headwise.staging import tidy
from headwise.wording import option


def read(
    source: object,
    *,
    image: str | None = None,
    caption: str | None = None,
    split: str | None = None,
    group: str | None = None,
    label: str | None = None,
    images: str | None = None,
    remote: bool = False,
    name: str | None = None,
    skip_bad: bool = False,
    equal_captions: str = "shared",
    cache_dir: str | os.PathLike | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
    **unknown: object,
) -> Pairs:
    """Images with their captions or labels, from anywhere.

    Arguments:
        source: what to read: `demo` (packaged), a `.csv`, `.tsv`, `.json`, `.jsonl` or `.parquet` file, a folder of images, a folder that
            `datasets` saved, one of the field's formats by name (`karpathy:`, `coco:`, `flickr:`, `cna:`,
            `chinese-clip:`, `wds:`, `cola:`, `hf:`, `mix:`; see `headwise.data.sources.KINDS`), or an object in memory
            (a pandas or polars DataFrame, `datasets.Dataset`, a torch Dataset of (image, text), {"images": [...],
            "captions": [...]}, a list of (image, caption)). Options may
            follow a name: `pairs.csv?caption=title&split=test`.
        image, caption, split, group, label: columns; guessed from usual names by default. `caption` may be
            several columns joined by commas. A label column without captions makes a classification set.
        images: the folder that relative image paths start from; by default the file's own. Images are read from
            these two folders only.
        remote: a source on this machine may name images elsewhere (https, s3, gs, hf).
        name: what to call the source in reports.
        skip_bad: leave bad rows out and count them in `Pairs.skipped`, instead of refusing the source.
        equal_captions: captions that are equal word for word on several images: `shared`, one text that is right with
            any of them; or `own`, each a text for which the other images are wrong. The same for every source.
        cache_dir: where verdicts on images are remembered; $HEADWISE_CACHE or ~/.cache/headwise by default.
        workers: threads; one per core by default.
        progress: called with (done, total) while the images are checked.

    Raises:
        HeadwiseError: the source cannot be read; a missing column; bad rows, all of them counted.

    Example:
        >>> pairs = read("pairs.csv")
        >>> pairs = read([("cat.jpg", "a cat"), ("dog.jpg", ["a dog", "a puppy"])])
    """
    check_keywords(unknown)
    wanted = Wanted(image, caption, split, group, label)
    return _read_as(
        source,
        wanted,
        images=images,
        remote=remote,
        name=name,
        cache_dir=cache_dir,
        skip_bad=skip_bad,
        equal_captions=equal_captions,
        workers=workers,
        progress=progress,
    )


def read_beside(
    source: object, columns: Mapping[str, object], *, bare: bool = False, progress: Progress | None = None
) -> Pairs:
    """Another source of a command, beside the one that its options are about.

    A column that was named counts where this source has it; else its own are guessed. What follows its name
    (`old.csv?caption=title`) comes first. Its images lie where it does, or where `?images=DIR` says.

    Arguments:
        columns: keywords of `read`: columns, remote, skip_bad, equal_captions; `images` is the first source's alone.
        bare: the images alone are wanted, so that a folder of them will do; captions are not read.

    Raises:
        HeadwiseError: as `read`.
    """
    check_keywords(columns)
    options = {name: value for name, value in columns.items() if name not in (*ROLES, "images")}
    asked = {role: columns.get(role) for role in ROLES}
    asked = {role: name for role, name in asked.items() if name is not None}
    wanted = Wanted(**asked, loose=frozenset(asked), bare=bare)  # type: ignore[arg-type]
    return _read_as(source, wanted, progress=progress, **options)  # type: ignore[arg-type]


def _read_as(
    source: object,
    wanted: Wanted,
    *,
    images: str | None = None,
    remote: bool = False,
    name: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    skip_bad: bool = False,
    equal_captions: str = "shared",
    workers: int | None = None,
    progress: Progress | None = None,
) -> Pairs:
    """Any source, as `read` and `read_beside` ask for it."""
    check_equal(equal_captions)
    if isinstance(source, Pairs):
        return source
    cache = cache_folder(cache_dir)
    tidy(cache)

    def one(source: object, wanted: Wanted, images: str | None) -> Pairs:
        table = open_source(source, wanted, images=images, remote=remote, name=name)
        table = images_alone(table) if wanted.bare else table
        return assemble(
            table,
            skip_bad=skip_bad,
            equal_captions=equal_captions,
            cache_dir=cache,
            workers=workers,
            progress=progress,
        )[0]

    return _read(source, wanted, images, remote, one)


def read_with_bad_rows(
    source: object,
    wanted: Wanted,
    *,
    images: str | None = None,
    remote: bool = False,
    progress: Progress | None = None,
) -> tuple[Pairs, tuple[Bad, ...]]:
    """As `read(skip_bad=True)`, with the bad rows; writes nothing, not even to the cache. What is fetched lies in a
    folder that is gone afterwards, so that the images of remote sources cannot be read again."""
    bad: list[Bad] = []

    def one(source: object, wanted: Wanted, images: str | None) -> Pairs:
        table = open_source(source, wanted, images=images, remote=remote)
        pairs, found = assemble(table, skip_bad=True, progress=progress)
        bad.extend(found)
        return pairs

    with nothing_kept():
        return _read(source, wanted, images, remote, one), tuple(bad)


def _read(source: object, wanted: Wanted, images: str | None, remote: bool, one: Callable[..., Pairs]) -> Pairs:
    """A source with `one`, or every part of a mixture."""
    if not isinstance(source, str) or not source.startswith(KIND):
        return one(source, wanted, images)
    if replace(wanted.strict, bare=False) != Wanted() or images is not None:
        raise HeadwiseError(f"{source} is a mixture: name columns and folders in the file, for each part its own.")

    far = is_remote(source)

    def part(name: str, columns: Mapping[str, str]) -> Pairs:
        own = dict(columns)
        folder = own.pop("images", None)
        for where in (name, folder or ""):
            if is_remote(where) and not (far or remote):
                raise HeadwiseError(
                    f"{source} names {where}, which is not on this machine; allow it with {option('remote', 'True')}."
                )
        if far and not is_remote(name) and not name.startswith("hf:"):
            raise HeadwiseError(f"{source} is remote and names {name}, a file of this machine; it may not.")
        return one(name, Wanted(**own, bare=wanted.bare), folder)  # type: ignore[arg-type]  # columns alone

    return read_mix(source, part)


def open_source(
    source: object, wanted: Wanted, *, images: str | None = None, remote: bool = False, name: str | None = None
) -> Table:
    """The rows of a source, nothing checked yet."""
    if isinstance(source, os.PathLike):
        source = os.fspath(source)
    if isinstance(source, bytes):
        source = os.fsdecode(source)
    if isinstance(source, str) and source == "demo":
        from headwise.demo import pairs_file

        return replace(open_named(str(pairs_file()), wanted), name="demo")
    if isinstance(source, str):
        table = open_named(source, wanted, images, remote)
        return table if name is None else replace(table, name=name)
    from headwise.data.readers.memory import read_object

    table = rows_of(read_object(source, name or f"{type(source).__name__} in memory"), wanted)
    return replace(table, images=images_in_memory(images or "", remote))


def images_alone(table: Table) -> Table:
    """The same images, all of one class, without anything that is said of them."""

    def rows() -> Iterator[Row]:
        for row in table.rows:
            yield Row(row.origin, row.names, row.fetch, key=row.key, id=row.id, label=0, problem=row.problem)

    return replace(table, rows=rows(), class_names=("image",), templates=None, kind=None)


def asked_for(keywords: Mapping[str, object]) -> list[str]:
    """Those of the keywords of `read` that have another value than when they are left out."""
    known = signature(read).parameters
    return [name for name, value in keywords.items() if name not in known or value != known[name].default]


def check_keywords(given: Iterable[str]) -> None:
    """
    Raises:
        HeadwiseError: a keyword that reading does not have.
    """
    known = [name for name, value in signature(read).parameters.items() if value.kind is Parameter.KEYWORD_ONLY]
    for keyword in given:
        if keyword in known:
            continue
        close = get_close_matches(keyword, known, 1)
        meant = f" Did you mean {close[0]}?" if close else ""
        raise HeadwiseError(f"There is no option {keyword!r} for reading pairs.{meant} Known are {', '.join(known)}.")

"""Rows of any source → `Pairs`: captions checked, rows of one image joined, every image hashed and decoded once.

In: a `Table`, whose rows nobody has checked. Out: `Pairs`, and every bad row with its place and reason. All bad rows
are found before anything is refused. It does not know which reader the rows are from.
"""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from headwise.data.captions import remarks, text_of, texts_of, why_none
from headwise.data.files import is_remote
from headwise.data.look import check_images
from headwise.data.opening import read_image
from headwise.data.pairs import COLA_PAIRS, ImageRef, Pairs, hash_bytes
from headwise.data.rows import Row, Table
from headwise.data.workers import Progress, each
from headwise.errors import HeadwiseError
from headwise.plain import terminal
from headwise.wording import option

EQUAL = ("shared", "own")
LISTED = 20  # bad rows that a message names
LONGEST = 300  # letters of a name in a message


@dataclass
class Entry:
    """One image and all rows about it."""

    rows: list[Row]
    captions: list[str]
    text_ids: list[int]
    silent: int = 0  # rows without a caption
    ref: ImageRef | None = None


@dataclass(frozen=True)
class Bad:
    """A row that cannot be used: where it is, and why."""

    origin: str
    reason: str

    def __str__(self) -> str:
        return f"{self.origin}: {self.reason}"


def check_equal(rule: str) -> None:
    """
    Raises:
        HeadwiseError: not one of `EQUAL`.
    """
    if rule not in EQUAL:
        raise HeadwiseError(f"Equal captions cannot be {rule!r}. Use {' or '.join(EQUAL)}.")


def assemble(
    table: Table,
    *,
    skip_bad: bool = False,
    equal_captions: str = "shared",
    cache_dir: Path | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> tuple[Pairs, tuple[Bad, ...]]:
    """Check everything and join it.

    Arguments:
        table: the rows of a source.
        skip_bad: leave bad rows out and count them, instead of refusing the source.
        equal_captions: as in `Pairs`.
        cache_dir: where verdicts on images are remembered; None: nowhere.
        workers, progress: as for `each`.

    Returns:
        The pairs, and the bad rows that were left out.

    Raises:
        HeadwiseError: bad rows (all of them are counted, the first 20 are listed), no rows at all.
    """
    check_equal(equal_captions)
    bad: list[Bad] = []
    entries, total = _join(table, bad)
    if not total:
        raise HeadwiseError(f"{table.name}: no rows. Give at least two images with a caption each.")
    entries = _hash(entries, bad, workers, captioned=table.class_names is None)
    entries = _check(entries, bad, cache_dir, workers, progress)
    if table.kind == COLA_PAIRS:
        entries = _both(entries, bad)
    if bad and not skip_bad:
        raise HeadwiseError(bad_rows_message(table.name, bad, total))
    if not entries:
        raise HeadwiseError(bad_rows_message(table.name, bad, total, "None is left."))
    if table.classification and table.class_names is not None and not skip_bad:
        _require_images(table.name, table.class_names, entries)
    captions = [caption for entry in entries for caption in entry.captions]
    notes = tuple(remarks(captions, sum(entry.silent for entry in entries)))
    return replace(_pairs(table, entries, len(bad), equal_captions), notes=notes), tuple(bad)


def bad_rows_message(name: str, bad: list[Bad], total: int, advice: str = "") -> str:
    """What to tell a user of bad rows: how many of how many, the first of them, and what to do."""
    lines = [f"  {item}" for item in bad[:LISTED]]
    if len(bad) > LISTED:
        lines.append(f"  and {len(bad) - LISTED:,} more")
    advice = advice or f"Repair them, or leave them out with {option('skip_bad', 'True')}."
    verb = "is" if len(bad) == 1 else "are"
    return "\n".join([f"{name}: {len(bad):,} of {total:,} rows {verb} bad:", *lines, advice])


def _join(table: Table, bad: list[Bad]) -> tuple[list[Entry], int]:
    """Entries in the order of their first row, and how many rows there were."""
    entries: list[Entry] = []
    by_key: dict[str, Entry] = {}
    total = 0
    for row in table.rows:
        total += 1
        try:
            if row.problem:
                raise HeadwiseError(row.problem)
            row = _found(row, table)
            captions, texts = ([], []) if table.class_names is not None else _captions(row)
        except HeadwiseError as error:
            bad.append(Bad(terminal(row.origin), str(error)))
            continue
        known = by_key.get(row.key) if row.key is not None else None
        if known is None:
            entries.append(Entry([row], captions, texts, silent=not captions))
            if row.key is not None:
                by_key[row.key] = entries[-1]
        else:
            _add(known, row, captions, texts)
    if table.class_names is None:
        entries = _captioned(entries, bad, keyed=True)
    return entries, total


def _found(row: Row, table: Table) -> Row:
    """A row that knows how to fetch its image.

    Raises:
        HeadwiseError: no image, or one that this source may not name.
    """
    if row.fetch is not None:
        return row
    if not row.names:
        raise HeadwiseError("there is no image")
    path = table.images.find(row.names)
    fetch = partial(read_image, path, table.images.hosts)
    key = (path if is_remote(path) else os.path.normpath(path)) if row.key is None else row.key
    return replace(row, names=(path,), fetch=fetch, key=key)


def _captions(row: Row) -> tuple[list[str], list[int]]:
    """The texts of a row, and their numbers where the source gives them."""
    if row.text_ids is None:
        return texts_of(row.captions), []
    texts = [(text_of(cell), number) for cell, number in zip(row.captions, row.text_ids, strict=True)]
    return [text for text, _ in texts if text is not None], [number for text, number in texts if text is not None]


def _captioned(entries: list[Entry], bad: list[Bad], keyed: bool) -> list[Entry]:
    """Entries with a caption; rows of the others become bad. A blank cell is no caption, and not the image's fault.

    Arguments:
        keyed: judge only images that are known by a key, since rows of the others may still come together.
    """
    kept = []
    for entry in entries:
        if entry.captions or (keyed and entry.rows[0].key is None):
            kept.append(entry)
        else:
            bad += [Bad(terminal(row.origin), why_none(row.captions)) for row in entry.rows]
    return kept


def _add(entry: Entry, row: Row, captions: list[str], texts: list[int]) -> None:
    first = entry.rows[0]
    for what in ("split", "group", "label"):
        if getattr(first, what) != getattr(row, what):
            raise HeadwiseError(
                f"The same image has two values of {what}: {getattr(first, what)!r} in {first.origin} and "
                f"{getattr(row, what)!r} in {row.origin}. Give it one."
            )
    entry.rows.append(row)
    entry.captions += captions
    entry.silent += not captions
    entry.text_ids += texts


def _hash(entries: list[Entry], bad: list[Bad], workers: int | None, captioned: bool) -> list[Entry]:
    """Entries whose bytes could be read, with their hash; those without a key joined by content."""

    def ref(entry: Entry) -> ImageRef | str:
        row = entry.rows[0]
        assert row.fetch is not None
        try:
            return ImageRef(terminal(row.origin), row.fetch, hash_bytes(row.fetch()))
        except FileNotFoundError:
            return f"the image {row.names[0][:LONGEST]} does not exist" if row.names else "the image does not exist"
        except (OSError, ValueError) as error:
            return f"the image cannot be read ({getattr(error, 'strerror', None) or error})"
        except HeadwiseError as error:
            return str(error)

    kept: list[Entry] = []
    by_hash: dict[str, Entry] = {}
    for entry, found in zip(entries, each(ref, entries, workers), strict=True):
        if isinstance(found, str):
            bad += [Bad(terminal(row.origin), terminal(found)) for row in entry.rows]
            continue
        keyless = entry.rows[0].key is None
        if keyless and found.hash in by_hash:
            _add(by_hash[found.hash], entry.rows[0], entry.captions, [])
            continue
        entry.ref = found
        kept.append(entry)
        if keyless:
            by_hash[found.hash] = entry
    return _captioned(kept, bad, keyed=False) if captioned else kept


def _check(
    entries: list[Entry], bad: list[Bad], cache_dir: Path | None, workers: int | None, progress: Progress | None
) -> list[Entry]:
    """Entries whose image decodes."""
    refs = [entry.ref for entry in entries if entry.ref is not None]
    checked, reasons = check_images(refs, cache_dir=cache_dir, workers=workers, progress=progress)
    kept = []
    for i, entry in enumerate(entries):
        if i in reasons:
            bad += [Bad(terminal(row.origin), terminal(reasons[i])) for row in entry.rows]
        else:
            entry.ref = checked[i]
            kept.append(entry)
    return kept


def _pairs(table: Table, entries: list[Entry], skipped: int, equal: str) -> Pairs:
    firsts = [entry.rows[0] for entry in entries]

    def column(what: str) -> tuple | None:
        values = [getattr(row, what) for row in firsts]
        if all(value is None for value in values):
            return None
        for row, value in zip(firsts, values, strict=True):
            if value is None:
                raise HeadwiseError(f"{row.origin} has no {what}, other rows have one. Give every row one.")
        return tuple(values)

    return Pairs(
        name=terminal(table.name),
        images=tuple(entry.ref for entry in entries if entry.ref is not None),
        captions=tuple(tuple(entry.captions) for entry in entries),
        ids=_unique([terminal(row.id) or f"image {i}" for i, row in enumerate(firsts)]),
        splits=column("split"),
        groups=column("group"),
        labels=column("label") if table.classification else None,
        class_names=table.class_names,
        templates=table.templates,
        skipped=skipped,
        text_ids=_texts(entries, equal == "shared" and table.kind is None),
        kind=table.kind,
        present=column("present"),
        counted=column("counted"),
        equal_captions=equal,
    )


def _texts(entries: list[Entry], by_words: bool) -> tuple[tuple[int, ...], ...] | None:
    """The texts of each image, if one of them belongs to several images.

    A text is what the source numbers as one, and with `by_words` also captions that are equal word for word.
    """
    names: list[list[object]] = [
        list(entry.captions if by_words else entry.text_ids or [object() for _ in entry.captions]) for entry in entries
    ]
    owners = Counter(name for own in names for name in set(own))
    if all(count == 1 for count in owners.values()):
        return None
    numbers: dict[object, int] = {}
    return tuple(
        # captions of one image alone stay texts of their own, also where it has one twice
        tuple(numbers.setdefault(name if owners[name] > 1 else (i, k), len(numbers)) for k, name in enumerate(own))
        for i, own in enumerate(names)
    )


def _both(entries: list[Entry], bad: list[Bad]) -> list[Entry]:
    """Entries whose partner is there too; of the others the rows become bad."""
    count = Counter(entry.rows[0].group for entry in entries)
    for entry in entries:
        if count[entry.rows[0].group] != 2:
            bad += [Bad(terminal(row.origin), "the other image of its pair is bad") for row in entry.rows]
    return [entry for entry in entries if count[entry.rows[0].group] == 2]


def _require_images(name: str, class_names: tuple[str, ...], entries: list[Entry]) -> None:
    """Refuse classes without an image."""
    there = {entry.rows[0].label for entry in entries}
    missing = [f"{i} ({text})" for i, text in enumerate(class_names) if i not in there]
    if missing:
        more = f" and {len(missing) - LISTED:,} more" if len(missing) > LISTED else ""
        raise HeadwiseError(
            f"{name}: {len(missing):,} of {len(class_names):,} classes have no image: {', '.join(missing[:LISTED])}"
            f"{more}. Remove them from the class names, or keep them as wrong answers with {option('skip_bad', 'True')}."
        )


def _unique(ids: list[str]) -> tuple[str, ...]:
    seen: dict[str, int] = {}
    result = []
    for name in ids:
        count = seen[name] = seen.get(name, 0) + 1
        result.append(name if count == 1 else f"{name}#{count}")
    return tuple(result)

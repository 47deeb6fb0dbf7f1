"""What a study was made with: read, compared, and how two of them differ in words.

In: a study's file, a fingerprint. Out: the fingerprint in it; a sentence with the way out. What belongs into a
fingerprint is decided in `jobs/steps/bench.py`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from pathlib import Path

from headwise.checked import checksum


def recorded(path: Path | str) -> dict | None:
    """The fingerprint in a study's file, None where there is no file or none that can be read; nothing is changed."""
    if not Path(path).is_file():
        return None
    with (
        suppress(sqlite3.Error, ValueError, RecursionError),
        closing(sqlite3.connect(path, timeout=60)) as db,
    ):
        query = "SELECT key, value, crc FROM study WHERE key = 'fingerprint'"
        row = db.execute(query).fetchone()
        if row and checksum(row[:2]) == row[2]:
            return json.loads(row[1])
    return None


def plain(fingerprint: Mapping[str, object]) -> dict:
    """As JSON gives it back, so that tuples and lists compare equal."""
    return json.loads(json.dumps(dict(fingerprint)))


def _leaves(value: object, path: Sequence[str] = ()) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield ".".join(path), value


def difference(path: Path, stored: dict, asked: dict) -> str:
    """What differs between the fingerprint in a file and the one that was asked for, and the way out, for people."""
    there, here = stored.get("machine"), asked.get("machine")
    if there and here and there != here:  # other bits of the fingerprint may differ because of it
        return (
            f"{path} was made on {_line(there)}; here is {_line(here)}. Their sums differ in the last bits, so that "
            "the study cannot be continued with equal results. Continue it on such a machine, or choose another "
            "output folder to begin anew: its results agree within the tolerance that the README states."
        )
    old, new = dict(_leaves(stored)), dict(_leaves(asked))
    absent = "nothing"
    lines = [
        f"  {name}: there {old.get(name, absent)!s}, now {new.get(name, absent)!s}"
        for name in dict.fromkeys([*new, *old])
        if old.get(name, absent) != new.get(name, absent)
    ]
    return (
        f"{path} holds another study. These differ:\n" + "\n".join(lines) + "\n"
        "Choose another output folder, repeat the command with the old settings to continue that study, or delete "
        "the folder to begin anew."
    )


def _line(machine: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in machine.items())

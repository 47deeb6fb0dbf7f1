"""What of a study is damaged: rows whose checksum is wrong, arrays that were lost, and what was made together with them.

In: the study's database. Out: numbers of rows, digests of arrays. Nothing is removed here.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence

from headwise.checked import Damaged, checksum
from headwise.edits.arrays import Array
from headwise.evaluation.rows import ROW, intact, mask_of


def is_whole(db: sqlite3.Connection) -> bool:
    """Whether SQLite finds its pages and indices in order."""
    return db.execute("PRAGMA integrity_check(1)").fetchone() == ("ok",)


def intact_arrays(db: sqlite3.Connection) -> dict[str, Array]:
    """Every array that is intact, by digest."""
    rows = db.execute("SELECT digest, shape, data, crc FROM arrays")
    return {row[0]: Array(tuple(json.loads(row[1])), row[2]) for row in rows if checksum(row[:3]) == row[3]}


def readable(row: Sequence, arrays: Mapping[str, Array]) -> bool:
    """Whether the edits can be made of the row and the arrays that are intact."""
    try:
        mask_of(row, arrays)
    except Damaged:
        return False
    return True


def damaged(db: sqlite3.Connection) -> tuple[list[tuple[str]], list[int]]:
    """The arrays (digests) and the scores (ids) whose checksum is wrong, or whose edits cannot be made any more."""
    arrays = intact_arrays(db)
    lost = [(digest,) for (digest,) in db.execute("SELECT digest FROM arrays") if digest not in arrays]
    rows = db.execute(f"SELECT id, {ROW} FROM evaluations NOT INDEXED")
    return lost, [number for number, *row in rows if not intact(row) or (lost and not readable(row, arrays))]


def walked_with(db: sqlite3.Connection, damaged: Sequence[int]) -> dict[int, tuple[str, str]]:
    """These rows and those of their walks: id → (split, mask_key)."""
    gone: dict[int, tuple[str, str]] = {}
    near = "SELECT walk FROM evaluations WHERE id BETWEEN ? - 1 AND ? + 1"
    query = f"SELECT id, split, mask_key FROM evaluations WHERE id = ? OR walk IN ({near})"
    for number in damaged:  # ids of one walk follow each other; a damaged row's own `walk` may be wrong
        for one, *key in db.execute(query, (number, number, number)):
            gone[one] = (key[0], key[1])
    return gone

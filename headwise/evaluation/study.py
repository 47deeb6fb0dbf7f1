"""The record of every mask ever evaluated: one SQLite file, from which any run resumes by replay.

In: (split, mask, score). Out: the same bits. A run that starts again asks for the same masks in the same order and finds
those that were evaluated before. The file knows nothing of searches; facts that a job must remember are `notes`.
"""

from __future__ import annotations

import json
import math
import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError

if TYPE_CHECKING:
    from headwise.scoring.objectives import Score

FORMAT = 1
BUSY_SECONDS = 60  # how long to wait for another process that is writing
KEYS_PER_QUERY = 500  # SQLite limits the parameters of one statement
_TABLES = """
CREATE TABLE IF NOT EXISTS study (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS notes (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS evaluations (
    id INTEGER PRIMARY KEY,
    split TEXT NOT NULL,
    mask_key TEXT NOT NULL,
    operator TEXT NOT NULL,
    mask TEXT NOT NULL,     -- as people read it
    gates TEXT NOT NULL,    -- JSON, exact
    fitness REAL,           -- NULL: not a number
    loss REAL,
    metrics TEXT NOT NULL,  -- JSON
    arrays TEXT NOT NULL,   -- JSON: name, dtype and shape of each array in data, in order
    data BLOB NOT NULL,     -- zlib: the per-image units, then the per-query ranks
    UNIQUE (split, mask_key)
);
"""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """One row of a study."""

    split: str
    mask: Mask
    score: Score


class Study:
    """Scores of masks, kept in a file; safe for several processes and against being killed at any moment.

    Arguments:
        path: the file; it is made where there is none.
        fingerprint: what scores depend on besides split and mask: model, data, objective, precision, chunk.
            JSON values, nested as you like.

    Raises:
        HeadwiseError: the file belongs to a study with another fingerprint, is not a study, or cannot be written.
    """

    def __init__(self, path: Path | str, fingerprint: Mapping[str, object]):
        self.path = Path(path)
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            self._open(_plain(fingerprint))
        except BaseException:
            self._db.close()
            raise

    def _open(self, fingerprint: dict) -> None:
        with self._explained():
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if tables and "study" not in tables:
            raise HeadwiseError(f"{self.path} is an SQLite file but not a headwise study. Choose another folder.")
        with self._transaction():
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            facts = {"format": FORMAT, "fingerprint": fingerprint}
            rows = [(key, json.dumps(value, sort_keys=True)) for key, value in facts.items()]
            self._db.executemany("INSERT OR IGNORE INTO study VALUES (?, ?)", rows)
            found = {key: json.loads(value) for key, value in self._db.execute("SELECT key, value FROM study")}
        if found["format"] != FORMAT:
            raise HeadwiseError(
                f"{self.path} has the study format {found['format']}, this version of headwise reads {FORMAT}. "
                "Choose another output folder, or the headwise version that wrote it."
            )
        if found["fingerprint"] != fingerprint:
            raise HeadwiseError(_difference(self.path, found["fingerprint"], fingerprint))

    # ---- scores

    def get(self, split: str, masks: Iterable[Mask]) -> dict[str, Score]:
        """The scores that the study holds, by `Mask.key`.

        Raises:
            HeadwiseError: the file cannot be read.
        """
        keys = list(dict.fromkeys(mask.key for mask in masks))
        scores: dict[str, Score] = {}
        for start in range(0, len(keys), KEYS_PER_QUERY):
            part = keys[start : start + KEYS_PER_QUERY]
            query = (
                "SELECT mask_key, fitness, loss, metrics, arrays, data FROM evaluations "
                f"WHERE split = ? AND mask_key IN ({','.join('?' * len(part))})"
            )
            with self._explained():
                for key, *columns in self._db.execute(query, (split, *part)):
                    scores[key] = _score(*columns)
        return scores

    def put(self, split: str, scores: Iterable[tuple[Mask, Score]]) -> None:
        """Keep scores, all of them or none; when this returns they survive a kill. What is there already stays.

        Raises:
            HeadwiseError: the disk is full or the file cannot be written.
        """
        rows = [(split, *_row(mask, score)) for mask, score in scores]
        with self._transaction():
            self._db.executemany(
                "INSERT OR IGNORE INTO evaluations "
                "(split, mask_key, operator, mask, gates, fitness, loss, metrics, arrays, data) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                rows,
            )

    def evaluations(self, split: str | None = None) -> Iterator[Evaluation]:
        """Every evaluation (of one split), in the order in which they were recorded.

        Raises:
            HeadwiseError: the file cannot be read.
        """
        query = (
            "SELECT split, operator, gates, fitness, loss, metrics, arrays, data FROM evaluations "
            "WHERE split = coalesce(?, split) ORDER BY id"
        )
        with self._explained():
            for name, operator, gates, *columns in self._db.execute(query, (split,)):
                yield Evaluation(name, _mask(operator, gates), _score(*columns))

    def count(self, split: str | None = None) -> int:
        """How many evaluations there are (of one split)."""
        with self._explained():
            return self._db.execute(
                "SELECT count(*) FROM evaluations WHERE split = coalesce(?, split)", (split,)
            ).fetchone()[0]

    # ---- facts

    def note(self, key: str, value: object) -> None:
        """Keep a small fact, a JSON value, such as that the test split was read.

        Raises:
            HeadwiseError: the disk is full or the file cannot be written.
        """
        with self._transaction():
            self._db.execute("INSERT OR REPLACE INTO notes VALUES (?, ?)", (key, json.dumps(value)))

    def read(self, key: str, default: object = None) -> object:
        """A fact that `note` kept."""
        with self._explained():
            row = self._db.execute("SELECT value FROM notes WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else default

    # ---- the file

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Study:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._explained():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:  # a full disk has rolled back already
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """SQLite's errors as sentences that say what to do."""
        try:
            yield
        except OSError as error:
            raise HeadwiseError(f"Cannot make the folder of {self.path}: {error.strerror}.") from error
        except sqlite3.DatabaseError as error:
            reason = str(error)
            if "is full" in reason or "disk I/O" in reason:
                advice = (
                    "Free some disk space and run the same command again: what was evaluated before is kept and "
                    "is not evaluated again."
                )
            elif "locked" in reason:
                advice = f"Another process kept it for more than {BUSY_SECONDS} seconds; run the command again."
            elif "unable to open" in reason or "readonly" in reason:
                advice = "Check that the folder exists and that you may write there."
            else:
                advice = "It is not a study, or it is damaged. Move it away or choose another output folder."
            raise HeadwiseError(f"The study {self.path} cannot be used: {reason}. {advice}") from error


# ---- rows


def _row(mask: Mask, score: Score) -> tuple:
    means = [[str(head), list(values)] for head, values in mask.means]
    gates = {"layers": mask.grid.layers, "pool": mask.grid.pool, "gates": mask.gates, "means": means}
    arrays = [("units", np.asarray(score.units, "<f4"))]
    arrays += [(name, np.asarray(ranks, "<i4")) for name, ranks in score.ranks.items()]
    return (
        mask.key,
        mask.operator,
        str(mask),
        json.dumps(gates),
        float(score.fitness),
        float(score.loss),
        json.dumps(dict(score.metrics)),
        json.dumps([[name, array.dtype.str, array.shape] for name, array in arrays]),
        zlib.compress(b"".join(array.tobytes() for _, array in arrays)),
    )


def _mask(operator: str, text: str) -> Mask:
    stored = json.loads(text)
    means = tuple((Head.parse(name), tuple(values)) for name, values in stored["means"])
    grid = Grid(tuple(stored["layers"]), stored["pool"])
    return Mask(grid, tuple(map(tuple, stored["gates"])), operator, means)


def _score(fitness: float | None, loss: float | None, metrics: str, arrays: str, data: bytes) -> Score:
    from headwise.scoring.objectives import Score

    try:
        raw = zlib.decompress(data)
    except zlib.error as error:  # it carries a checksum
        raise sqlite3.DatabaseError("the scores of a mask are damaged") from error
    offset, named = 0, {}
    for name, dtype, shape in json.loads(arrays):
        count = math.prod(shape)
        array = np.frombuffer(raw, dtype, count, offset).reshape(shape)
        named[name] = array.astype(array.dtype.newbyteorder("="))  # a copy: the buffer is read-only
        offset += count * 4
    units = named.pop("units")
    fitness, loss = (math.nan if value is None else value for value in (fitness, loss))
    return Score(fitness, loss, json.loads(metrics), units, named)


# ---- fingerprints


def _plain(fingerprint: Mapping[str, object]) -> dict:
    """As JSON gives it back, so that tuples and lists compare equal."""
    return json.loads(json.dumps(dict(fingerprint)))


def _leaves(value: object, path: Sequence[str] = ()) -> Iterator[tuple[str, object]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _leaves(inner, (*path, key))
    else:
        yield ".".join(path), value


def _difference(path: Path, stored: dict, asked: dict) -> str:
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

"""The record of every mask ever evaluated: one SQLite file, from which any run resumes by replay.

In: (split, mask, score). Out: the same bits. A run that starts again asks for the same masks in the same order and finds
those that were evaluated before. The file knows nothing of searches; facts that a job must remember are `notes`.

Every row carries a checksum. All are verified when the file is opened and again when they are read; a damaged
score is removed, and evaluated again by whoever asks for it, together with the masks that it was walked with, so
that it comes out with the same bits.
"""

from __future__ import annotations

import json
import sqlite3
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from headwise.checked import Damaged, checksum
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation import repair
from headwise.evaluation.fingerprints import difference, plain
from headwise.evaluation.rows import COLUMNS, ROW, TABLES, arrays_of, intact, mask_of, score_of, to_row
from headwise.evaluation.shown import evaluation_rows, frame, table_html
from headwise.plain import line
from headwise.scoring.objectives.score import Score

if TYPE_CHECKING:
    import pandas

FORMAT = 4  # 4: edits per head
BUSY_SECONDS = 60  # how long to wait for another process that is writing
KEYS_PER_QUERY = 500  # SQLite limits the parameters of one statement


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
        fingerprint: what scores depend on besides split and mask: model, data, objective, precision, machine.
            JSON values, nested as you like. None: whatever the file is about (`reopen`).
        say: gets a sentence when damaged scores are removed; by default it goes to stderr.

    Raises:
        HeadwiseError: the file belongs to a study with another fingerprint, is not a study, is damaged beyond its
            scores, or cannot be written.
    """

    def __init__(
        self, path: Path | str, fingerprint: Mapping[str, object] | None, say: Callable[[str], None] | None = None
    ):
        self.path = Path(path)
        self._say = say or (lambda text: print(text, file=sys.stderr))
        with self._explained():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self.path, timeout=BUSY_SECONDS, isolation_level=None)
        try:
            self._db.text_factory = lambda text: text.decode("utf-8", "replace")  # what is damaged fails its checksum
            self._open(None if fingerprint is None else plain(fingerprint))
        except BaseException:
            self._db.close()
            raise

    @classmethod
    def reopen(cls, path: Path | str) -> Study:
        """A study that is there, whatever it is about: for those who read what a run recorded.

        Raises:
            HeadwiseError: there is none, or it cannot be read.
        """
        if not Path(path).is_file():
            raise HeadwiseError(f"There is no study at {path}. Give the output folder of a headwise run.")
        return cls(path, None)

    def _open(self, fingerprint: dict | None) -> None:
        with self._explained():
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
        with self._transaction():
            tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
            if tables and "study" not in tables:
                raise HeadwiseError(f"{self.path} is an SQLite file but not a headwise study. Choose another folder.")
            if not tables and fingerprint is None:
                raise HeadwiseError(f"{self.path} is empty, not a headwise study. Give the output folder of a run.")
            if not tables:
                for statement in TABLES:
                    self._db.execute(statement)
                for key, value in {"format": FORMAT, "fingerprint": fingerprint, "notes": {}}.items():
                    self._set(key, value)
            row = self._db.execute("SELECT value FROM study WHERE key = 'format'").fetchone()
        if row is None or row[0] != str(FORMAT):
            raise HeadwiseError(
                f"{self.path} has the study format {row[0] if row else 'of no known version'}, this version of "
                f"headwise reads {FORMAT}. Choose another output folder, or the headwise version that wrote it."
            )
        if (stored := self._fact("fingerprint")) != fingerprint and fingerprint is not None:
            raise HeadwiseError(difference(self.path, stored, fingerprint))
        self._fact("notes")
        self._verify()

    # ---- scores

    def get(self, split: str, masks: Iterable[Mask]) -> dict[str, Score]:
        """The scores that the study holds, by `Mask.key`.

        Raises:
            HeadwiseError: the file cannot be read.
        """
        keys = list(dict.fromkeys(mask.key for mask in masks))
        scores: dict[str, Score] = {}
        damaged: list[int] = []
        for start in range(0, len(keys), KEYS_PER_QUERY):
            part = keys[start : start + KEYS_PER_QUERY]
            query = f"SELECT id, {ROW} FROM evaluations WHERE split = ? AND mask_key IN ({','.join('?' * len(part))})"
            with self._explained():
                for number, *row in self._db.execute(query, (split, *part)):
                    try:
                        if not intact(row):
                            raise Damaged("checksum")
                        scores[row[1]] = score_of(row)
                    except Damaged:
                        damaged.append(number)
        if damaged:
            gone = self._drop(damaged)
            scores = {key: score for key, score in scores.items() if (split, key) not in gone}
        return scores

    def put(self, split: str, scores: Iterable[tuple[Mask, Score]]) -> None:
        """Keep scores, all of them or none; when this returns they survive a kill. What is there already stays.

        Raises:
            HeadwiseError: the disk is full or the file cannot be written.
        """
        scores = list(scores)
        with self._transaction():
            for mask, _ in scores:
                for digest, array in arrays_of(mask).items():
                    row = (digest, json.dumps(array.shape), array.data)
                    self._db.execute("INSERT OR IGNORE INTO arrays VALUES (?, ?, ?, ?)", (*row, checksum(row)))
            (walk,) = self._db.execute("SELECT coalesce(max(id), 0) + 1 FROM evaluations").fetchone()
            self._db.executemany(
                f"INSERT OR IGNORE INTO evaluations ({ROW}) VALUES ({', '.join('?' * (len(COLUMNS) + 1))})",
                [to_row(split, walk, mask, score) for mask, score in scores],
            )

    def evaluations(self, split: str | None = None) -> Iterator[Evaluation]:
        """Every evaluation (of one split), in the order in which they were recorded.

        Raises:
            HeadwiseError: the file cannot be read.
        """
        query = f"SELECT {ROW} FROM evaluations WHERE split = coalesce(?, split) ORDER BY id"
        with self._explained():
            arrays = repair.intact_arrays(self._db)
            for row in self._db.execute(query, (split,)):
                # what was damaged since is for the next opening to remove
                if intact(row) and repair.readable(row, arrays):
                    yield Evaluation(row[0], mask_of(row, arrays), score_of(row))

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
            self._set("notes", {**self._fact("notes"), key: value})

    def read(self, key: str, default: object = None) -> object:
        """A fact that `note` kept.

        Raises:
            HeadwiseError: the file cannot be read.
        """
        with self._explained():
            return self._fact("notes").get(key, default)

    def _set(self, key: str, value: object) -> None:
        text = json.dumps(value, sort_keys=True)
        self._db.execute("INSERT OR REPLACE INTO study VALUES (?, ?, ?)", (key, text, checksum([key, text])))

    def _fact(self, key: str) -> dict:
        with self._explained():
            row = self._db.execute("SELECT key, value, crc FROM study WHERE key = ?", (key,)).fetchone()
        if row is None or checksum(row[:2]) != row[2]:
            raise HeadwiseError(
                f"{self.path} is damaged: its {key} cannot be trusted any more. Choose another output folder, or "
                "delete this one to begin anew."
            )
        return json.loads(row[1])

    # ---- in a notebook

    def summary(self) -> str:
        """How many masks it holds, and the best of the search split, in a sentence."""
        best = max(self.evaluations("search"), key=lambda one: one.score.order, default=None)
        told = "" if best is None else f"; best on the search split: {best.mask} with {100 * best.score.fitness:.2f} %"
        return f"{self.count():,} masks evaluated, {self.count('search'):,} on the search split{told}"

    def to_pandas(self) -> pandas.DataFrame:
        """A row for every mask and split, in the order of evaluation: heads, fitness, loss and all metrics.

        Raises:
            HeadwiseError: pandas is not installed, or the file cannot be read.
        """
        return frame(evaluation_rows(self.evaluations()))

    def __repr__(self) -> str:
        return f"Study({str(self.path)!r}: {self.count():,} masks)"

    def _repr_html_(self) -> str:
        rows = sorted(evaluation_rows(self.evaluations("search")), key=lambda row: -row["fitness"])
        return (
            f"<p>{escape(line(self.summary()))}</p>{table_html([{k: row[k] for k in list(row)[1:5]} for row in rows])}"
        )

    # ---- what is damaged

    def _verify(self) -> None:
        """Every row once: those whose checksum is wrong are removed, and an index that lost rows is made again."""
        with self._explained():
            if not repair.is_whole(self._db):
                with self._transaction():
                    self._db.execute("REINDEX")
                if not repair.is_whole(self._db):
                    raise sqlite3.DatabaseError("its pages are damaged")
            arrays, damaged = repair.damaged(self._db)
        if arrays:  # they are kept again with the next score that has them
            with self._transaction():
                self._db.executemany("DELETE FROM arrays WHERE digest = ?", arrays)
        if damaged:
            self._drop(damaged)

    def _drop(self, damaged: Sequence[int]) -> set[tuple[str, str]]:
        """Remove damaged rows and those that were walked with them; (split, mask_key) of what went."""
        with self._transaction():
            gone = repair.walked_with(self._db, damaged)
            self._db.executemany("DELETE FROM evaluations WHERE id = ?", [(number,) for number in gone])
            self._db.execute("REINDEX")  # a damaged row's entry is not found by its content
        others = (
            f", with {len(gone) - len(damaged):,} that were made together with them" if len(gone) > len(damaged) else ""
        )
        self._say(f"{len(damaged):,} scores in {self.path} were damaged; they are evaluated again{others}.")
        return set(gone.values())

    # ---- the file

    def close(self) -> None:
        """Close the file."""
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

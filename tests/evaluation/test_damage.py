"""A study with a damaged byte: the same scores, or scores that are made again, or a refusal; never other ones."""

import json
import random
import shutil
import sqlite3
import zlib

import numpy as np
import pytest

from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.rows import intact, score_of, to_row
from headwise.evaluation.study import Study
from headwise.scoring.objectives import Score

GRID = Grid((3, 3))
FINGERPRINT = {"model": {"weights": "aa"}, "machine": {"threads": 1}}
NOTE = {"masks": ["identity"], "n": 1}


def score(number: int) -> Score:
    rng = np.random.default_rng(number)
    ranks = {"text_retrieval": rng.integers(0, 99, 9, dtype=np.int32)}
    return Score(rng.random(), rng.random(), {"mean_recall": rng.random()}, rng.integers(0, 9, (5, 2)), ranks)


def plain(found: Score) -> list:
    ranks = {name: rank.tolist() for name, rank in found.ranks.items()}
    return [found.fitness, found.loss, found.metrics, found.hits.tolist(), ranks]


MASKS = [Mask.suppress(GRID, [head], edit) for edit in ("zero", "uniform") for head in GRID]
SCORES = {mask.key: score(i) for i, mask in enumerate(MASKS)}
EXPECTED = {key: plain(found) for key, found in SCORES.items()}


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """Two splits, three walks, one note, all in one file."""
    path = tmp_path_factory.mktemp("study") / "study.sqlite"
    with Study(path, FINGERPRINT) as study:
        study.put("search", [(mask, SCORES[mask.key]) for mask in MASKS[:6]])
        study.put("search", [(mask, SCORES[mask.key]) for mask in MASKS[6:]])
        study.put("pick", [(MASKS[0], SCORES[MASKS[0].key])])
        study.note("test_read_for", NOTE)
    assert not path.with_name("study.sqlite-wal").exists()
    return path


def flipped(original, path, place: int, bit: int) -> None:
    content = bytearray(original.read_bytes())
    content[place] ^= 1 << bit
    for leftover in path.parent.glob("copy*"):
        leftover.unlink()
    path.write_bytes(content)


def test_a_flipped_bit_anywhere_gives_no_other_score(original, tmp_path):
    rng, outcomes = random.Random(0), {"same": 0, "again": 0, "refused": 0}
    size = original.stat().st_size
    for start in range(0, size, size // 160):
        place = min(size - 1, start + rng.randrange(size // 160))
        flipped(original, tmp_path / "copy.sqlite", place, rng.randrange(8))
        said = []
        try:
            opened = Study(tmp_path / "copy.sqlite", FINGERPRINT, said.append)
        except HeadwiseError:
            outcomes["refused"] += 1
            continue
        with opened as study:
            assert study.read("test_read_for") == NOTE, place
            found = study.get("search", MASKS)
            assert {key: plain(one) for key, one in found.items()}.items() <= EXPECTED.items(), place
            missing = [mask for mask in MASKS if mask.key not in found]
            assert bool(missing) <= bool(said), place
            study.put("search", [(mask, SCORES[mask.key]) for mask in missing])  # evaluated again
            again = study.get("search", MASKS)
            assert {key: plain(one) for key, one in again.items()} == EXPECTED, place
        outcomes["again" if missing else "same"] += 1
    assert outcomes["same"] > 10
    assert outcomes["again"] > 10


def damage(path, statement: str) -> None:
    raw = sqlite3.connect(path)
    raw.execute(statement)
    raw.commit()
    raw.close()


COLUMNS = {
    "fitness": "fitness + 0.1", "loss": "loss * 1.0001", "metrics": "replace(metrics, '0.', '1.')", "walk": "walk + 6",
    "split": "'pick'", "edits": "replace(edits, 'H2', 'H1')", "arrays": "replace(arrays, '<i4', '<f4')",
    "data": "x'00112233'", "crc": "crc + 1", "mask": "'L0.H0=mean'",
}  # fmt: skip


@pytest.mark.parametrize("column", COLUMNS)
def test_a_damaged_score_is_removed_with_its_walk_and_said_once(original, tmp_path, column):
    path = shutil.copy(original, tmp_path / "s.sqlite")
    damage(path, f"UPDATE evaluations SET {column} = {COLUMNS[column]} WHERE id = 9")
    said = []
    with Study(path, FINGERPRINT, said.append) as study:
        found = study.get("search", MASKS)
    assert set(found) == {mask.key for mask in MASKS[:6]}  # the other walk stays
    assert len(said) == 1
    assert "1 scores" in said[0]
    assert "evaluated again" in said[0]
    with Study(path, FINGERPRINT, said.append) as study:
        assert len(study.get("search", MASKS)) == 6
    assert len(said) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE arrays SET data = x'0000000000000000'",
        "UPDATE arrays SET shape = '[1, 2]'",
        "UPDATE arrays SET digest = 'aa'",
        "UPDATE arrays SET crc = crc + 1",
        "DELETE FROM arrays",
    ],
)
def test_a_damaged_array_gives_no_other_edits_and_evaluating_again_heals_it(tmp_path, statement):
    """Keys hold the arrays' digests, so no score is in doubt; it is the edits that cannot be read back."""
    bound, said = Mask.suppress(GRID, ["L0.H1"], "mean").bound(lambda head: [1.5, -2.0]), []
    with Study(tmp_path / "s.sqlite", FINGERPRINT) as study:
        study.put("search", [(bound, score(1))])
    damage(tmp_path / "s.sqlite", statement)
    with Study(tmp_path / "s.sqlite", FINGERPRINT, said.append) as study:
        found = study.get("search", [bound])
        assert {key: plain(one) for key, one in found.items()} in ({}, {bound.key: plain(score(1))})
        assert bool(found) != bool(said)
        study.put("search", [(bound, score(1))])
        assert [row.mask for row in study.evaluations()] == [bound]


def test_what_is_damaged_while_the_study_is_open_is_noticed_when_it_is_read(original, tmp_path):
    path, said = shutil.copy(original, tmp_path / "s.sqlite"), []
    with Study(path, FINGERPRINT, said.append) as study:
        damage(path, "UPDATE evaluations SET fitness = 0.999 WHERE id = 2")
        assert set(study.get("search", MASKS)) == {mask.key for mask in MASKS[6:]}
        assert len(said) == 1


@pytest.mark.parametrize(
    "statement",
    [
        """UPDATE study SET value = replace(value, '"aa"', '"ab"') WHERE key = 'fingerprint'""",
        "UPDATE study SET value = replace(value, 'identity', 'L0.H1=zero') WHERE key = 'notes'",
        "DELETE FROM study WHERE key = 'notes'",
        "DELETE FROM study WHERE key = 'fingerprint'",
    ],
)
def test_a_damaged_fingerprint_or_note_is_refused(original, tmp_path, statement):
    path = shutil.copy(original, tmp_path / "s.sqlite")
    damage(path, statement)
    with pytest.raises(HeadwiseError, match=r"s\.sqlite is damaged.*another output folder"):
        Study(path, FINGERPRINT)


@pytest.mark.parametrize(
    ("arrays", "data"),
    [
        ([["hits", "<i4", [10**12]]], b"x"),
        ([["hits", "<i4", [1 << 28]]], zlib.compress(bytes(1 << 20))),  # more than zlib can make of it
        ([["hits", "<i4", [4]]], zlib.compress(bytes(1 << 24))),  # a bomb: 16 MiB for 16 bytes
        ([["hits", "<f4", [4]]], zlib.compress(bytes(16))),
        ([["hits", "|O", [2]]], zlib.compress(bytes(16))),
        ([["hits", "<i4", [-1]]], zlib.compress(b"")),
        ([["ranks", "<i4", [1]]], zlib.compress(bytes(4))),
    ],
)
def test_sizes_are_bounded_before_memory_is_taken(arrays, data):
    row = list(to_row("search", 1, MASKS[0], score(0)))
    assert intact(row)
    row[8], row[9] = json.dumps(arrays), data
    assert not intact(row)
    with pytest.raises(ValueError, match=r"."):
        score_of(row)

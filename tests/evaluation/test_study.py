import os
import signal
import sqlite3
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from headwise.edits.arrays import Array
from headwise.edits.edit import Edit, Letter
from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import embed, ffe
from headwise.evaluation.layout import Plan
from headwise.evaluation.study import Study
from headwise.scoring.objectives import Score
from headwise.search.genetic import genetic
from headwise.search.genome import GeneticSettings
from headwise.search.sweep import sweep

GRID = Grid((2, 3), pool=1)
FINGERPRINT = {
    "model": {"name": "hf:x", "weights": "aa"},
    "data": {"hash": "bb", "images": 3},
    "settings": {"dtype": "float32", "chunk": 16, "ks": (1, 5, 10)},
}
MASK = Mask.suppress(GRID, ["L0.H1", "pool.H0"], "uniform")


def make_score(fitness=0.25, loss=1 / 3):
    hits = np.array([[1, 3], [0, 2], [3, 2**40]])
    ranks = {"image_retrieval": np.array([0, 7, 2, 99999], np.int32), "text_retrieval": np.arange(3, dtype=np.int32)}
    return Score(fitness, loss, {"mean_recall": fitness, "image_retrieval_recall@1": 2 / 3}, hits, ranks)


def same(a: Score, b: Score) -> bool:
    return (
        np.array_equal([a.fitness, a.loss], [b.fitness, b.loss], equal_nan=True)
        and list(a.metrics.items()) == list(b.metrics.items())
        and identical(a.hits, b.hits)
        and list(a.ranks) == list(b.ranks)
        and all(identical(a.ranks[name], b.ranks[name]) for name in a.ranks)
    )


def identical(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


# ---- what goes in comes out


@settings(deadline=None)
@given(
    fitness=st.floats(),
    loss=st.floats(),
    metrics=st.dictionaries(st.text(), st.floats(allow_nan=False)),
    hits=hnp.arrays(np.int64, st.tuples(st.integers(0, 20), st.integers(1, 3))),
    ranks=st.dictionaries(st.sampled_from("abc"), hnp.arrays(np.int32, st.integers(0, 20))),
)
def test_scores_come_back_bit_for_bit(tmp_path_factory, fitness, loss, metrics, hits, ranks):
    score = Score(fitness, loss, metrics, hits, ranks)
    with Study(tmp_path_factory.mktemp("study") / "study.sqlite", FINGERPRINT) as study:
        study.put("search", [(MASK, score)])
        assert same(study.get("search", [MASK])[MASK.key], score)


def test_only_what_was_asked_for_and_is_known_comes_back(tmp_path):
    others = [Mask.suppress(GRID, [head]) for head in GRID]
    with Study(tmp_path / "s.sqlite", FINGERPRINT) as study:
        study.put("search", [(mask, make_score()) for mask in others[:3]])
        study.put("pick", [(others[4], make_score())])
        assert study.get("search", others[2:]).keys() == {others[2].key}
        assert study.get("test", others) == {}
        assert study.count() == 4
        assert study.count("search") == 3


def test_more_masks_than_sqlite_takes_parameters(tmp_path):
    grid = Grid((16,))
    masks = [Mask.gated(grid, [[i >> bit & 1 for bit in range(16)]]) for i in range(40_000)]
    with Study(tmp_path / "s.sqlite", FINGERPRINT) as study:
        study.put("search", [(masks[39_000], make_score())])
        assert list(study.get("search", masks)) == [masks[39_000].key]


@pytest.mark.parametrize("name", ["zero", "uniform", "temperature", "mean"])
def test_identity_is_one_evaluation_for_every_letter(tmp_path, name):
    with Study(tmp_path / "s.sqlite", FINGERPRINT) as study:
        study.put("search", [(Mask.identity(GRID), make_score())])
        assert study.get("search", [Mask.gated(GRID, [[1] * heads for heads in GRID.rows], name)])


def test_one_name_for_one_thing_is_one_evaluation(tmp_path):
    with Study(tmp_path / "s.sqlite", FINGERPRINT) as study:
        study.put("search", [(Mask.suppress(GRID, ["L0.H1"], "zero"), make_score())])
        assert study.get("search", [Mask.suppress(GRID, ["L0.H1"], "scale(0)")])
        assert not study.get("search", [Mask.suppress(GRID, ["L0.H1"], "scale(0.5)")])


def test_evaluations_are_listed_in_order_with_their_masks(tmp_path):
    mean = Mask.gated(GRID, ((1, 1), (1, 1, 1 / 3), (1,)), "mean").bound(lambda head: [0.1, 1 / 3])
    with Study(tmp_path / "s.sqlite", FINGERPRINT) as study:
        study.put("search", [(MASK, make_score(0.5)), (mean, make_score(0.75))])
        study.put("pick", [(MASK, make_score(0.25))])
        rows = list(study.evaluations())
        assert [(row.split, row.mask, row.score.fitness) for row in rows] == [
            ("search", MASK, 0.5), ("search", mean, 0.75), ("pick", MASK, 0.25),
        ]  # fmt: skip
        assert rows[1].mask.key == mean.key
        assert [row.split for row in study.evaluations("pick")] == ["pick"]


def test_edits_come_back_bit_for_bit_with_their_arrays_and_equal_arrays_are_kept_once(tmp_path):
    """Text of edits is exact there; only `str(mask)` rounds."""
    axes = Array.of([[0.6, -0.8], [0.8, 0.6]])
    spectral = Letter(
        "spectral", arrays=(("axes", axes), ("scales", Array.of([1 / 3, 2])), ("centre", Array.of([0, 1])))
    )
    shift = Letter("shift", 2 / 3, (("constant", Array.of([0.1, -1e-20])),))
    of_each = {
        "L0.H0": Edit(Letter("temperature", 1 / 3), spectral), "L0.H1": Edit(value=spectral), "L1.H0": Edit(value=shift),
        "L1.H1": "keys+scale(1.1)", "L1.H2": "mean", "pool.H0": "uniform(1e-05)",
    }  # fmt: skip
    mask = Mask.of(GRID, {Head.parse(name): Edit.parse(e) if isinstance(e, str) else e for name, e in of_each.items()})
    other = mask - Mask.suppress(GRID, ["L0.H0"])
    with Study(tmp_path / "s.sqlite", FINGERPRINT) as study:
        study.put("search", [(mask, make_score()), (other, make_score())])
        study.put("pick", [(mask, make_score())])
    with Study(tmp_path / "s.sqlite", FINGERPRINT) as study:
        found = [row.mask for row in study.evaluations()]
        assert found == [mask, other, mask]
        assert found[0].key == mask.key
        assert dict(found[0].edits) == dict(mask.edits)
        assert study.get("search", [mask, other]).keys() == {mask.key, other.key}
    raw = sqlite3.connect(tmp_path / "s.sqlite")
    assert raw.execute("SELECT count(*) FROM arrays").fetchone() == (4,)  # axes, scales, centre, constant
    raw.close()


def test_what_is_there_already_stays(tmp_path):
    with Study(tmp_path / "s.sqlite", FINGERPRINT) as study:
        study.put("search", [(MASK, make_score(0.5))])
        study.put("search", [(MASK, make_score(0.75))])
        assert study.get("search", [MASK])[MASK.key].fitness == 0.5


def test_notes(tmp_path):
    with Study(tmp_path / "s.sqlite", FINGERPRINT) as study:
        assert study.read("test was read") is None
        study.note("test was read", {"mask": str(MASK), "n": [1, 2]})
        study.note("test was read", {"mask": str(MASK), "n": [1, 2, 3]})
    with Study(tmp_path / "s.sqlite", FINGERPRINT) as study:
        assert study.read("test was read") == {"mask": str(MASK), "n": [1, 2, 3]}


# ---- the wrong file


def test_another_fingerprint_is_refused_and_only_the_differences_are_listed(tmp_path):
    Study(tmp_path / "s.sqlite", FINGERPRINT).close()
    other = {**FINGERPRINT, "data": {"hash": "cc", "images": 3}, "settings": {"dtype": "bfloat16", "chunk": 16}}
    with pytest.raises(HeadwiseError) as caught:
        Study(tmp_path / "s.sqlite", other)
    message = str(caught.value)
    assert "data.hash: there bb, now cc" in message
    assert "settings.dtype: there float32, now bfloat16" in message
    assert "settings.ks: there [1, 5, 10], now nothing" in message
    assert "images" not in message
    assert "weights" not in message
    assert "another output folder" in message


def test_the_same_fingerprint_opens_again(tmp_path):
    with Study(tmp_path / "s.sqlite", FINGERPRINT) as study:
        study.put("search", [(MASK, make_score())])
    with Study(str(tmp_path / "s.sqlite"), FINGERPRINT) as study:
        assert same(study.get("search", [MASK])[MASK.key], make_score())


def test_a_file_that_is_not_a_study_is_refused_and_left_as_it_is(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database, " * 100)
    with pytest.raises(HeadwiseError, match=r"notes\.txt.*not a database"):
        Study(text, FINGERPRINT)
    assert text.read_text().startswith("not a database")
    foreign = sqlite3.connect(tmp_path / "other.sqlite")
    foreign.execute("CREATE TABLE recipes (name TEXT)")
    foreign.commit()
    foreign.close()
    with pytest.raises(HeadwiseError, match="not a headwise study"):
        Study(tmp_path / "other.sqlite", FINGERPRINT)


def test_a_damaged_study_is_an_error(tmp_path):
    path = tmp_path / "s.sqlite"
    with Study(path, FINGERPRINT) as study:
        study.put("search", [(Mask.suppress(GRID, [head]), make_score()) for head in GRID])
    content = bytearray(path.read_bytes())
    content[1000:-8] = bytes(len(content) - 1008)
    path.write_bytes(content)
    with pytest.raises(HeadwiseError, match=r"s\.sqlite"), Study(path, FINGERPRINT) as study:
        list(study.evaluations())


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HeadwiseError, match="folder"):
        Study(tmp_path / "file" / "study.sqlite", FINGERPRINT)


def test_a_newer_format_is_refused(tmp_path):
    Study(tmp_path / "s.sqlite", FINGERPRINT).close()
    raw = sqlite3.connect(tmp_path / "s.sqlite")
    raw.execute("UPDATE study SET value = '7' WHERE key = 'format'")
    raw.commit()
    raw.close()
    with pytest.raises(HeadwiseError, match="format 7"):
        Study(tmp_path / "s.sqlite", FINGERPRINT)


def test_a_full_disk_is_an_error_and_nothing_half_written_stays(tmp_path):
    masks = [Mask.suppress(GRID, [head]) for head in GRID]
    with Study(tmp_path / "s.sqlite", FINGERPRINT) as study:
        study.put("search", [(masks[0], make_score())])
        (pages,) = study._db.execute("PRAGMA page_count").fetchone()
        study._db.execute(f"PRAGMA max_page_count = {pages + 2}")  # SQLite's own way to a full disk
        noise = np.random.default_rng(0).integers(0, 2**30, 5000, dtype=np.int32)
        large = Score(0.5, 0.5, {}, np.zeros(0, np.int64), {"ranks": noise})
        with pytest.raises(HeadwiseError, match=r"full.*Free some disk space"):
            study.put("search", [(mask, large) for mask in masks[1:]])
        assert study.count() == 1
        study._db.execute("PRAGMA max_page_count = 100000")  # space again: it goes on
        study.put("search", [(masks[1], large)])
        assert same(study.get("search", masks)[masks[1].key], large)


# ---- processes

WRITER = textwrap.dedent("""
    import os, signal, sys
    import numpy as np
    from headwise.edits.heads import Grid
    from headwise.edits.mask import Mask
    from headwise.scoring.objectives import Score
    from headwise.evaluation.study import Study

    path, name, end = sys.argv[1:]
    study = Study(path, {"model": "m"})
    for i in range(60):
        mask = Mask.gated(Grid((8,)), [[i >> bit & 1 for bit in range(8)]])
        study.put("search", [(mask, Score(i / 64, 0.0, {}, np.full(50, i), {}))])
        study.put(name, [(mask, Score(i / 64, 0.0, {}, np.full(50, i), {}))])
        if end == "kill" and i == 40:
            os.kill(os.getpid(), signal.SIGKILL)
""")


def start(path, name, end=""):
    return subprocess.Popen([sys.executable, "-c", WRITER, str(path), name, end])


def test_two_processes_write_one_study(tmp_path):
    path = tmp_path / "s.sqlite"
    processes = [start(path, name) for name in ("one", "two")]
    assert [process.wait(120) for process in processes] == [0, 0]
    with Study(path, {"model": "m"}) as study:
        assert [study.count(split) for split in ("search", "one", "two")] == [60, 60, 60]
        assert all((row.score.hits == round(row.score.fitness * 64)).all() for row in study.evaluations())


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_what_was_put_survives_a_kill(tmp_path):
    path = tmp_path / "s.sqlite"
    assert start(path, "one", "kill").wait(120) == -signal.SIGKILL
    with Study(path, {"model": "m"}) as study:
        assert study.count("one") == 41


# ---- resume: the same search, cut off anywhere, ends with the same bits


class Engine:
    """The engine and a synthetic objective behind a study, as the main job puts them together."""

    def __init__(self, tower, images, study, die_after=None):
        self.tower, self.images, self.study, self.die_after = tower, images, study, die_after
        target = torch.randn(len(images), 24, generator=torch.Generator().manual_seed(5))
        self.target = torch.nn.functional.normalize(target, dim=-1)  # (N, E)
        self.known, self.spent, self.ran = {}, 0.0, 0

    def cost(self, masks):
        return ffe(self.tower, [mask for mask in masks if mask.key not in self.known])

    def __call__(self, masks):
        self.spent += self.cost(masks)
        new = {mask.key: mask for mask in masks if mask.key not in self.known}.values()
        self.known.update(self.study.get("search", new))
        for mask in [mask for mask in new if mask.key not in self.known]:
            ((_, embeddings),) = embed(self.tower, self.images, [mask], Plan())
            self.known[mask.key] = self.score(embeddings)
            self.study.put("search", [(mask, self.known[mask.key])])
            self.ran += 1
            if self.ran == self.die_after:
                raise KeyboardInterrupt
        return [self.known[mask.key] for mask in masks]

    def score(self, embeddings):
        cosine = (torch.nn.functional.normalize(embeddings, dim=-1) * self.target).sum(-1)  # (N)
        return Score(float(cosine.mean()) / 2 + 0.5, 0.0, {}, (cosine.numpy() * 2**20).astype(np.int64), {})


def search(evaluate):
    grid = evaluate.tower.grid
    swept = sweep(evaluate, grid, "zero")
    settings = GeneticSettings(population=12, generations=5, elites=3, immigrants=2, budget=30.0)
    return genetic(evaluate, grid, "zero", settings, ranking=swept.ranking)


@pytest.mark.parametrize("die_after", [1, 9, 13, 30])
def test_a_search_that_was_cut_off_resumes_to_the_same_result(tower, images, tmp_path, die_after):
    with Study(tmp_path / "whole.sqlite", FINGERPRINT) as study:
        whole_engine = Engine(tower, images[:4], study)
        whole = search(whole_engine)
    with Study(tmp_path / "cut.sqlite", FINGERPRINT) as study, pytest.raises(KeyboardInterrupt):
        search(Engine(tower, images[:4], study, die_after))
    with Study(tmp_path / "cut.sqlite", FINGERPRINT) as study:
        engine = Engine(tower, images[:4], study)
        resumed = search(engine)
        assert engine.ran == whole_engine.ran - die_after  # nothing is run twice
        assert engine.spent == whole_engine.spent
        assert resumed.history == whole.history
        assert resumed.best.mask == whole.best.mask
        assert all(same(a.score, b.score) for a, b in zip(resumed.by_size, whole.by_size, strict=True))

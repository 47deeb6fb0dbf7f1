"""One command, one result: every file of the output is the same bytes with a cold cache and a warm one, killed or
not, and after any file that is read back was damaged (then it is made again, and that is said)."""

import hashlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import write_pairs

from headwise.evaluation.crew import Staff
from headwise.jobs.refine import refine
from headwise.jobs.steps.opening import Machine
from headwise.jobs.steps.progress import Silent
from headwise.jobs.steps.settings import Settings
from headwise.search.genome import GeneticSettings
from headwise.search.gradient import GradientSettings

SETTINGS = Settings(
    operators=("zero",),
    strategies=("ga", "bp"),
    rungs=("mask", "scale"),
    budget=90.0,
    genetic=GeneticSettings(population=6, generations=2, elites=2, immigrants=1),
    gradient=GradientSettings(epochs=2, batch=16),
    max_heads=2,
    finalists=3,
    controls=2,
)
KILLED = """
import os, signal, sys
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[1])
from test_same_bytes import SETTINGS, Machine, refine
from headwise.evaluation.study import Study

put, count = Study.put, 0

def put_then_die(*arguments):
    global count
    put(*arguments)
    count += 1
    if count == 2:
        os.kill(os.getpid(), signal.SIGKILL)

Study.put = put_then_die
refine("demo", sys.argv[2], sys.argv[3], settings=SETTINGS, machine=Machine(cache_dir=sys.argv[4]))
"""


class Heard(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def say(self, text):
        self.said.append(text)


def run(pairs: Path, out: Path, cache: Path, settings: Settings = SETTINGS) -> list[str]:
    reporter = Heard()
    refine("demo", pairs, out, settings=settings, machine=Machine(cache_dir=cache), reporter=reporter)
    return reporter.said


def content(out: Path) -> dict[str, object]:
    """SHA-256 of every file; of the study its rows (SQLite's pages know in which order they were written)."""
    files = [path for path in sorted(out.rglob("*")) if path.is_file() and "study.sqlite" not in path.name]
    found: dict[str, object] = {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files
    }
    database = sqlite3.connect(out / "study.sqlite")
    columns = "split, mask_key, mask, edits, fitness, loss, metrics, arrays, data"
    found["evaluations"] = sorted(database.execute(f"SELECT {columns} FROM evaluations").fetchall())
    facts = {key: json.loads(value) for key, value in database.execute("SELECT key, value FROM study")}
    facts["notes"].pop("speed", None)  # what a clock said
    found["facts"] = facts
    database.close()
    return found


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), 36)


@pytest.fixture(scope="module")
def cold(pairs, tmp_path_factory) -> tuple[Path, Path]:
    """The output with an empty cache, and that cache, full now."""
    folder = tmp_path_factory.mktemp("cold")
    run(pairs, folder / "out", folder / "cache")
    return folder / "out", folder / "cache"


def test_a_warm_cache_gives_the_bytes_of_a_cold_one(cold, pairs, tmp_path):
    expected = content(cold[0])
    assert {"model/tokenizer.json", "model/model.safetensors", "head_mask.json", "results.json", "report.md"} <= set(
        expected
    )
    said = run(pairs, tmp_path / "out", cold[1])
    assert not any("again" in sentence for sentence in said if not sentence.startswith("Plan:"))
    assert content(tmp_path / "out") == expected


@pytest.mark.skipif(os.name == "nt", reason="kill -9")
def test_a_killed_run_that_is_repeated_gives_the_bytes_of_an_uninterrupted_one(cold, pairs, tmp_path):
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here.parent), *sys.path])}
    command = [sys.executable, "-c", KILLED, here, pairs, tmp_path / "out", tmp_path / "cache"]
    assert subprocess.run(command, env=environment, check=False).returncode == -signal.SIGKILL
    assert not (tmp_path / "out" / "results.json").exists()
    run(pairs, tmp_path / "out", tmp_path / "cache")
    assert content(tmp_path / "out") == content(cold[0])


def flip(path: Path, seed: int) -> None:
    data = bytearray(path.read_bytes())
    draw = random.Random(seed)
    data[draw.randrange(len(data) // 2, len(data))] ^= 1 << draw.randrange(8)
    path.write_bytes(data)


@pytest.mark.parametrize(
    "what",
    [
        "deltas-zero.safetensors",
        "bp-zero-seed0.safetensors",
        "learned-scale-seed0.safetensors",
        "captions",
        "pixels",
        "search-embeddings",
    ],
)
def test_a_damaged_file_is_made_again_and_said(cold, pairs, tmp_path, what):
    out, cache = shutil.copytree(cold[0], tmp_path / "out"), shutil.copytree(cold[1], tmp_path / "cache")
    files = {"captions": "texts/*.safetensors", "pixels": "pixels/*/pixels", "search-embeddings": f"{what}/*"}
    found = [path for folder in (out, cache) for path in folder.glob(files.get(what, what))]
    for number, path in enumerate(found):
        flip(path, number)
    said = run(pairs, out, cache)
    told = [sentence for sentence in said if not sentence.startswith("Plan:")]  # its last line learns again
    assert sum("again" in sentence for sentence in told) == len(found) > 0
    assert content(out) == content(cold[0])


def test_workers_give_the_bytes_of_one_process(cold, pairs, tmp_path, monkeypatch):
    """Sweep, searches, AAT-BP, learned scales: whoever ran the tower."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as this process
    machine = Machine(cache_dir=cold[1], staff=Staff(workers=2))
    refine("demo", pairs, tmp_path / "out", settings=SETTINGS, machine=machine)
    assert content(tmp_path / "out") == content(cold[0])


def test_other_settings_in_the_same_folder_are_learned_anew_and_said(cold, pairs, tmp_path):
    out = shutil.copytree(cold[0], tmp_path / "out")
    names = ["bp-zero-seed0.safetensors", "learned-scale-seed0.safetensors"]
    fewer = replace(SETTINGS, gradient=replace(SETTINGS.gradient, epochs=1), values=replace(SETTINGS.values, epochs=1))
    for settings in (fewer, SETTINGS):
        said = run(pairs, out, cold[1], settings)
        assert sum("other settings" in sentence for sentence in said) == len(names)
        same = [(out / name).read_bytes() == (cold[0] / name).read_bytes() for name in names]
        assert same == [settings is SETTINGS] * len(names)


@pytest.mark.parametrize("statement", ["SET fitness = fitness + 0.01", "SET metrics = replace(metrics, '0.', '0.1')"])
def test_damaged_scores_are_evaluated_again_to_the_same_bytes(cold, pairs, tmp_path, statement):
    out = shutil.copytree(cold[0], tmp_path / "out")
    database = sqlite3.connect(out / "study.sqlite")
    (last,) = database.execute("SELECT max(id) FROM evaluations WHERE split = 'search'").fetchone()
    for number in (2, last):  # of the sweep, and of a search
        assert database.execute(f"UPDATE evaluations {statement} WHERE id = ?", (number,)).rowcount == 1
    database.commit()
    database.close()
    said = run(pairs, out, cold[1])
    assert sum("evaluated again" in sentence for sentence in said) == 1
    assert content(out) == content(cold[0])


def test_a_study_goes_on_with_the_threads_that_it_was_begun_with(cold, pairs, tmp_path):
    threads = torch.get_num_threads()
    out = shutil.copytree(cold[0], tmp_path / "out")
    try:
        torch.set_num_threads(threads + 1)
        said = run(pairs, out, cold[1])
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(threads)
    assert sum(f"with {threads} threads" in sentence for sentence in said) == 1
    assert content(out) == content(cold[0])

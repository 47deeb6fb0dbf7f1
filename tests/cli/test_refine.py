"""refine end to end, on the packaged model: results, artefacts, kills, a full disk."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from headwise.checked import read_results
from headwise.evaluation.fingerprints import recorded
from headwise.evaluation.study import Study

from .common import SMALL


def test_refine_writes_every_artefact_and_prints_what_it_wrote(refined):
    out, printed = refined
    assert {p.name for p in out.iterdir()} >= {
        "README.md", "head_mask.json", "heads.png", "model", "report.md", "results.json", "study.sqlite",
    }  # fmt: skip
    assert read_results(out / "results.json") == printed
    rows = {row["what"]: row for row in printed["test"]}
    assert {"identity", "best single head", "ga", "chosen"} <= set(rows)
    assert rows["identity"]["delta"] == 0
    assert sum(f["chosen"] for f in printed["finalists"]) == 1
    assert printed["finalists"][0]["mask"] == "identity"
    parts = printed["data"]["splits"]
    assert sum(part["images"] for part in parts.values()) == printed["data"]["images"] == 60


def test_the_progress_of_a_search_ends_at_the_best_that_its_study_holds(refined):
    out, printed = refined
    with Study.reopen(out / "study.sqlite") as study:
        fitness = {str(one.mask): one.score.fitness for one in study.evaluations() if one.split == "search"}
    best = max(fitness.values())
    course = printed["progress"]
    assert course[-1]["fitness"] == best
    assert [one["ffe"] for one in course] == sorted(one["ffe"] for one in course)
    assert course[-1]["ffe"] <= printed["ffe"]["search"]
    stages = list(dict.fromkeys(one["stage"] for one in course))
    assert stages[0].endswith("(zero)")
    assert all(stages)
    assert printed["strategies"]
    assert all(one["fitness"] == fitness[one["best"]] for one in printed["strategies"])
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f"by what was spent: {', '.join(f'{i} {name}' for i, name in enumerate(stages, 1))}." in page


def test_the_same_command_again_gives_the_same_bytes_and_evaluates_nothing(refined, pairs, run):
    out, printed = refined
    before = (out / "results.json").read_bytes()
    evaluations = count(out)
    code, again, _ = run("refine", "demo", pairs, "-o", out, *SMALL, "--operator", "zero,mean", "--json")
    assert code == 0
    assert json.loads(again) == printed
    assert (out / "results.json").read_bytes() == before
    assert count(out) == evaluations


def test_a_run_killed_twice_ends_with_the_bytes_of_an_uninterrupted_run(refined, pairs, tmp_path):
    expected = (refined[0] / "results.json").read_bytes()
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "headwise", "refine", "demo", pairs, "-o", out, *SMALL, "--operator", "zero,mean"]
    total, seen = count(refined[0]), 0
    for share in (0.1, 0.5):  # in the first sweep, and in a later search
        process = subprocess.Popen([*command, "--json"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and count(out) <= max(share * total, seen):
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert count(out) >= seen  # what was finished stays
        seen = count(out)
    assert seen > 0
    subprocess.run([*command, "--json"], check=True, capture_output=True)
    assert (out / "results.json").read_bytes() == expected
    assert count(out) == total  # nothing was recorded that an uninterrupted run does not record


def count(out: Path) -> int:
    import sqlite3

    path = out / "study.sqlite"
    if not path.exists():
        return 0
    try:
        with sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5) as db:
            return db.execute("SELECT count(*) FROM evaluations").fetchone()[0]
    except sqlite3.OperationalError:  # not made yet
        return 0


def test_two_processes_share_one_study(refined, pairs, tmp_path):
    out = tmp_path / "shared"
    command = [sys.executable, "-m", "headwise", "refine", "demo", pairs, "-o", out, *SMALL, "--operator", "zero,mean"]
    both = [
        subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in "ab"
    ]
    outputs = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert (out / "results.json").read_bytes() == (refined[0] / "results.json").read_bytes()


def test_the_refined_model_loads_without_headwise_and_gives_the_masked_models_numbers(refined, pairs, run):
    out, printed = refined
    code, merged, _ = run("evaluate", out / "model", pairs, "--json")
    assert code == 0
    code, masked, _ = run("evaluate", "demo", pairs, "--mask", out, "--json")
    assert code == 0
    a, b = json.loads(merged)["metrics"], json.loads(masked)["metrics"]
    assert a == pytest.approx(b, abs=0.02)  # float32 folding may turn a tie
    assert json.loads(masked)["mask"] == printed["chosen"]["mask"]
    script = (
        "import sys; from transformers import CLIPModel, CLIPProcessor;"
        f"CLIPModel.from_pretrained({str(out / 'model')!r}); CLIPProcessor.from_pretrained({str(out / 'model')!r});"
        "assert 'headwise' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)


def test_python_api_gives_what_the_command_line_gives(refined, pairs):
    import headwise
    from headwise.search.genome import GeneticSettings

    settings = headwise.Settings(
        operators=("zero", "mean"),
        rungs=("mask",),
        controls=4,
        finalists=4,
        budget=30.0,
        genetic=GeneticSettings(population=10),
    )
    began = recorded(refined[0] / "study.sqlite")["machine"]["threads"]  # the command line took the machine's default
    torch.set_num_threads(began)
    found = headwise.refine("demo", pairs, settings=settings)
    assert found.results == refined[1]  # the same threads, processor and torch: the same bits
    assert found.folder is None
    torch.set_num_threads(3 - began if began < 3 else 1)
    other = headwise.refine("demo", pairs, settings=settings)
    assert other.mask == found.mask
    assert_near(other.results, found.results)


def assert_near(found: object, expected: object, where: str = "results") -> None:
    """What the README promises of another number of threads: losses within 1e-5, everything else equal."""
    if isinstance(expected, dict):
        assert list(found) == list(expected), where
        for key, value in expected.items():
            assert_near(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            assert_near(found[number], value, f"{where}[{number}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5), where
    else:
        assert found == expected, where


@pytest.mark.skipif(os.geteuid() != 0 or sys.platform != "linux", reason="mounts a small file system")
def test_a_full_disk_leaves_nothing_half_written(pairs, refined, tmp_path):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("cannot mount here")
    try:
        command = [sys.executable, "-m", "headwise", "refine", "demo", pairs, "-o", small / "out", *SMALL]
        done = subprocess.run([*command, "--operator", "zero,mean"], capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
        assert "Traceback" not in done.stderr
        assert "No space left" in done.stderr
        assert "Missing: model/." in done.stderr
        for name in ("results.json", "splits.json", "head_mask.json", "report.md", "heads.png"):  # all that has room
            whole = (refined[0] / name).read_bytes()
            assert name == "report.md" or (small / "out" / name).read_bytes() == whole, name
        assert "is the refined model" not in (small / "out" / "report.md").read_text()
        assert not (small / "out" / "model").exists()
        leftovers = [p for p in (small / "out").rglob("*") if "partial" in p.name]
        assert not leftovers
        subprocess.run(["mount", "-o", "remount,size=200m", small], check=True)
        subprocess.run([*command, "--operator", "zero,mean"], check=True, capture_output=True)
        assert (small / "out" / "results.json").read_bytes() == (refined[0] / "results.json").read_bytes()
    finally:
        subprocess.run(["umount", small], check=False)


def test_learning_nothing_again_asks_for_something_that_is_learned(run, tmp_path):
    code, _, err = run("refine", "demo", "demo", "-o", tmp_path / "out", "--rungs", "mask", "--no-refit")
    assert code == 1
    assert "--no-refit is about learned rungs" in err
    assert "--rungs mask,scale" in err
    assert not (tmp_path / "out").exists()

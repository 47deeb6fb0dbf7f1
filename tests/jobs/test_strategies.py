"""Every strategy through the command line: operators that compete, the missing sweep, labels, and a killed AAT-BP."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import write_pairs
from safetensors import safe_open

from headwise.cli.app import main

ALL = "greedy,genetic,screened,taylor,bp"
OPERATORS = ("zero", "uniform", "mean")
FEW = ["--budget", "4", "--max-heads", "2", "--epochs", "2", "--controls", "2", "--finalists", "4"]
SMALL = [*FEW, "--population", "12"]


def refine(pairs: Path, out: Path, *options: object) -> dict:
    """`headwise refine demo PAIRS -o OUT …` in this process, and what it wrote."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["headwise", "refine", "demo", *map(str, (pairs, "-o", out, *options))])
        with pytest.raises(SystemExit) as stop:
            main()
    assert not stop.value.code
    return json.loads((out / "results.json").read_text())


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), 30)


@pytest.fixture(scope="module")
def everything(pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("everything") / "out"
    return out, refine(pairs, out, *SMALL, "--strategy", ALL, "--operator", ",".join(OPERATORS), "--keep-soft")


def test_every_strategy_runs_with_every_operator_and_all_compete(everything):
    _, results = everything
    ran = [(one["operator"], one["name"]) for one in results["strategies"]]
    assert ran == [(operator, name) for operator in OPERATORS for name in ALL.split(",")]
    for one in results["strategies"]:
        assert one["best"] == "identity" or one["best"].startswith(one["operator"] + ":")
    assert len(results["sweep"]) == 3
    rows = {row["what"] for row in results["test"]}
    assert {"identity", "best single head", "chosen"} <= rows <= {"random heads", *ALL.split(","), *rows}
    assert results["finalists"][0]["mask"] == "identity"


def test_cost_adds_up_and_changes_of_embeddings_come_with_the_sweep(everything):
    """Nothing but the unchanged model is asked for by two operators."""
    _, results = everything
    parts, total = dict(results["ffe"]), results["ffe"]["search"]
    del parts["search"], parts["test"]
    assert total <= sum(parts.values()) <= total + 3
    assert parts["first_order"] == 9  # one forward alone and one with its backward, for each operator
    assert all(one["ffe_of_changes"] == 0 for one in results["strategies"] if one["name"] == "screened")


def test_first_order_scores_stand_beside_the_sweep(everything):
    out, results = everything
    for first, sweep in zip(results["first_order"], results["sweep"], strict=True):
        assert first["operator"] == sweep["operator"]
        assert {row["head"] for row in first["heads"]} == {row["head"] for row in sweep["heads"]}
        assert first["rank_correlation"]["loss"] > 0.5
    report = (out / "report.md").read_text()
    for first in results["first_order"]:
        assert f"First-order scores ({first['operator']})" in report
        assert f"{first['rank_correlation']['loss']:.2f} (by the loss)" in report
    assert report.count("| first-order score |") == 3


def test_the_report_says_how_well_estimates_agree_with_exact_results(everything):
    out, results = everything
    report = (out / "report.md").read_text()
    for one in results["strategies"]:
        line = next(x for x in report.splitlines() if x.startswith(f"| {one['name']} | {one['operator']} |"))
        if one["name"] == "screened":
            assert f"{one['estimated']} masks estimated" in line
            assert one["correlation"] is None or f"r = {one['correlation']:.2f}" in line


def test_lost_changes_are_collected_again_to_the_same_bytes(everything, pairs, capsys):
    """As after a kill between the sweep's last score and the file of the changes."""
    out, _ = everything
    before = (out / "results.json").read_bytes()
    tensors = {operator: changes(out, operator) for operator in OPERATORS}
    for operator in OPERATORS[1:]:
        (out / f"deltas-{operator}.safetensors").unlink()
    refine(pairs, out, *SMALL, "--strategy", ALL, "--operator", ",".join(OPERATORS), "--keep-soft")
    assert (out / "results.json").read_bytes() == before
    for operator in OPERATORS:
        assert changes(out, operator) == tensors[operator]
    assert "again (uniform)" in capsys.readouterr().err


def changes(out: Path, operator: str) -> list:
    with safe_open(out / f"deltas-{operator}.safetensors", "np") as file:
        return [file.get_tensor(name).tobytes() for name in ("identity", "changes")]


def test_without_the_sweep_first_order_scores_rank_the_heads(everything, pairs, tmp_path, capsys):
    results = refine(pairs, tmp_path / "out", *SMALL, "--strategy", ALL, "--no-sweep")
    assert results["sweep"] == []
    (first,) = results["first_order"]
    swept = everything[1]["first_order"][OPERATORS.index("uniform")]
    assert first == {**swept, "rank_correlation": None}
    assert results["ffe"]["sweep"] < 0.6 * everything[1]["ffe"]["sweep"] / 3
    best = max(first["heads"], key=lambda row: row["score"])["head"]
    cut = next(one for one in results["strategies"] if one["name"] == "taylor")["best"]
    assert best in cut
    assert any(row["what"] == "best single head" for row in results["test"])
    report = (tmp_path / "out" / "report.md").read_text()
    assert "No sweep was run" in report
    assert "max-T" not in report.split("## How to read")[0].split("## Single heads")[1]
    assert (tmp_path / "out" / "heads.png").read_bytes().startswith(b"\x89PNG")
    assert "No sweep was run" in capsys.readouterr().out


def test_sweep_prints_first_order_scores_beside_the_exact_ones(pairs, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["headwise", "sweep", "demo", str(pairs), "--taylor"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    assert "first order" in shown
    assert "rank correlation" in shown


def test_labels_take_gradients_too(pairs, tmp_path):
    lines = [f"images/{i}.png,{'round' if i % 3 else 'square'}" for i in range(30)]
    (pairs.parent / "labels.csv").write_text("image,label\n" + "\n".join(lines) + "\n")
    options = [*FEW, "--strategy", "taylor,bp", "--templates", "plain", "--json"]
    results = refine(pairs.parent / "labels.csv", tmp_path / "out", *options)
    assert [one["name"] for one in results["strategies"]] == ["taylor", "bp"]
    assert results["first_order"][0]["rank_correlation"]["loss"] > 0.5
    assert "acc1" in results["test"][0]["metrics"]


def test_gradients_with_less_memory_and_in_bfloat16(pairs, tmp_path):
    """Recomputing activations changes nothing but the cost; every gate form runs."""
    options = ["--strategy", "bp", "--epochs", "2", "--controls", "2", "--max-heads", "2"]
    plain = refine(pairs, tmp_path / "plain", *options, "--gates", "top_k")
    again = refine(pairs, tmp_path / "again", *options, "--gates", "top_k", "--recompute")
    other = refine(pairs, tmp_path / "other", *options, "--gates", "hard_concrete", "--autocast")
    assert plain["strategies"][0]["gates"] == again["strategies"][0]["gates"]
    assert plain["ffe"]["bp"] < again["ffe"]["bp"]
    assert other["strategies"][0]["gates"].keys() == plain["strategies"][0]["gates"].keys()


def test_a_killed_gradient_run_continues_to_the_same_bytes(pairs, tmp_path):
    options = ["--strategy", "bp", "--epochs", "12", "--batch", "8", "--controls", "2", "--keep-soft"]
    refine(pairs, tmp_path / "whole", *options)
    out, name = tmp_path / "killed", "bp-uniform-seed0.safetensors"
    command = [sys.executable, "-m", "headwise", "refine", "demo", pairs, "-o", out, *options, "--json"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}  # as this process: sums of more threads differ in the last bits
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=env)
    while process.poll() is None and epochs(out / name) < 2:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert 2 <= epochs(out / name) < epochs(tmp_path / "whole" / name)
    assert not (out / "results.json").exists()
    refine(pairs, out, *options)
    for file in ("results.json", "head_mask.json", name):
        assert (out / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()


def epochs(path: Path) -> int:
    if not path.exists():
        return 0
    with safe_open(path, "np") as file:
        return len(json.loads(file.metadata()["headwise"])["history"])

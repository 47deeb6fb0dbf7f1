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
from scipy.stats import spearmanr

from headwise.checked import load_tensors
from headwise.cli.guard import main

ALL = "greedy,ga,bp"
OPERATORS = ("zero", "uniform", "mean")
EDITS = {"zero": ("zero", "scale"), "uniform": ("uniform",), "mean": ("mean",)}  # a soft gate of zero is a scale
FEW = ["--budget", "150", "--max-heads", "2", "--epochs", "2", "--controls", "2", "--finalists", "4"]
SMALL = [*FEW, "--population", "12"]


def refine(pairs: Path, out: Path, *options: object) -> dict:
    """`headwise refine demo PAIRS -o OUT …` in this process, masks alone unless rungs are given, and what it wrote."""
    if "--rungs" not in options:
        options = (*options, "--rungs", "mask")
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
    alone = [(operator, name) for operator in OPERATORS for name in ALL.split(",") if name != "ga"]
    assert ran == [*alone, (", ".join(OPERATORS), "ga")]  # AAT-GA gives every head its own
    for one in results["strategies"]:
        letters = tuple(edit for operator in one["operator"].split(", ") for edit in EDITS[operator])
        assert one["best"] == "identity" or all(
            edit.split("=")[1].startswith(letters) for edit in one["best"].split(", ")
        )
    assert len(results["sweep"]) == 3
    rows = {row["what"] for row in results["test"]}
    assert {"identity", "best single head", "chosen"} <= rows <= {"random heads", *ALL.split(","), *rows}
    assert results["finalists"][0]["mask"] == "identity"


def test_cost_adds_up(everything):
    """Nothing but the unchanged model is asked for by two operators."""
    _, results = everything
    ffe = results["ffe"]
    parts = sum(ffe[name] for name in ("sweep", "means", *ALL.split(",")))
    assert ffe["search"] <= parts <= ffe["search"] + 3
    assert ffe["means"] == 1  # the pass that the constants are the means of
    assert ffe["before_test"] == pytest.approx(ffe["search"] + ffe["pick"])
    assert ffe["before_test"] <= ffe["budget"] == 150
    assert "first_order" not in ffe
    assert results["first_order"] == []  # there was a sweep


def test_the_report_says_how_well_estimates_agree_with_exact_results(everything):
    out, results = everything
    report = (out / "report.md").read_text()
    for one in results["strategies"]:
        line = next(x for x in report.splitlines() if x.startswith(f"| {one['name']} | {one['operator']} |"))
        if one["name"] == "ga":
            assert one["estimated"] > 0
            assert f"{one['estimated']} masks estimated" in line
            assert one["agreement"] is None or f"rank agreement with exact runs {one['agreement']:.2f}" in line


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
    assert first["rank_correlation"]["heads"] == 12  # those that were run alone
    assert -1 <= first["rank_correlation"]["loss"] <= 1
    assert results["ffe"]["first_order"] == 3  # one forward alone and one with its backward
    swept = {row["head"]: row["loss_delta"] for row in everything[1]["sweep"][OPERATORS.index("uniform")]["heads"]}
    ranked = sorted(first["heads"], key=lambda row: -row["score"])
    assert spearmanr([row["score"] for row in ranked], [-swept[row["head"]] for row in ranked]).statistic > 0.5
    assert results["ffe"]["sweep"] < 0.6 * everything[1]["ffe"]["sweep"] / 3
    assert any(row["what"] == "best single head" for row in results["test"])
    report = (tmp_path / "out" / "report.md").read_text()
    assert "No sweep was run" in report
    assert "max-T" not in report.split("## Single heads")[1].split("\n## ")[0]
    assert (tmp_path / "out" / "heads.png").read_bytes().startswith(b"\x89PNG")
    assert "No sweep was run" in capsys.readouterr().out


def test_one_gradient_pass_serves_all_edits(pairs, tmp_path):
    results = refine(
        pairs, tmp_path / "out", "--budget", "60", "--controls", "2", "--operator", "uniform,scale(1.5)", "--no-sweep"
    )
    assert [first["operator"] for first in results["first_order"]] == ["uniform", "scale(1.5)"]
    assert results["ffe"]["first_order"] == 3
    assert [(one["operator"], one["name"]) for one in results["strategies"]][-1] == ("uniform, scale(1.5)", "ga")


def test_sweep_prints_first_order_scores_beside_the_exact_ones(pairs, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["headwise", "sweep", "demo", str(pairs), "--first-order"])
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    assert "first order" in shown
    assert "rank correlation" in shown
    assert "Most promising of 360 heads × edits" in shown


def test_labels_take_gradients_too(pairs, tmp_path):
    lines = [f"images/{i}.png,{'round' if i % 3 else 'square'}" for i in range(30)]
    (pairs.parent / "labels.csv").write_text("image,label\n" + "\n".join(lines) + "\n")
    options = [
        *FEW,
        "--strategy",
        "greedy,bp",
        "--rungs",
        "mask,spectral",
        "--no-sweep",
        "--templates",
        "plain",
        "--json",
    ]
    results = refine(pairs.parent / "labels.csv", tmp_path / "out", *options)
    assert [one["name"] for one in results["strategies"]] == ["greedy", "bp", "spectral"]
    assert len(results["first_order"][0]["heads"]) == 36
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
    return len(load_tensors(path)[1]["history"])

"""compare from the command line, on the packaged model: the table, a killed run, documented errors."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import write_pairs
from transformers import AutoModel

from headwise.baselines import FitSettings, check
from headwise.checked import read_results
from headwise.errors import HeadwiseError
from headwise.jobs.compare import compare
from headwise.jobs.evaluate import evaluate
from headwise.jobs.refine import refine
from headwise.jobs.steps import trained
from headwise.jobs.steps.contest_settings import CompareSettings
from headwise.jobs.steps.settings import Settings
from headwise.scoring.design import Design
from headwise.towers import load, tower_of

METHODS = "best single head,greedy,ga,bp,bp soft,scale,adapter,layernorm"
SMALL = ["--strategy", "greedy,ga,bp,scale,adapter,layernorm", "--repeats", "2", "--budget", "45", "--epochs", "2"]


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), 40, splits=("search", "search", "pick", "test"))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("other"), 24, start=100, splits=("search", "pick", "test"))


def command(pairs: Path, other: Path, out: Path) -> list[str]:
    arguments = ["demo", str(pairs), "-o", str(out), "--keep-domain", str(other), *SMALL, "--json"]
    return [sys.executable, "-m", "headwise", "compare", *arguments]


@pytest.fixture(scope="module")
def compared(pairs, other, tmp_path_factory):
    out = tmp_path_factory.mktemp("compared") / "out"
    done = subprocess.run(command(pairs, other, out), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def timeless(results: dict) -> dict:
    """Without what a clock says."""
    rows = [
        {k: v for k, v in row.items() if k not in ("seconds", "inference", "interrupted")} for row in results["rows"]
    ]
    settings = {k: v for k, v in results["settings"].items() if k != "seconds_per_ffe"}
    return {**results, "rows": rows, "settings": settings}


def test_every_method_has_a_row_and_the_files_are_there(compared):
    out, results = compared
    assert [row["method"] for row in results["rows"]] == ["identity", "random heads", *METHODS.split(",")]
    assert read_results(out / "compare.json") == results
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")
    text = (out / "compare.md").read_text()
    assert all(f"| {method} |" in text for method in METHODS.split(","))
    runs = {row["method"]: row["runs"] for row in results["rows"]}
    assert runs["ga"] == runs["bp"] == runs["scale"] == runs["adapter"] == 2
    assert runs["greedy"] == runs["best single head"] == 1  # they draw nothing at random


def test_scores_are_those_that_evaluate_gives(compared, pairs, other):
    _, results = compared
    base = evaluate("demo", pairs, only_split="test")["metrics"]["mean_recall"]
    away = evaluate("demo", other)["metrics"]["mean_recall"]  # of several splits, its test images
    assert results["rows"][0]["test"]["score"] == pytest.approx(base, abs=1e-12)
    row = next(row for row in results["rows"] if row["method"] == "greedy")
    mask = row["masks_by_search"][0]
    assert row["heads_by_search"][0] > 0
    masked = evaluate("demo", pairs, mask, only_split="test")["metrics"]["mean_recall"]
    assert row["test_by_search"]["delta"] == pytest.approx(masked - base, abs=1e-12)
    moved = evaluate("demo", other, mask)["metrics"]["mean_recall"]
    assert row["keep_domain_by_search"][0]["delta"] == pytest.approx(moved - away, abs=1e-12)


def test_a_method_that_falls_back_changes_nothing(compared):
    _, results = compared
    for row in results["rows"][2:]:
        kept = row["kept"] if row["heads"] is None else [size > 0 for size in row["heads"]]
        for changed, delta in zip(kept, row["test"]["deltas"], strict=True):
            assert changed or delta == 0
        low, high = row["test"]["interval"]
        assert low <= np.mean(row["test"]["deltas"]) + 1e-9
        assert np.mean(row["test"]["deltas"]) - 1e-9 <= high


def test_costs_are_counted(compared):
    _, results = compared
    rows = {row["method"]: row for row in results["rows"]}
    assert rows["best single head"]["ffe"] == 0  # the sweep has it
    assert rows["ga"]["ffe"] > 0 < rows["greedy"]["ffe"]
    for name in ("greedy", "ga", "bp"):  # with the sweep of 36 heads, each at most what it was given
        assert 45 - rows[name]["ffe"] > 15
    assert rows["adapter"]["trained"] == 192 * 192
    assert rows["bp"]["trained"] == rows["scale"]["trained"] == 36
    assert 2 < rows["scale"]["ffe"] < 45 - 2  # two epochs, the candidates; no sweep
    assert rows["greedy"]["trained"] == 0
    assert all(row["seconds"] > 0 for row in results["rows"][2:] if row["ffe"])


def test_the_same_command_again_repeats_nothing(compared, pairs, other):
    out, results = compared
    before = sorted((p.name, p.stat().st_mtime_ns) for p in (out / "baselines").iterdir())
    done = subprocess.run(command(pairs, other, out), capture_output=True, text=True, check=True)
    again = json.loads(done.stdout)
    assert timeless(again) == timeless(results)
    assert [row["seconds"] for row in again["rows"]] == pytest.approx([row["seconds"] for row in results["rows"]])
    assert sorted((p.name, p.stat().st_mtime_ns) for p in (out / "baselines").iterdir()) == before


def test_a_killed_comparison_continues_to_the_same_table(compared, pairs, other, tmp_path):
    out = tmp_path / "killed"
    process = subprocess.Popen(
        command(pairs, other, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 300
    while not list(out.glob("bp-*.safetensors")) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.poll() is None, "it ended before it could be killed"
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "compare.json").exists()
    done = subprocess.run(command(pairs, other, out), capture_output=True, text=True, check=True)
    assert timeless(json.loads(done.stdout)) == timeless(compared[1])


def test_a_damaged_file_of_a_baseline_is_never_read_as_another_result(tmp_path):
    """The baseline is trained again instead, and that is said."""
    hits, design = np.arange(24).reshape(24, 1), Design.mean(24)
    scores = {split: trained.Measured(0.5, 1.25, hits.copy(), design) for split in ("search", "pick")}
    places = {split: SimpleNamespace(objective=SimpleNamespace(design=design)) for split in scores}
    facts = {"trained": 3, "ffe": 2.5, "seconds": 1.0, "inference": 1.0}
    path, said = tmp_path / "adapter-seed0.safetensors", []

    def kept():
        found = trained._read(path, "key", places, said.append)
        return found and ({k: (s.fitness, s.loss, s.hits.tolist()) for k, s in found[0].items()}, found[1])

    assert kept() is None
    trained._write(path, "key", scores, facts)
    whole, data = kept(), path.read_bytes()
    assert whole == ({k: (0.5, 1.25, hits.tolist()) for k in scores}, facts)
    assert trained._read(path, "another key", places, said.append) is None
    assert said == []
    for place in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        found, count = kept(), len(said)
        assert found in (None, whole), place
        assert (found is None) == bool(count), place
        said.clear()


def test_learned_edits_are_what_refine_learns_once_for_all_operators(pairs, tmp_path):
    search = Settings(operators=("zero", "mean"), controls=1, budget=60.0, rungs=("spectral",))
    settings = CompareSettings(strategies=("spectral",), repeats=1, search=search)
    rows = compare("demo", pairs, tmp_path / "compared", settings=settings)["rows"]
    (row,) = [row for row in rows if row["method"] == "spectral"]
    assert row["operator"] is None
    assert row["trained"] == 36 * 32
    assert [one["operator"] for one in rows if one["method"] == "best single head"] == ["zero", "mean"]
    refined = refine("demo", pairs, tmp_path / "refined", settings=search).results
    chosen = next(one for one in refined["test"] if one["what"] == "chosen")
    assert row["heads"] == [chosen["size"]]
    assert row["test"]["delta"] == chosen["delta"]
    best = next(one for one in refined["test"] if one["what"] == "spectral")
    assert row["test_by_search"]["delta"] == best["delta"]


def test_operators_are_rows_of_their_own(pairs, tmp_path):
    settings = CompareSettings(
        strategies=("greedy",), repeats=1, search=Settings(operators=("zero", "mean"), controls=3, budget=40.0)
    )
    results = compare("demo", pairs, tmp_path / "out", settings=settings)
    rows = [(row["method"], row["operator"]) for row in results["rows"][2:]]
    assert rows == [("best single head", "zero"), ("greedy", "zero"), ("best single head", "mean"), ("greedy", "mean")]
    assert len({row["test_by_search"]["delta"] for row in results["rows"][2:]}) > 1


def test_a_dry_run_says_what_each_method_costs_and_writes_nothing(run, pairs, other, compared, tmp_path):
    out = tmp_path / "out"
    code, printed, err = run("compare", *command(pairs, other, out)[4:], "--dry-run")
    assert code == 0, err
    assert not out.exists()
    plan = json.loads(printed)
    stages = {stage["stage"]: stage for stage in plan["stages"]}
    spent = {row["method"]: row["ffe"] for row in compared[1]["rows"]}
    assert plan["budget"] == compared[1]["settings"]["budget"] == 45
    assert all(stage["minutes"] > 0 and stage["ffe"] <= stage["most"] + 1e-9 for stage in plan["stages"])
    for name, times in (("greedy", "once"), ("ga", "2 times"), ("bp", "2 times")):
        stage = stages[f"{name} (uniform), {times}"]
        total = spent[name] * (1 if times == "once" else 2)
        assert total <= stage["most"] + 1e-6
        if name != "bp":  # it learns for two epochs here, and half of them are no epoch
            assert 0.7 * total <= stage["ffe"] <= 1.3 * total, name
    for name in ("adapter", "layernorm"):
        assert 2 * spent[name] <= stages[f"{name}, 2 times"]["most"] + 1e-6
    assert list(stages)[-1] == "test split (outside the budget)"


def test_minutes_are_one_budget_for_every_method(pairs, tmp_path):
    """What the clock said is kept: the same call again gives the same."""
    search = Settings(controls=2, max_minutes=0.6)
    settings = CompareSettings(strategies=("greedy", "ga", "layernorm"), repeats=1, search=search)
    results = compare("demo", pairs, tmp_path / "out", settings=settings)
    budget = results["settings"]["budget"]
    assert results["settings"]["max_minutes"] == 0.6
    assert all(row["ffe"] <= budget + 1e-6 for row in results["rows"] if row["ffe"] is not None)
    again = compare("demo", pairs, tmp_path / "out", settings=settings)
    assert timeless(again) == timeless(results)
    few = replace(settings, search=replace(search, max_minutes=1e-4))
    with pytest.raises(HeadwiseError, match="Give at least --max-minutes"):
        compare("demo", pairs, tmp_path / "none", settings=few)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--strategy", "magic"], "'magic' is not a strategy"),
        (["--strategy", "screened"], "Write ga"),
        (["--strategy", ","], "No strategy was given"),
        (["--methods", "greedy"], "Write --strategy"),
        (["--repeats", "0"], "repeats is 0"),
        (["--seeds", "2"], "Write --repeats"),
        (["--budget", "1"], "at least 3 FFE"),
        (["--budget", "4"], "Give at least --budget 7"),
        (["--max-heads", "99"], "has 36 heads"),
        (["--keep-domain", "nothing.csv"], "nothing.csv"),
        (["--off-domain", "nothing.csv"], "Write --keep-domain"),
        (["--operator", "nonsense"], "nonsense"),
    ],
)
def test_bad_options_are_sentences(pairs, tmp_path, options, said):
    call = [sys.executable, "-m", "headwise", "compare", "demo", str(pairs), "-o", str(tmp_path / "out"), *options]
    done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_what_cannot_be_run_here_is_left_out_before_searching(pairs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    search = Settings(operators=("keys",), strategies=("greedy",), budget=8.0, controls=1, max_heads=1, width=1)
    settings = CompareSettings(strategies=("greedy", "bp", "lora"), repeats=1, search=search)
    results = compare("demo", pairs, tmp_path / "out", settings=settings)
    assert "greedy" in {row["method"] for row in results["rows"]}
    assert [left["method"] for left in results["left_out"]] == ["bp", "lora"]
    assert "bp was left out: learns gates, and 'keys' is none" in (tmp_path / "out" / "compare.md").read_text()
    assert "lora was left out: The LoRA baseline needs peft" in (tmp_path / "out" / "compare.md").read_text()
    with pytest.raises(HeadwiseError, match="lora cannot be written"):
        compare("demo", pairs, tmp_path / "out", settings=replace(settings, write=("lora",)))
    with pytest.raises(HeadwiseError, match="Nothing is left"):
        compare("demo", pairs, tmp_path / "none", settings=replace(settings, strategies=("lora",)))


def test_a_model_says_which_baselines_have_nothing_to_train():
    import open_clip

    config = open_clip.get_model_config("ViT-B-16-SigLIP")  # it pools by attention and ends without a projection
    text = {**config["text_cfg"], "layers": 1, "vocab_size": 100}
    module = open_clip.create_model("ViT-B-16-SigLIP", pretrained=None, text_cfg=text).eval()
    module.visual.trunk.blocks = module.visual.trunk.blocks[:1]
    check("svd", tower_of(module))
    with pytest.raises(HeadwiseError, match="ends without a projection"):
        check("projection", tower_of(module))
    with pytest.raises(HeadwiseError, match="has no LayerNorm"):
        check("layernorm", tower_of(open_clip.create_model("RN50", pretrained=None).eval()))


@pytest.mark.parametrize("method", ["layernorm", "lora", "projection", "svd"])
def test_a_baseline_becomes_a_model_that_scores_what_the_table_says(method, tmp_path):
    if method == "lora":
        pytest.importorskip("peft")
    pairs = write_pairs(tmp_path, 36, splits=("search", "search", "pick", "test"))
    settings = CompareSettings(
        strategies=(method,), repeats=1, training=FitSettings(epochs=2, batch=16, holdout=0.0), write=(method,)
    )
    found = compare("demo", pairs, tmp_path / "out", settings=settings)
    (row,) = (row for row in found["rows"] if row["method"] == method)
    folder = tmp_path / "out" / "baselines" / method
    told = evaluate(str(folder), pairs, only_split="test")
    assert told["metrics"]["mean_recall"] == pytest.approx(row["test_by_search"]["score"])
    assert f"with {method}" in (folder / "README.md").read_text()
    plain = AutoModel.from_pretrained(folder)
    trained = sum(
        not torch.equal(new, old)
        for new, old in zip(plain.state_dict().values(), load("demo").module.state_dict().values(), strict=True)
    )
    assert trained
    assert compare("demo", pairs, tmp_path / "out", settings=settings)["rows"][-1]["test"] == row["test"]  # and again


def test_what_is_no_model_of_its_own_is_not_written():
    with pytest.raises(HeadwiseError, match="adapter"):
        CompareSettings(write=("adapter",))
    with pytest.raises(HeadwiseError, match="where they are compared"):
        CompareSettings(strategies=("greedy",), write=("lora",))

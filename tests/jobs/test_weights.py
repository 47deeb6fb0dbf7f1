"""Rungs that train weights: what is written is what was scored, limits hold, a continued run trains nothing again."""

import json
import sys
from dataclasses import replace

import pytest
import torch
from conftest import write_pairs
from safetensors.torch import load_file
from told import Told

from headwise.baselines import FitSettings, fit
from headwise.baselines.weights import between
from headwise.checked import load_tensors
from headwise.data.cache import pixels
from headwise.errors import HeadwiseError
from headwise.jobs.evaluate import evaluate
from headwise.jobs.refine import refine
from headwise.jobs.report import report
from headwise.jobs.steps.settings import Settings
from headwise.scoring.losses.captions import captions
from headwise.search.values import ValueSettings
from headwise.towers import load

BUDGET = 40.0
SETTINGS = Settings(
    rungs=("mask", "projection"),
    strategies=("greedy",),
    sweep=False,
    budget=BUDGET,
    width=1,
    max_heads=1,
    finalists=1,
    controls=1,
    level=0.95,  # on so few images hardly anything is shown; what is preferred is the matter here
    max_loss=2.0,
    values=ValueSettings(epochs=6),
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), 120, splits=("search", "search", "pick", "test"))


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("old"), 60, start=300)


@pytest.fixture(scope="module")
def run(source, old, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return refine("demo", source, out, settings=SETTINGS, keep=[old]).results, out


def test_the_preferred_model_is_written_and_scores_what_the_report_says(run, source):
    results, out = run
    found = results["weights"]
    name = found["preferred"]["name"]
    (row,) = (row for row in found["test"] if row["what"] == name)
    folder = out / "tuned-model"
    told = evaluate(str(folder), source, only_split="test")
    assert told["metrics"] == pytest.approx(row["metrics"], abs=0.03)  # float16 on disk may turn a tie
    base = load("demo").module.state_dict()
    after = load_file(folder / "model.safetensors")
    changed, _ = load_tensors(out / "trained-projection-seed0.safetensors")
    (trained,) = changed.values()
    differ = [key for key in base if not torch.allclose(base[key].float(), after[key].float(), atol=2e-3)]
    assert differ == ["visual_projection.weight"]
    way = base[differ[0]] + found["preferred"]["alpha"] * (trained - base[differ[0]])
    assert torch.allclose(after[differ[0]].float(), way.float(), atol=1e-3)
    for text in (
        (out / "report.md").read_text(),
        (out / "report.html").read_text(),
        (folder / "README.md").read_text(),
    ):
        assert "prefers trained weights to all edits" in text
        assert name in text


def test_edits_stay_what_they_are_without_such_a_rung(run, source, old, tmp_path):
    results, _ = run
    alone = replace(SETTINGS, rungs=("mask",), budget=BUDGET - SETTINGS.weights_ffe(False, 1))
    plain = refine("demo", source, tmp_path / "plain", settings=alone, keep=[old]).results
    assert "weights" not in plain
    assert plain["chosen"] == results["chosen"]
    assert plain["test"] == results["test"]
    assert plain["finalists"] == results["finalists"]


def test_what_loses_too_much_elsewhere_is_out(run, source, old, tmp_path):
    results, _ = run
    rows = results["weights"]["candidates"]
    assert [row["alpha"] for row in rows] == [0.25, 0.5, 0.75, 1.0]
    for row in rows:
        assert row["passed"] == all(-100 * each["delta"] <= SETTINGS.max_loss for each in row["kept"])
        assert row["values"] == 192 * 192
        assert not (row["preferred"] and not row["passed"])
    assert results["weights"]["kept"][0]["source"] == str(old)
    wrong = write_pairs(tmp_path / "wrong", 120, splits=("search", "search", "pick", "test"))
    lines = [line.rsplit(",", 2) for line in wrong.read_text().splitlines()]
    mixed = [
        lines[0],
        *([a, b, c] for (a, _, c), (_, b, _) in zip(lines[1:], [*lines[40:], *lines[1:40]], strict=True)),
    ]
    wrong.write_text("\n".join(map(",".join, mixed)))  # captions of other images
    lost = replace(SETTINGS, values=ValueSettings(epochs=12), budget=56.0)
    found = refine("demo", wrong, tmp_path / "out", settings=lost, keep=[old]).results["weights"]
    assert not found["candidates"][-1]["passed"]
    assert found["candidates"][-1]["pick_p"] is None
    assert "ruled out" in (tmp_path / "out" / "report.md").read_text()
    pulled = replace(lost, anchor_weight=100.0, budget=100.0)
    others = write_pairs(tmp_path / "others", 180, start=360)  # images by which a kept domain is judged are no anchors
    held = refine("demo", wrong, settings=pulled, anchor=others, keep=[old]).results["weights"]
    assert all(row["passed"] for row in held["candidates"])


def test_ffe_of_training_and_of_candidates_are_counted_within_the_budget(run):
    ffe = run[0]["ffe"]
    assert ffe["weights"] == 6 * 3 + 4 * 2  # epochs forward and twice backward; four candidates on two pick splits
    assert ffe["before_test"] == pytest.approx(ffe["search"] + ffe["pick"] + ffe["kept"] + ffe["weights"])
    assert ffe["before_test"] <= ffe["budget"]


def test_a_continued_run_trains_nothing_again_and_says_the_same(run, source, old):
    _, out = run
    written = (out / "results.json").read_bytes()
    again = Told()
    refine("demo", source, out, settings=SETTINGS, keep=[old], reporter=again)
    assert "Training projection" not in again.stages
    assert (out / "results.json").read_bytes() == written
    path = out / "trained-projection-seed0.safetensors"
    whole = bytearray(path.read_bytes())
    whole[-1] ^= 1
    path.write_bytes(whole)
    damaged = Told()
    refine("demo", source, out, settings=SETTINGS, keep=[old], reporter=damaged)
    assert "Training projection" in damaged.stages
    assert any("is damaged; it is trained again" in line for line in damaged.said)
    assert (out / "results.json").read_bytes() == written


def test_the_page_is_made_again_from_the_folder(run):
    _, out = run
    (out / "report.html").unlink()
    report(out)
    assert "prefers trained weights to all edits" in (out / "report.html").read_text()


def test_what_is_not_preferred_any_more_goes(source, tmp_path):
    out = tmp_path / "out"
    first = refine("demo", source, out, settings=SETTINGS).results
    assert first["weights"]["preferred"]
    assert "trained weights do to other data was not measured" in " ".join(first["warnings"])
    assert (out / "tuned-model").is_dir()
    strict = refine("demo", source, out, settings=replace(SETTINGS, level=1e-6)).results
    assert strict["weights"]["preferred"] is None
    assert not (out / "tuned-model").exists()
    assert "prefers none of them to the unchanged model" in (out / "report.md").read_text()
    assert json.loads((out / "results.json").read_text())["weights"]["preferred"] is None


def test_a_way_between_is_that_of_every_parameter(source):
    import headwise

    model = load("demo")
    pairs = headwise.read(source).subset(range(16))
    cache = pixels(pairs, model)
    texts = torch.randn(16, 192, generator=torch.Generator().manual_seed(0))
    loss = captions(texts, torch.arange(16).numpy(), 16, scale=20.0)
    fitted = fit("projection", model.tower, cache, loss, FitSettings(epochs=2, holdout=0.0))
    old, new = (dict(tower.parts.named_parameters()) for tower in (model.tower, fitted.tower))
    for alpha in (0.0, 0.3, 1.0):
        found = dict(between(model.tower, fitted.tower, alpha).parts.named_parameters())
        assert found.keys() == old.keys()
        for name, value in found.items():
            expected = (1 - alpha) * old[name].double() + alpha * new[name].double()
            assert torch.allclose(value.double(), expected, atol=1e-6)


# ---- what is refused before anything is searched


def test_labels_are_refused(tmp_path):
    folder = write_pairs(tmp_path, 30).parent / "images"
    for i, path in enumerate(sorted(folder.iterdir())):
        place = folder / ("a" if i % 2 else "b")
        place.mkdir(exist_ok=True)
        path.rename(place / path.name)
    with pytest.raises(HeadwiseError, match=r"projection is trained on captions, and .* has labels"):
        refine("demo", folder, tmp_path / "out", settings=replace(SETTINGS, budget=None))
    assert not (tmp_path / "out" / "results.json").exists()


def test_lora_without_peft_is_refused_before_data_are_read(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(HeadwiseError, match="needs peft"):
        refine("demo", tmp_path / "nothing.csv", settings=replace(SETTINGS, rungs=("mask", "lora"), budget=None))

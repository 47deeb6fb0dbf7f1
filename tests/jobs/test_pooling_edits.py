"""Edits that heads of attention pooling cannot have: every command leaves those heads out, and runs."""

import csv

import pytest
from conftest import randomise, write_pairs
from transformers import SiglipImageProcessor, SiglipVisionConfig, SiglipVisionModel

import headwise
from headwise.baselines import FitSettings
from headwise.jobs.explain import explain
from headwise.jobs.front import front
from headwise.jobs.report import report
from headwise.jobs.steps.front_settings import FrontSettings
from headwise.jobs.steps.settings import Settings
from headwise.jobs.sweep import sweep

BLOCKS = {f"L{layer}.H{head}" for layer in range(2) for head in range(4)}


@pytest.fixture(scope="module")
def model():
    config = SiglipVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8
    )
    module = randomise(SiglipVisionModel(config))
    return headwise.wrap(module, SiglipImageProcessor(size={"height": 32, "width": 32}), name="a small SigLIP")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    """Labels, as the model has no text tower."""
    path = write_pairs(tmp_path_factory.mktemp("pairs"), 48, splits=("search", "search", "pick", "test"))
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    with path.open("w", newline="", encoding="utf-8") as file:
        lines = [[row["image"], ("circle", "arrow")[i // 4 % 2], row["split"]] for i, row in enumerate(rows)]
        csv.writer(file).writerows([["image", "label", "split"], *lines])
    return path


@pytest.mark.parametrize("operator", ["keys", "self"])
def test_heads_of_pooling_are_left_out(model, pairs, tmp_path, operator):
    assert {str(head) for head in model.tower.able(operator)} == BLOCKS
    assert len(model.tower.able("zero")) == 12
    _, swept = sweep(model, pairs, operator=operator)
    assert {row["head"] for row in swept["sweep"]["heads"]} == BLOCKS
    settings = Settings(operators=(operator,), budget=30.0, controls=2, finalists=3)
    found = headwise.refine(model, pairs, tmp_path / "run", settings=settings)
    assert set(map(str, found.mask.heads)) <= BLOCKS or found.results["chosen"]["found_by"] in ("scale", "spectral")
    traded = front(model, pairs, tmp_path / "front", settings=FrontSettings(operator=operator, budget=60.0))
    assert all("pool" not in point["mask"] for point in traded.results["points"])
    explained = explain(model, pairs, tmp_path / "run" / "explanation", operator=operator)
    assert {head["head"] for head in explained["heads"]} == BLOCKS
    page = report(tmp_path / "run")
    assert "left out" not in (tmp_path / "run" / "report.html").read_text()
    assert page is not None
    settings = headwise.CompareSettings(
        strategies=("greedy", "ga"), repeats=1, search=settings, training=FitSettings(epochs=1)
    )
    rows = headwise.compare(model, pairs, tmp_path / "compare", settings=settings)["rows"]
    assert "ga" in {row["method"] for row in rows}

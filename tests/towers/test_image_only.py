"""A model without a text tower: refine by classification with class means, from labelled images to the merged model."""

import csv

import golden
import numpy as np
import pytest
import torch
from cases import timm_model
from PIL import Image

from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation import engine
from headwise.evaluation.layout import Plan
from headwise.jobs.evaluate import evaluate
from headwise.jobs.refine import refine
from headwise.jobs.steps.opening import Machine
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.tasks import Goal
from headwise.towers import load, wrap


@pytest.fixture
def shapes(tmp_path):
    """Pictures of three colours with noise, as a table with labels."""
    rng = np.random.default_rng(0)
    with (tmp_path / "shapes.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["image", "label"])
        for i in range(45):
            pixels = rng.integers(0, 120, (32, 32, 3), dtype=np.uint8)
            pixels[..., i % 3] += 60
            Image.fromarray(pixels).save(tmp_path / f"{i}.png")
            writer.writerow([f"{i}.png", ("red", "green", "blue")[i % 3]])
    return tmp_path / "shapes.csv"


def test_an_image_only_model_is_refined_and_merged(shapes, tmp_path):
    model = wrap(golden.randomise(timm_model("test_vit", num_classes=0)), name="timm:test_vit")
    machine = Machine("float32", cache_dir=tmp_path / "cache")
    settings = Settings(operators=("zero",), strategies=("greedy",), controls=2, finalists=3, max_heads=2)
    found = refine(model, shapes, tmp_path / "out", settings=settings, machine=machine)
    assert found.results["settings"]["objective"]["name"] == "prototypes"
    assert "each class is the mean of its own images" in (tmp_path / "out" / "report.md").read_text()
    merged = load(f"timm:local-dir:{tmp_path / 'out' / 'model'}")
    scored = evaluate(merged, shapes, machine=machine)
    assert scored["task"] == "prototypes"
    masked = evaluate(model, shapes, found.mask, machine=machine)
    assert scored["metrics"] == masked["metrics"]


def test_gradients_are_taken_of_class_means_too(shapes, tmp_path):
    model = wrap(golden.randomise(timm_model("test_vit", num_classes=0)), name="timm:test_vit")
    settings = Settings(operators=("zero",), strategies=("bp",), controls=2, finalists=3, max_heads=2)
    machine = Machine("float32", cache_dir=tmp_path / "cache")
    found = refine(model, shapes, tmp_path / "out", settings=settings, machine=machine)
    learned = next(strategy for strategy in found.results["strategies"] if strategy["name"] == "bp")
    assert set(learned["gates"]) == {str(head) for head in model.tower.grid}
    assert len(set(learned["gates"].values())) > 1


def test_the_score_is_that_of_class_means_made_by_hand(shapes, tmp_path):
    model = wrap(golden.randomise(timm_model("test_vit", num_classes=0)), name="timm:test_vit")
    mask = Mask.suppress(model.tower.grid, ["L0.H0", "L3.H1"])
    found = evaluate(model, shapes, mask, machine=Machine("float32", cache_dir=tmp_path / "cache"))
    pictures = [Image.open(shapes.parent / f"{i}.png").convert("RGB") for i in range(45)]
    pixels = torch.stack([model.preprocess(picture) for picture in pictures])
    x = dict(engine.embed(model.tower, pixels, [mask], Plan("float32")))[mask]
    x = torch.nn.functional.normalize(x.double(), dim=1)
    right = 0
    for i in range(45):
        means = torch.stack([x[[j for j in range(c, 45, 3) if j != i]].sum(0) for c in range(3)])
        right += int((torch.nn.functional.normalize(means, dim=1) @ x[i]).argmax()) == i % 3
    assert found["metrics"]["acc1"] == pytest.approx(right / 45)


def test_what_prototypes_do_not_use_is_refused(shapes, tmp_path):
    model = wrap(timm_model("test_vit", num_classes=0), name="timm:test_vit")
    with pytest.raises(HeadwiseError, match="templates and class names"):
        evaluate(model, shapes, goal=Goal(templates="openai7"))
    with pytest.raises(HeadwiseError, match="images with labels"):
        evaluate(model, "demo")

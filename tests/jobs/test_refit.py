"""`--refit`: what was chosen is learned again from search and pick images, at the same α; that is tested and handed out."""

import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import write_pairs
from told import Told

from headwise.data.cache import pixels
from headwise.data.read import read
from headwise.data.splits import split
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import embed
from headwise.evaluation.layout import plan
from headwise.evaluation.moments import head_moments
from headwise.jobs.evaluate import evaluate
from headwise.jobs.refine import refine
from headwise.jobs.steps.bench import prepare
from headwise.jobs.steps.choosing import pick
from headwise.jobs.steps.keeping import with_kept
from headwise.jobs.steps.learning import learn
from headwise.jobs.steps.opening import Machine
from headwise.jobs.steps.refitting import refit
from headwise.jobs.steps.settings import Settings
from headwise.jobs.take import take
from headwise.reports.beside import refit_sentence
from headwise.scoring.losses.captions import captions
from headwise.search.values import ValueSettings, learn_values
from headwise.towers import load

EXACT = Machine(dtype="float32")
SETTINGS = Settings(
    rungs=("scale", "projection"),
    budget=120.0,
    controls=1,
    level=0.95,  # on so few images hardly anything is shown; what is learned again is the matter here
    values=ValueSettings(epochs=4),
    refit=True,
)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), 120, splits=("search", "search", "pick", "test"))


@pytest.fixture(scope="module")
def run(source, tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return refine("demo", source, out, settings=SETTINGS, machine=EXACT), out


def rows(results) -> dict:
    return {row["what"]: row for row in results["test"]}


def test_what_is_handed_out_is_learned_from_both_splits_at_the_alpha_that_was_chosen(run, source):
    found, out = run
    again = found.results["refit"]
    assert again["taken"]
    (chosen,) = (row for row in found.results["finalists"] if row["chosen"])
    assert chosen["found_by"] == f"scale, α {again['alpha']:g}"
    model, pairs = load("demo"), read(source, split=None)
    both = [i for i, part in enumerate(pairs.splits) if part in ("search", "pick")]
    assert again["images"] == len(both) == 90
    subset = pairs.subset(both)
    images = pixels(subset, model).take(range(90))
    learned = learn_values(
        model.tower,
        images,
        captions(model.encode_texts(subset.texts), torch.tensor(subset.owner), 90, scale=model.logit_scale),
        ValueSettings(learn=("scale",), epochs=4),
        head_moments(model.tower, images, plan(model.tower, dtype="float32")),
    )
    expected = learned.mask.shrunk(again["alpha"])
    written = Mask.from_pretrained(out)
    assert written.heads == expected.heads
    for head in expected.heads:
        assert written.edit(head).gate == pytest.approx(expected.edit(head).gate, abs=1e-4)


def test_the_test_split_judges_it_and_shows_what_was_chosen_beside_it(run, source, tmp_path):
    found, out = run
    table = rows(found.results)
    told = evaluate("demo", source, only_split="test", mask=str(out), machine=EXACT)
    assert table["chosen"]["metrics"] == pytest.approx(told["metrics"], abs=1e-9)
    shutil.copytree(out, tmp_path / "copy")  # taking notes that the test split is read
    taken = take(tmp_path / "copy", found.results["chosen"]["found_by"], tmp_path / "taken", machine=EXACT).results
    before = table["before refit"]
    assert before["metrics"] != table["chosen"]["metrics"]
    assert rows(taken)["chosen"]["metrics"] == before["metrics"]
    assert "refit" not in taken
    assert found.results["gap"]["test_delta"] == before["delta"]
    assert "learned again from all 90 images" in (out / "report.md").read_text()
    memory = found.mask.provenance
    assert set(memory["scores"]) == {"test"}
    assert set(memory["seen"]) == {"search", "pick"}


def test_the_page_shows_the_queries_of_what_is_handed_out_not_of_another_alpha(run, source):
    found, out = run
    pairs = read(source, split=None)
    evaluate = prepare(load("demo"), pairs, split(pairs), dtype="float32", study=None).evaluator("test")
    before, after = evaluate([Mask.identity(found.mask.grid), found.mask])
    names = ("image_retrieval", "text_retrieval")
    old, new = (np.concatenate([score.ranks[name] for name in names]) for score in (before, after))
    found_at = [sum((ranks < k).astype(int) for k in (1, 5, 10)) for ranks in (old, new)]  # queries cross 1, 5 or 10
    gained, lost = int((found_at[1] > found_at[0]).sum()), int((found_at[1] < found_at[0]).sum())
    assert gained + lost > 0
    assert f"{gained} of {len(old)} queries gained, {lost} lost" in (out / "report.html").read_text()


def test_preferred_weights_are_trained_again_and_written(run, source):
    found, out = run
    weights = found.results["weights"]
    assert weights["preferred"]["refit"]
    names = [row["what"] for row in weights["test"]]
    assert names == [weights["preferred"]["name"].removesuffix(", refit"), weights["preferred"]["name"]]
    before, after = weights["test"]
    assert before["metrics"] != after["metrics"]
    told = evaluate(str(out / "tuned-model"), source, only_split="test", machine=EXACT)
    assert told["metrics"] == pytest.approx(after["metrics"], abs=0.03)  # float16 on disk may turn a tie


def test_a_continued_run_learns_nothing_again_and_ends_with_the_same(run, source):
    found, out = run
    told = Told()
    (out / "results.json").unlink()
    again = refine("demo", source, out, settings=SETTINGS, machine=EXACT, reporter=told)
    assert again.results == found.results
    assert again.mask == found.mask
    assert not any("Training" in stage for stage in told.stages)


def test_learning_again_is_in_the_plan_and_in_what_was_spent(run, source):
    found, _ = run
    ffe = found.results["ffe"]
    assert ffe["refit"] == pytest.approx(1.5 * (4 * 2 + 1))  # epochs forward and backward, and the moments
    assert ffe["before_test"] <= SETTINGS.budget
    stages = refine("demo", source, settings=SETTINGS, dry_run=True).results["stages"]
    (stage,) = (one for one in stages if one["stage"] == "learning again what was chosen")
    assert stage["ffe"] == pytest.approx(1.5 * (4 * 2 + 1 + 4 * 3))


def test_where_the_budget_does_not_pay_for_it_the_choice_is_handed_out_as_it_is(source):
    poor = replace(SETTINGS, rungs=("scale",), budget=24.0)
    results = refine("demo", source, settings=poor, machine=EXACT).results
    assert "refit" not in results
    assert not any(row["what"] == "before refit" for row in results["test"])
    stages = refine("demo", source, settings=poor, dry_run=True).results["stages"]
    assert not any("again" in one["stage"] for one in stages)


def test_masks_are_searched_and_stay(source):
    settings = replace(SETTINGS, rungs=("mask",), strategies=("greedy",), width=2, sweep=False, budget=40.0)
    assert "refit" not in refine("demo", source, settings=settings, machine=EXACT).results


def test_a_kept_domain_bounds_it_as_it_bounds_the_choice(run, source, tmp_path):
    model, pairs = load("demo"), read(source, split=None)
    old = read(write_pairs(tmp_path, 60, start=300), split=None)
    own = prepare(model, pairs, split(pairs), dtype="float32", study=None)
    bench = with_kept(own, [prepare(model, old, split(old), dtype="float32", study=None)])
    violent = ValueSettings(epochs=1, learning_rate=9.0)  # every scale is 0 or 2 then
    settings = replace(SETTINGS, rungs=("scale",), values=violent, max_loss=100.0, level=0.9999)
    evaluate = bench.evaluator("search")
    searched = [learn(bench, evaluate, "scale", settings, lambda: math.inf)]
    picked = pick(bench, searched, settings)
    at = next(i for i, one in enumerate(picked.finalists) if one.found_by == "scale, α 1")
    picked = replace(picked, choice=replace(picked.choice, index=at))
    free = refit(bench, searched, picked, settings, None)
    assert free.taken
    lost = -100 * free.kept[0].delta
    assert lost > 1
    assert refit(bench, searched, picked, replace(settings, max_loss=lost + 0.01), None).taken
    bound = refit(bench, searched, picked, replace(settings, max_loss=lost - 0.01), None)
    assert not bound.taken
    assert "stays as it was" in refit_sentence(bound.json())


def test_with_anchors_it_is_held_to_them_again_and_how_far_it_moves_them_is_told(source, tmp_path):
    old = write_pairs(tmp_path, 40, start=300)
    settings = replace(SETTINGS, rungs=("scale",), anchor_weight=3.0, values=ValueSettings(epochs=2))
    found = refine("demo", source, settings=settings, anchor=old, machine=EXACT)
    assert found.results["refit"]["taken"]
    assert found.results["ffe"]["before_test"] <= settings.budget
    model, images = load("demo"), read(old, split=None)
    pixel = pixels(images, model).take(range(40))
    layout = plan(model.tower, dtype="float32")
    both = dict(embed(model.tower, pixel, [Mask.identity(model.tower.grid), found.mask], layout))
    before, after = both[Mask.identity(model.tower.grid)], both[found.mask]
    moved = (1 - torch.cosine_similarity(before, after)).mean()
    assert found.results["anchors"]["moved"] == pytest.approx(float(moved), rel=1e-3)
    free = refine("demo", source, settings=replace(settings, anchor_weight=0.001), anchor=old, machine=EXACT)
    assert free.results["anchors"]["moved"] > 1.5 * found.results["anchors"]["moved"]


def test_a_budget_that_is_too_small_for_anything_is_said_as_ever(source):
    with pytest.raises(HeadwiseError, match="too small"):
        refine("demo", source, settings=replace(SETTINGS, budget=2.0))

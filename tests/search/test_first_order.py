import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import HEAD, SCALE, planted

from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import embed, ffe
from headwise.evaluation.evaluator import Evaluator
from headwise.evaluation.layout import plan
from headwise.scoring.losses import captions, loss_of
from headwise.scoring.objectives import Classification, Retrieval
from headwise.scoring.ranking import retrieve
from headwise.search.first_order import EDITS, agreement, edits_of, first_order
from headwise.search.greedy import greedy
from headwise.search.sweep import sweep


def scores(case, operator, loss="softmax", bias=0.0, **options):
    memory = captions(case.texts, case.owner, len(case.images), loss=loss, scale=SCALE, bias=bias)
    return first_order(case.tower, case.images, memory, [operator], **options)


def evaluator(case):
    objective = Retrieval(case.texts, case.owner, scale=SCALE)
    return Evaluator(case.tower, plan(case.tower, dtype="float32"), case.images, objective)


@pytest.fixture(scope="module")
def case():
    return planted("zero")


@pytest.mark.parametrize("operator", ["zero", "uniform", "mean"])
@pytest.mark.parametrize(("loss", "bias"), [("softmax", 0.0), ("sigmoid", -10.0)])
def test_scores_are_the_slope_of_the_loss_that_evaluation_reports(case, operator, loss, bias):
    double = replace(case, tower=case.tower.cast("cpu", torch.float64), images=case.images.double())
    found = scores(double, operator, loss=loss, bias=bias)

    def value(head, gate):
        mask = Mask.suppress(case.tower.grid, [head], f"{operator}({gate})")
        ((_, embeddings),) = embed(case.tower, case.images, [mask], plan(case.tower, dtype="float32"), means=case.means)
        return retrieve(embeddings, case.texts, case.owner, loss=loss, scale=SCALE, bias=bias).loss

    identity = value(Head.parse(HEAD), 1.0)
    assert found.loss == pytest.approx(identity, rel=1e-4)
    steepest = max(map(abs, found.scores[operator].values()))
    for head, score in found.scores[operator].items():
        # gates end at 1, so the slope comes from two steps to one side (second order)
        slope = (3 * identity - 4 * value(head, 0.99) + value(head, 0.98)) / 0.02
        assert score == pytest.approx(slope, abs=0.02 * steepest)


@pytest.mark.parametrize("operator", ["zero", "uniform"])
def test_the_harmful_head_comes_first_with_a_positive_score(operator):
    case = planted(operator)
    found = scores(case, operator)
    assert found.ranking(operator)[0] == Head.parse(HEAD)
    assert found.scores[operator][Head.parse(HEAD)] > 0
    assert sorted(found.ranking(operator)) == list(case.tower.grid)


def test_one_pass_ranks_every_head_and_every_edit(case):
    """Each column is what a pass of its own gives, and the pair that undoes the harm leads."""
    memory = captions(case.texts, case.owner, len(case.images), loss="softmax", scale=SCALE)
    edits = edits_of(case.tower, ["scale(0.5)"])
    assert edits[0] == "scale(0.5)"
    assert set(EDITS) < set(edits)
    found = first_order(case.tower, case.images, memory, edits)
    assert list(found.scores) == list(edits)
    for edit in edits:
        assert found.scores[edit] == scores(case, edit).scores[edit]
    for head, score in found.scores["zero"].items():
        assert found.scores["scale(0.5)"][head] == pytest.approx(0.5 * score, abs=1e-6)
        assert found.scores["scale(1.5)"][head] == pytest.approx(-0.5 * score, abs=1e-6)
    assert len(found.ranked) == len(edits) * case.tower.grid.size
    head, edit = found.ranked[0]
    assert str(head) == HEAD
    best = max(score for column in found.scores.values() for score in column.values())
    assert found.scores[edit][head] == best


def test_edits_that_compute_attention_again_cost_what_they_add(case):
    """Three passes, and for keys, queries and temperatures the attention of their heads once more."""
    one = {edit: scores(case, edit).spent for edit in ("zero", "uniform", "keys", "temperature(2)")}
    assert one["zero"] == one["uniform"] == 3.0
    identity = ffe(case.tower, [Mask.identity(case.tower.grid)])
    keys = ffe(case.tower, [Mask.suppress(case.tower.grid, list(case.tower.grid), "keys")]) - identity
    assert one["keys"] == one["temperature(2)"] == pytest.approx(3.0 + keys)
    assert 0 < keys < 0.2


def test_the_chunk_does_not_change_the_scores(case):
    one, few = (scores(case, "zero", chunk=chunk).scores["zero"] for chunk in (32, 7))
    for head, score in one.items():
        assert few[head] == pytest.approx(score, abs=1e-4)
    assert scores(case, "zero").scores["zero"] == one


def test_the_ranking_stands_in_for_the_sweep_and_agrees_with_it(case):
    found, evaluate = scores(case, "zero"), evaluator(case)
    exact = sweep(evaluate, case.tower.grid, "zero")
    singles = [effect.found for effect in exact.heads]
    assert found.loss == pytest.approx(exact.identity.loss, rel=1e-4)
    rank = agreement(found, "zero", singles, exact.identity)
    assert rank["loss"] > 0.5
    assert -1 <= rank["fitness"] <= 1
    assert rank["heads"] == case.tower.grid.size
    assert agreement(found, "zero", singles[:5], exact.identity)["heads"] == 5
    grown = greedy(evaluate, case.tower.grid, "zero", found.ranking("zero"), width=2, max_heads=1)
    assert grown.best.mask == Mask.suppress(case.tower.grid, [HEAD])


def test_agreement_is_undefined_without_differences_and_of_other_edits(case):
    found, exact = scores(case, "zero"), sweep(evaluator(case), case.tower.grid, "zero")
    singles = [effect.found for effect in exact.heads]
    flat = [replace(one, score=exact.identity) for one in singles]
    assert math.isnan(agreement(found, "zero", flat, exact.identity)["fitness"])
    other = [replace(one, mask=Mask.suppress(case.tower.grid, one.mask.heads, "uniform")) for one in singles]
    assert agreement(found, "zero", other, exact.identity)["heads"] == 0


def test_the_model_is_left_as_it_was_and_progress_adds_up(case):
    before = {name: value.clone() for name, value in case.tower.parts.state_dict().items()}
    done = []
    found = scores(case, "uniform", progress=done.append)
    assert sum(done) == pytest.approx(found.spent)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in case.tower.parts.parameters())
    assert all(torch.equal(value, before[name]) for name, value in case.tower.parts.state_dict().items())


def test_bad_input_is_refused(case):
    with pytest.raises(HeadwiseError, match="not an edit"):
        scores(case, "sharpen")
    with pytest.raises(HeadwiseError, match="not finite"):
        scores(replace(case, images=case.images * float("inf")), "zero")
    with pytest.raises(HeadwiseError, match="chunk"):
        scores(case, "zero", chunk=0)


def test_labels_slope_of_the_cross_entropy_that_evaluation_reports(case):
    double = replace(case, tower=case.tower.cast("cpu", torch.float64), images=case.images.double())
    classes = torch.randn(5, case.texts.shape[1], generator=torch.Generator().manual_seed(3)).double()
    labels = np.arange(len(case.images)) % 5
    objective = Classification(classes, labels, scale=SCALE)
    found = first_order(double.tower, double.images, loss_of(objective), ["zero"], chunk=7)

    def value(head, gate):
        mask = Mask.suppress(case.tower.grid, [head], f"scale({gate})")
        ((_, embeddings),) = embed(case.tower, case.images, [mask], plan(case.tower, dtype="float32"))
        return objective(embeddings).loss

    identity = value(Head.parse(HEAD), 1.0)
    assert found.loss == pytest.approx(identity, rel=1e-4)
    steepest = max(map(abs, found.scores["zero"].values()))
    for head, score in found.scores["zero"].items():
        slope = (3 * identity - 4 * value(head, 0.99) + value(head, 0.98)) / 0.02
        assert score == pytest.approx(slope, abs=0.02 * steepest)

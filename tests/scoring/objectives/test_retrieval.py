"""The retrieval objective: what searches maximise and what a study stores."""

import json

import numpy as np
import pytest
import torch

from headwise.errors import HeadwiseError
from headwise.scoring.objectives import Retrieval
from headwise.scoring.ranking import retrieve


def problem(images=30, captions=3, noise=1.0):
    g = torch.Generator().manual_seed(0)
    x = torch.randn(images, 16, generator=g)
    owner = np.repeat(np.arange(images), captions)
    return x, x[owner] + noise * torch.randn(len(owner), 16, generator=g), owner


def test_a_better_embedding_gets_a_higher_score():
    images, texts, owner = problem()
    objective = Retrieval(texts, owner)
    good, bad = objective(images), objective(images.roll(1, 0))
    assert good.order > bad.order
    assert good.fitness == pytest.approx(good.metrics["mean_recall"]) == pytest.approx(good.units.mean())
    assert good.fitness > 0.5 > bad.fitness


def test_loss_breaks_ties_of_fitness():
    images, texts, owner = problem(noise=0.1)
    objective = Retrieval(texts, owner)
    sharp, blunt = objective(images), objective(images + 0.3 * images.roll(1, 0))
    assert sharp.fitness == blunt.fitness == 1
    assert sharp.order > blunt.order


def test_a_score_is_computed_again_from_its_ranks():
    images, texts, owner = problem()
    objective = Retrieval(texts, owner, loss="sigmoid", scale=10, bias=-5)
    score = objective(images)
    again = objective.score_from_ranks(score.ranks, score.loss)
    assert (again.fitness, again.loss, again.metrics) == (score.fitness, score.loss, score.metrics)
    assert np.array_equal(again.units, score.units)


def test_the_objective_equals_the_tiled_evaluation():
    images, texts, owner = problem()
    score, found = Retrieval(texts, owner)(images), retrieve(images, texts, owner, tile=50)
    assert np.array_equal(score.ranks["image_retrieval"], found.image_retrieval)
    assert np.array_equal(score.ranks["text_retrieval"], found.text_retrieval)


def test_the_spec_is_json_and_changes_with_the_settings():
    _, texts, owner = problem()
    spec = Retrieval(texts, owner).spec
    assert json.loads(json.dumps(spec)) == spec
    assert spec != Retrieval(texts, owner, scale=10).spec


def test_bad_input_is_a_clear_error():
    images, texts, owner = problem()
    with pytest.raises(HeadwiseError, match="about 30 images; 29"):
        Retrieval(texts, owner)(images[1:])
    images[7, 3] = float("nan")
    with pytest.raises(HeadwiseError, match=r"image 7 .* not finite"):
        Retrieval(texts, owner)(images)
    with pytest.raises(HeadwiseError, match="not a loss"):
        Retrieval(texts, owner, loss="hinge")

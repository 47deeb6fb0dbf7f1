"""Weighted sums of objectives over several data sets."""

import json
import math

import numpy as np
import pytest
import torch

from headwise.errors import HeadwiseError
from headwise.scoring.objectives import Classification, Combined, Part, Retrieval, SingleObject


def parts():
    g = torch.Generator().manual_seed(0)
    images = torch.randn(50, 16, generator=g)
    retrieval = Retrieval(images[:20] + torch.randn(20, 16, generator=g), np.arange(20))
    classes = Classification(torch.randn(6, 16, generator=g), np.arange(30) % 6)
    return images, (Part("pairs", retrieval, 0, 3.0), Part("birds", classes, 20, 1.0))


def test_the_fitness_is_the_weighted_mean_of_the_parts():
    images, given = parts()
    objective = Combined(given)
    score = objective(images)
    first, second = given[0].objective(images[:20]), given[1].objective(images[20:])
    assert score.fitness == pytest.approx(0.75 * first.fitness + 0.25 * second.fitness)
    assert score.loss == pytest.approx(0.75 * first.loss + 0.25 * second.loss)
    assert score.metrics["birds/acc1"] == second.metrics["acc1"]
    assert score.units.mean() == pytest.approx(score.fitness, rel=1e-5)
    assert len(score.units) == 50
    assert json.loads(json.dumps(objective.spec)) == objective.spec


def test_parts_that_count_in_fine_steps_keep_their_weights():
    """Balanced classes and average precision have no common denominator of a usable size with captions."""
    g, rng = torch.Generator().manual_seed(1), np.random.default_rng(1)
    images, owner = torch.randn(299, 8, generator=g), np.repeat(np.arange(299), 5)
    retrieval = Retrieval(images[owner] + torch.randn(len(owner), 8, generator=g), owner)
    labels = np.repeat(np.arange(101), rng.integers(31, 90, 101))
    embedded = torch.randn(101, 8, generator=g)[labels] + torch.randn(len(labels), 8, generator=g)
    classes = Classification(torch.randn(101, 8, generator=g), labels, fitness="mean_per_class_recall")
    queries = SingleObject(torch.randn(320, 8, generator=g), rng.random((200, 320)) < 0.3)
    pictures = torch.randn(200, 8, generator=g)
    weights, each = (0.7, 0.2, 0.1), [(retrieval, images), (queries, pictures), (classes, embedded)]
    starts = np.cumsum([0, *(one.images for one, _ in each)])
    whole = Combined(tuple(Part(f"p{k}", one, int(starts[k]), weights[k]) for k, (one, _) in enumerate(each)))
    expected = sum(w * one(x).fitness for w, (one, x) in zip(weights, each, strict=True))
    score = whole(torch.cat([x for _, x in each]))
    assert score.fitness == pytest.approx(expected, abs=1e-9)
    assert score.units.mean() == pytest.approx(expected, abs=1e-9)


def test_a_score_is_computed_again_from_its_ranks():
    images, given = parts()
    objective = Combined(given)
    score = objective(images)
    again = objective.score_from_ranks(score.ranks, score.loss)
    assert (again.fitness, again.loss, again.metrics) == (score.fitness, score.loss, score.metrics)
    assert np.array_equal(again.units, score.units)


def test_parts_may_share_images():
    images, given = parts()
    shared = Combined((Part("a", given[1].objective), Part("b", given[1].objective)))
    assert shared.images == 30
    assert shared(images[20:]).fitness == pytest.approx(given[1].objective(images[20:]).fitness)


def test_bad_input_is_a_clear_error():
    images, given = parts()
    with pytest.raises(HeadwiseError, match="different names"):
        Combined((given[0], given[0]))
    with pytest.raises(HeadwiseError, match="different names"):
        Combined(())
    with pytest.raises(HeadwiseError, match="weight above 0"):
        Combined((Part("a", given[0].objective, 0, math.nan),))
    with pytest.raises(HeadwiseError, match="about 50 images"):
        Combined(given)(images[1:])

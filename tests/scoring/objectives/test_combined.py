"""Weighted sums of objectives over several data sets."""

import json
import math

import numpy as np
import pytest
import torch

from headwise.errors import HeadwiseError
from headwise.scoring.objectives import Classification, Combined, Part, Retrieval


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

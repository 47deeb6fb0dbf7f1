"""Scores through the study: nothing is run twice, and what a search sees does not depend on where scores come from."""

import numpy as np
import pytest
import torch

from headwise.edits.mask import Mask
from headwise.evaluation.engine import ffe
from headwise.evaluation.evaluator import Evaluator
from headwise.evaluation.layout import Plan
from headwise.evaluation.study import Study
from headwise.scoring.objectives import Retrieval


class Counting:
    """Images that count how often they are read."""

    def __init__(self, images):
        self.images, self.reads = images, 0

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.reads += 1
        return self.images[index]


@pytest.fixture
def make(tower, images):
    texts = torch.randn(len(images) * 2, 24, generator=torch.Generator().manual_seed(2))
    objective = Retrieval(texts, np.repeat(np.arange(len(images)), 2), scale=20.0)

    def build(study=None):
        return Evaluator(tower, Plan(chunk=4), Counting(images), objective, study)

    return build


def test_masks_are_scored_once_and_in_order(make, tower):
    evaluate = make()
    masks = [Mask.suppress(tower.grid, [head]) for head in tower.grid]
    first = evaluate(masks)
    reads = evaluate.pixels.reads
    assert evaluate(masks[::-1]) == first[::-1]
    assert evaluate([masks[3], masks[3]])[1] is first[3]
    assert evaluate.pixels.reads == reads
    assert evaluate.spent == pytest.approx(ffe(tower, masks))
    assert evaluate.cost(masks) == 0


def test_a_second_run_reads_the_study_and_counts_the_same(make, tower, tmp_path):
    masks = [Mask.suppress(tower.grid, [head]) for head in tower.grid]
    with Study(tmp_path / "s.sqlite", {"a": 1}) as study:
        evaluate = make(study)
        evaluate(masks[:5])
        evaluate(masks)
    done: list[float] = []
    with Study(tmp_path / "s.sqlite", {"a": 1}) as study:
        again = make(study)
        again.progress = done.append
        scores = again(masks[:5]) + again(masks)
        assert again.pixels.reads == 0
    assert again.spent == evaluate.spent == pytest.approx(sum(done))
    for score, old in zip(scores[5:], evaluate(masks), strict=True):
        assert score.fitness == old.fitness
        assert score.loss == old.loss
        np.testing.assert_array_equal(score.units, old.units)


def test_scores_are_those_of_the_librarys_own_embeddings(make, tower, clip_module, images):
    evaluate = make()
    with torch.no_grad():
        own = clip_module(pixel_values=images).image_embeds
    expected = evaluate.objective(own)
    score = evaluate([Mask.identity(tower.grid)])[0]
    assert score.metrics == expected.metrics
    assert score.loss == pytest.approx(expected.loss, rel=1e-5)


def test_the_course_says_what_the_best_was_after_every_call_resumed_or_not(make, tower, tmp_path):
    masks = [Mask.suppress(tower.grid, [head]) for head in tower.grid]
    parts = {"first": masks[:2], "again": masks[:2], "second": masks[1:6], "third": masks}
    alone = [make()([mask])[0].fitness for mask in masks]
    courses = []
    for _ in range(2):  # the second finds all in the study
        with Study(tmp_path / "s.sqlite", {"a": 1}) as study:
            evaluate = make(study)
            for evaluate.stage, part in parts.items():
                evaluate(part)
            courses.append(evaluate.course)
    assert courses[0] == courses[1]
    course = courses[0]
    assert [one.stage for one in course] == ["first", "second", "third"]  # asking again reaches nothing
    assert [one.fitness for one in course] == [max(alone[:2]), max(alone[:6]), max(alone)]
    assert course[0].ffe == pytest.approx(ffe(tower, masks[:2]))
    assert course[-1].ffe == evaluate.spent

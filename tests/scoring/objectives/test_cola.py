"""Cola's two settings against their published definitions."""

import numpy as np
import pytest
import torch

from headwise.errors import HeadwiseError
from headwise.scoring.objectives import MultiObject, SingleObject


def test_multi_object_is_right_only_if_both_captions_prefer_their_image():
    g = torch.Generator().manual_seed(0)
    images, texts = torch.randn(40, 8, generator=g), torch.randn(40, 8, generator=g)
    names = [f"pair {i % 20}" for i in range(40)]  # image i and image i + 20
    objective = MultiObject(texts, MultiObject.partners(names))
    score = objective(images)
    s = torch.nn.functional.normalize(images, dim=1) @ torch.nn.functional.normalize(texts, dim=1).T
    right = [bool(s[i, i] > s[i + 20, i] and s[i + 20, i + 20] > s[i, i + 20]) for i in range(20)]
    assert score.units.tolist() == right
    assert score.fitness == score.metrics["multi_object_acc"] == pytest.approx(np.mean(right))
    assert np.array_equal(objective.score_from_ranks(score.ranks, score.loss).units, score.units)
    assert 0 < score.fitness < 1


def test_multi_object_at_chance_is_a_quarter_and_ties_are_wrong():
    g = torch.Generator().manual_seed(1)
    images, texts = torch.randn(4000, 8, generator=g), torch.randn(4000, 8, generator=g)
    partner = MultiObject.partners([str(i // 2) for i in range(4000)])
    assert MultiObject(texts, partner)(images).fitness == pytest.approx(0.25, abs=0.03)
    assert MultiObject(texts, partner)(images[:1].expand(4000, -1)).fitness == 0


def test_single_object_is_mean_average_precision_on_the_counted_images():
    g = torch.Generator().manual_seed(2)
    rng = np.random.default_rng(2)
    images, texts = torch.randn(30, 8, generator=g), torch.randn(5, 8, generator=g)
    present, counted = rng.random((30, 5)) < 0.3, rng.random((30, 5)) < 0.7
    present[:, 4] = False  # a query that holds for no image is left out
    objective = SingleObject(texts, present, counted)
    score = objective(images)
    s = (torch.nn.functional.normalize(images, dim=1) @ torch.nn.functional.normalize(texts, dim=1).T).numpy()
    expected = []
    for c in range(4):
        order = np.flatnonzero(counted[:, c])[np.argsort(-s[counted[:, c], c])]
        hit = present[order, c]
        expected.append((np.cumsum(hit) / np.arange(1, len(hit) + 1))[hit].mean())
    assert score.units == pytest.approx(np.array(expected), rel=1e-6)
    assert score.fitness == score.metrics["mean_average_precision"] == pytest.approx(np.mean(expected))
    assert np.array_equal(objective.score_from_ranks(score.ranks, score.loss).units, score.units)


def test_single_object_of_a_collapsed_embedding_is_the_share_of_positives():
    present = np.arange(20)[:, None] < 5
    texts = torch.randn(1, 8, generator=torch.Generator().manual_seed(3))
    assert SingleObject(texts, present)(torch.ones(20, 8)).fitness == pytest.approx(5 / 20)


def test_bad_input_is_a_clear_error():
    texts = torch.ones(4, 2)
    with pytest.raises(HeadwiseError, match="pair 'b' has 1"):
        MultiObject.partners(["a", "a", "b"])
    with pytest.raises(HeadwiseError, match="come in pairs"):
        MultiObject(texts, np.array([1, 2, 3, 0]))
    with pytest.raises(HeadwiseError, match="one caption per image"):
        MultiObject(texts[:3], np.array([1, 0, 3, 2]))
    with pytest.raises(HeadwiseError, match="images × 4 queries"):
        SingleObject(texts, np.ones((3, 2)))
    with pytest.raises(HeadwiseError, match="nothing to retrieve"):
        SingleObject(texts, np.zeros((3, 4)))

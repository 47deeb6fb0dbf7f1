"""Zero-shot classification against scikit-style definitions, worst groups, and ties."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.errors import HeadwiseError
from headwise.scoring.objectives import Classification


def problem(images=60, classes=7, seed=0, noise=2.0):
    g = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(classes, 16, generator=g)
    labels = torch.randint(classes, (images,), generator=g)
    return prototypes[labels] + noise * torch.randn(images, 16, generator=g), prototypes, labels.numpy()


@given(seed=st.integers(0, 1000), classes=st.integers(2, 9))
@settings(max_examples=40, deadline=None)
def test_metrics_equal_topk_on_the_similarities(seed, classes):
    x, prototypes, labels = problem(classes=classes, seed=seed)
    score = Classification(prototypes, labels)(x)
    normal = torch.nn.functional.normalize
    logits = normal(x.double(), dim=1) @ normal(prototypes.double(), dim=1).T
    right = logits.argmax(1).numpy() == labels
    assert score.metrics["acc1"] == pytest.approx(right.mean())
    recalls = [right[labels == c].mean() for c in np.unique(labels)]
    assert score.metrics["mean_per_class_recall"] == pytest.approx(np.mean(recalls))
    if classes >= 5:
        top = (logits.topk(5).indices.numpy() == labels[:, None]).any(1)
        assert score.metrics["acc5"] == pytest.approx(top.mean())
    else:
        assert "acc5" not in score.metrics
    loss = torch.nn.functional.cross_entropy(100 * logits, torch.tensor(labels))
    assert score.loss == pytest.approx(float(loss), rel=1e-5)


@pytest.mark.parametrize("fitness", ["acc1", "mean_per_class_recall", "group_mean_acc", "worst_group_acc"])
def test_units_average_to_the_fitness_and_come_back_from_ranks(fitness):
    x, prototypes, labels = problem()
    groups = ["land" if i % 3 else "water" for i in range(60)]
    objective = Classification(prototypes, labels, groups, fitness)
    score = objective(x)
    assert score.fitness == score.metrics[fitness] == pytest.approx(score.units.mean(), rel=1e-5)
    again = objective.score_from_ranks(score.ranks, score.loss)
    assert again.metrics == score.metrics
    assert np.array_equal(again.units, score.units)


def test_the_worst_group_is_an_attribute_with_a_class():
    # the classifier reads the background: birds on the other background are always wrong
    prototypes = torch.eye(2)
    labels, places = (
        np.array([0] * 10 + [1] * 10),
        np.array(["land"] * 9 + ["water"] * 2 + ["land"] * 1 + ["water"] * 8),
    )
    x = torch.eye(2)[[0 if place == "land" else 1 for place in places]]
    score = Classification(prototypes, labels, places.tolist(), "worst_group_acc")(x)
    assert score.metrics["acc1"] == pytest.approx(18 / 20)
    assert score.fitness == 0
    assert score.metrics["acc1 of water, class 0"] == 0
    assert score.metrics["group_mean_acc"] == pytest.approx((1 + 0 + 0 + 1) / 4)


def test_a_collapsed_embedding_and_equal_classes_score_0():
    x, prototypes, labels = problem()
    same = Classification(prototypes[:1].expand(7, -1), labels)
    assert same(x).metrics == {"acc1": 0, "acc5": 0, "mean_per_class_recall": 0}


def test_the_chunk_does_not_change_the_score(monkeypatch):
    x, prototypes, labels = problem()
    whole = Classification(prototypes, labels)(x)
    monkeypatch.setattr("headwise.scoring.objectives.classes.TILE", 20)
    parts = Classification(prototypes, labels)(x)
    assert np.array_equal(whole.ranks["classification"], parts.ranks["classification"])
    assert whole.loss == pytest.approx(parts.loss, rel=1e-12)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"labels": np.array([0, 7])}, "Image 1 has label 7, but there are 7"),
        ({"labels": np.array([], int)}, "at least 2 classes and 1 image"),
        ({"classes": torch.ones(1, 4)}, "at least 2 classes"),
        ({"groups": ["a"]}, "60 images need a group"),
        ({"fitness": "worst_group_acc"}, "needs a group for every image"),
        ({"fitness": "f1"}, "not a fitness"),
    ],
)
def test_bad_input_is_a_clear_error(change, says):
    _, prototypes, labels = problem()
    with pytest.raises(HeadwiseError, match=says):
        Classification(**{"classes": prototypes, "labels": labels} | change)


def test_embeddings_that_do_not_fit_are_a_clear_error():
    x, prototypes, labels = problem()
    objective = Classification(prototypes, labels)
    with pytest.raises(HeadwiseError, match="equally wide"):
        objective(x[:, 1:])
    with pytest.raises(HeadwiseError, match="about 60 images"):
        objective(x[1:])

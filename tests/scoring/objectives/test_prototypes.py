"""Classification by class means, each image left out of its own class's mean."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.errors import HeadwiseError
from headwise.scoring.objectives import Prototypes


def problem(seed=0, images=40, classes=6):
    g = torch.Generator().manual_seed(seed)
    labels = torch.randint(classes, (images,), generator=g)
    centres = torch.randn(classes, 8, generator=g)
    return centres[labels] + 1.5 * torch.randn(images, 8, generator=g), labels.numpy(), torch.empty(classes, 0)


def by_hand(x, labels, count):
    """Similarity of each image to each class, one image and one class at a time."""
    x = torch.nn.functional.normalize(x.double(), dim=1)
    table = torch.full((len(x), count), -torch.inf, dtype=torch.float64)
    for i in range(len(x)):
        for c in range(count):
            members = [j for j in range(len(x)) if labels[j] == c and j != i]
            if members:
                table[i, c] = torch.nn.functional.normalize(x[members].sum(0), dim=0) @ x[i]
            elif labels[i] == c:
                table[i, c] = -1
    return table


@given(seed=st.integers(0, 1000), images=st.integers(8, 40), classes=st.integers(2, 9))
@settings(max_examples=30, deadline=None)
def test_metrics_equal_the_definition_one_image_at_a_time(seed, images, classes):
    x, labels, names = problem(seed, images, classes)
    score = Prototypes(names, labels)(x)
    table = by_hand(x, labels, classes)
    right = table.argmax(1).numpy() == labels
    assert score.metrics["acc1"] == pytest.approx(right.mean())
    loss = torch.nn.functional.cross_entropy(100 * table, torch.as_tensor(labels))
    assert score.loss == pytest.approx(float(loss), rel=1e-4, abs=1e-4)


def test_an_image_does_not_vote_for_itself():
    """Random labels: with the image in its own mean a classifier of a few images a class looks far above chance."""
    g = torch.Generator().manual_seed(0)
    x, labels = torch.randn(200, 64, generator=g), np.arange(200) % 50
    assert Prototypes(torch.empty(50, 0), labels)(x).fitness < 0.06


def test_a_class_of_one_image_is_never_right():
    x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]])
    score = Prototypes(torch.empty(2, 0), np.array([0, 0, 1]))(x)
    assert score.units.tolist() == [1, 1, 0]


@pytest.mark.parametrize("fitness", ["acc1", "mean_per_class_recall", "worst_group_acc"])
def test_units_average_to_the_fitness_and_come_back_from_ranks(fitness):
    x, labels, names = problem()
    objective = Prototypes(names, labels, ["land" if i % 3 else "water" for i in range(40)], fitness)
    score = objective(x)
    assert score.fitness == pytest.approx(score.units.mean(), rel=1e-5)
    again = objective.score_from_ranks(score.ranks, score.loss)
    assert again.metrics == score.metrics
    assert np.array_equal(again.units, score.units)


def test_bad_input_is_refused():
    _, labels, names = problem()
    with pytest.raises(HeadwiseError, match="40 images; 3 embeddings"):
        Prototypes(names, labels)(torch.zeros(3, 8))
    with pytest.raises(HeadwiseError, match="has label 6"):
        Prototypes(names, labels + 1)

"""What embeddings that know nothing score, and the least that an image can change: against draws, and against counting."""

import numpy as np
import pytest
import torch

from headwise.scoring.chance import chance
from headwise.scoring.objectives import Classification, Combined, Part, Retrieval, SingleObject
from headwise.scoring.stats import least_change
from headwise.scoring.stats.comparison import FEWEST_CHANGED


def drawn(objective, draws: int = 150) -> tuple[float, float]:
    """The mean fitness of random embeddings, and its standard error."""
    generator = torch.Generator().manual_seed(0)
    found = [objective(torch.randn(objective.images, 16, generator=generator)).fitness for _ in range(draws)]
    return float(np.mean(found)), float(np.std(found) / draws**0.5)


def texts(count: int) -> torch.Tensor:
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(1))


def shared() -> Retrieval:
    """Ten texts, each of ten of 100 images."""
    same = np.arange(100) % 10
    return Retrieval(texts(10)[same], np.arange(100), same=same)


def uneven() -> Retrieval:
    """Images with one to three texts, one of which belongs to twenty images, and distractors."""
    owner = np.repeat(np.arange(40), 1 + np.arange(40) % 3)
    same = np.where(np.arange(len(owner)) < 20, 0, np.arange(len(owner)) - 19)
    return Retrieval(texts(int(same.max()) + 1)[same], owner, same=same, distractors=texts(30))


def queries() -> SingleObject:
    present = np.zeros((20, 3), bool)
    present[0, 0] = present[:3, 1] = present[:, 2] = True
    return SingleObject(texts(3), present)


@pytest.mark.parametrize("objective", [shared(), uneven(), queries()], ids=["shared texts", "uneven", "precision"])
def test_chance_is_what_random_embeddings_score(objective):
    mean, error = drawn(objective)
    assert chance(objective) == pytest.approx(mean, abs=4 * error)
    both = Combined((Part("a", objective, 0, 3.0), Part("b", objective, objective.images, 1.0)))
    assert chance(both) == pytest.approx(chance(objective))


def smallest(objective, ranks: dict[str, np.ndarray], most: int) -> float:
    """The smallest change of fitness that one rank which moves makes."""
    base, (name,) = objective.score_from_ranks(ranks, 0.0).fitness, ranks
    found = []
    for place in range(len(ranks[name])):
        for rank in range(most):
            moved = ranks[name].copy()
            moved[place] = rank
            found.append(abs(objective.score_from_ranks({name: moved}, 0.0).fitness - base))
    return min(change for change in found if change > 1e-12)


def test_the_least_change_is_one_image_of_the_largest_class():
    labels = np.repeat([0, 1, 2], [7, 11, 13])
    objective = Classification(texts(3), labels, fitness="mean_per_class_recall")
    least = smallest(objective, {"classification": np.ones(31, np.int32)}, 2)
    assert least == pytest.approx(1 / 3 / 13)
    assert least_change(objective.design) == pytest.approx(FEWEST_CHANGED * least)
    accuracy = Classification(texts(3), labels)
    assert least_change(accuracy.design) == pytest.approx(FEWEST_CHANGED / 31)
    both = Combined((Part("a", objective, 0, 1.0), Part("b", accuracy, 31, 3.0)))
    assert least_change(both.design) == pytest.approx(FEWEST_CHANGED * min(least / 4, 0.75 / 31))


def test_the_least_change_of_precision_is_a_positive_that_falls_by_one_place():
    rng = np.random.default_rng(0)
    for images, positives in ((9, 1), (9, 2), (12, 5), (7, 6)):
        present = np.zeros((images, 1), bool)
        present[:positives] = True
        objective = SingleObject(texts(1), present)
        found = []
        for _ in range(400):
            places = rng.permutation(images)[:positives].astype(np.int32)
            order = np.argsort(places)
            for i in range(positives):
                if places[i] + 1 < images and places[i] + 1 not in places:
                    moved = places.copy()
                    moved[i] += 1
                    scores = [objective.score_from_ranks({objective.name: p[order]}, 0.0) for p in (places, moved)]
                    found.append(scores[0].fitness - scores[1].fitness)
        assert least_change(objective.design) == pytest.approx(FEWEST_CHANGED * min(found), rel=1e-6)


def test_queries_that_hold_for_every_image_change_nothing():
    """Their precision is 1 whatever the order; alone they leave nothing that could change."""
    all_of_them = SingleObject(texts(2), np.ones((6, 2), bool))
    assert all_of_them(torch.randn(6, 16)).fitness == 1.0
    assert np.isfinite(least_change(all_of_them.design))
    present = np.ones((6, 2), bool)
    present[1:, 0] = False
    one = SingleObject(texts(2), present)
    assert least_change(one.design) == pytest.approx(FEWEST_CHANGED / 2 * (1 / 5 - 1 / 6), rel=1e-6)

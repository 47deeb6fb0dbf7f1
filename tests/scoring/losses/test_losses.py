import numpy as np
import pytest
import torch

from headwise.scoring.losses import loss_of, value_of
from headwise.scoring.losses.classes import balanced, pairs_of_a_class
from headwise.scoring.losses.combined import joined
from headwise.scoring.objectives import Classification, Combined, MultiObject, Part, Prototypes, Retrieval, SingleObject

N, WIDTH = 12, 8
LABELS = np.array([0, 1, 2, 0, 1, 2, 0, 0, 1, 2, 2, 0])
GROUPS = ("land", "sea", "sea") * 4


def random(rows: int, seed: int) -> torch.Tensor:
    return torch.randn(rows, WIDTH, generator=torch.Generator().manual_seed(seed))


IMAGES, TEXTS, CLASSES = random(N, 0), random(N, 1), random(3, 2)
PRESENT = (np.arange(N)[:, None] + np.arange(3)) % 4 == 0  # (N, 3)
COUNTED = PRESENT | ((np.arange(N)[:, None] + np.arange(3)) % 3 == 0)

OBJECTIVES = {
    "retrieval": Retrieval(TEXTS, np.arange(N), scale=20.0),
    "labels": Classification(CLASSES, LABELS, scale=10.0),
    "class means": Prototypes(torch.empty(3, 0), LABELS, scale=10.0),
    "cola, pairs": MultiObject(TEXTS, np.arange(N) ^ 1, scale=10.0),
    "cola, queries": SingleObject(random(3, 3), PRESENT, COUNTED),
}
OBJECTIVES["mixture"] = Combined(
    tuple(
        Part(name, objective, start=i * N, weight=1.0 + i)
        for i, (name, objective) in enumerate(list(OBJECTIVES.items()))
    )
)
OBJECTIVES["two goals on the same images"] = Combined(
    (Part("a", OBJECTIVES["cola, pairs"], 0, 3.0), Part("b", OBJECTIVES["labels"]))
)


@pytest.mark.parametrize("name", OBJECTIVES)
@pytest.mark.parametrize("tile", [1, 29, 10**6])
def test_of_a_whole_split_it_is_the_loss_that_breaks_ties_in_any_tiles(name, tile):
    objective = OBJECTIVES[name]
    x = random(objective.images, 4)
    terms = list(loss_of(objective).terms(x.double(), torch.arange(objective.images), tile=tile))
    assert sum(float(term) for term in terms) == pytest.approx(objective(x).loss, rel=1e-5)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_gradients_equal_finite_differences_term_by_term(name):
    loss = loss_of(OBJECTIVES[name])
    numbers = torch.arange(loss.images).flip(0)
    x = random(loss.images, 5).double().requires_grad_()
    for term in loss.terms(x, numbers, tile=50):
        term.backward()  # each frees its own graph
    step = 1e-6
    for row, column in [(0, 0), (3, 5), (loss.images - 1, 2)]:
        with torch.no_grad():
            shift = torch.zeros_like(x)
            shift[row, column] = step
            exact = (value_of(loss, x + shift, numbers) - value_of(loss, x - shift, numbers)) / (2 * step)
        assert float(x.grad[row, column]) == pytest.approx(float(exact), rel=1e-4, abs=1e-8)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_going_down_the_gradient_raises_the_fitness(name):
    objective = OBJECTIVES[name]
    loss, x = loss_of(objective), random(objective.images, 6)
    numbers = torch.arange(loss.images)
    before = objective(x).fitness
    x.requires_grad_()
    adam = torch.optim.Adam([x], lr=0.1)
    for _ in range(60):
        adam.zero_grad()
        value_of(loss, x, numbers).backward()
        adam.step()
    assert objective(x.detach()).fitness > max(before, 0.8)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_units_hold_every_image_once_and_a_batch_of_one_has_a_finite_gradient(name):
    loss = loss_of(OBJECTIVES[name])
    units = loss.units or [(i,) for i in range(loss.images)]
    assert sorted(i for unit in units for i in unit) == list(range(loss.images))
    for unit in units:
        x = random(len(unit), 7).requires_grad_()
        value = value_of(loss, x, torch.tensor(unit))
        value.backward()
        assert bool(torch.isfinite(value))
        assert bool(torch.isfinite(x.grad).all())


def test_batches_of_a_mixture_give_the_parts_their_weights():
    few, many = np.arange(2), np.arange(10)
    objective = Combined(
        (
            Part("few", Retrieval(TEXTS[:2], few, scale=5.0, loss="sigmoid"), 0, 3.0),
            Part("many", Retrieval(TEXTS[2:], many, scale=5.0, loss="sigmoid"), 2, 1.0),
        )
    )
    loss, x = loss_of(objective), random(N, 8).double()
    order = torch.randperm(N, generator=torch.Generator().manual_seed(9))
    # sigmoid losses of single images add up, so the mean over batches is the whole split's loss
    values = [float(value_of(loss, x[batch], batch)) for batch in order.split(3)]
    assert np.mean(values) == pytest.approx(objective(x.float()).loss, rel=1e-5)


def test_a_fitness_over_groups_or_classes_counts_each_of_them_the_same():
    plain = Classification(CLASSES, LABELS, scale=10.0)
    x, numbers = IMAGES.double(), torch.arange(N)
    each = np.array([float(value_of(loss_of(plain), x[i : i + 1], numbers[i : i + 1])) for i in range(N)])
    by_class = np.mean([each[label == LABELS].mean() for label in range(3)])
    found = value_of(loss_of(Classification(CLASSES, LABELS, None, "mean_per_class_recall", 10.0)), x, numbers)
    assert float(found) == pytest.approx(by_class, rel=1e-6)
    groups = sorted({*zip(GROUPS, LABELS.tolist(), strict=True)})
    where = [[i for i in range(N) if (GROUPS[i], LABELS[i]) == group] for group in groups]
    by_group = np.mean([each[rows].mean() for rows in where])
    for fitness in ("worst_group_acc", "group_mean_acc"):
        found = value_of(loss_of(Classification(CLASSES, LABELS, GROUPS, fitness, 10.0)), x, numbers)
        assert float(found) == pytest.approx(by_group, rel=1e-6)
    assert balanced(LABELS).mean() == pytest.approx(1.0)


def test_an_image_alone_in_its_class_takes_no_part_in_class_means():
    labels = np.array([0, 0, 1, 1, 2])
    loss, x = loss_of(Prototypes(torch.empty(3, 0), labels, scale=5.0)), random(5, 10).requires_grad_()
    whole = value_of(loss, x, torch.arange(5))
    assert bool(torch.isfinite(whole))
    assert pairs_of_a_class(labels) == ((0, 1), (2, 3), (4,))
    assert pairs_of_a_class(np.zeros(5, int)) == ((0, 1), (2, 3, 4))


def test_units_that_share_an_image_become_one():
    assert joined([(0, 1), (2,), (1, 3), (4,), (3,)]) == ((0, 1, 3), (2,), (4,))

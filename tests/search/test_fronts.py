import sys
from itertools import product

import numpy as np
import pytest
from synthetic import Counting, Landscape, bits

from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.fronts import domain_front, size_front
from headwise.search.genome import GeneticSettings

pytest.importorskip("pymoo")
GRID = Grid((3, 3), pool=2)
SETTINGS = GeneticSettings(population=24, elites=2, generations=25)


def additive(gains):
    return lambda mask: 0.5 + float(bits(mask) @ np.asarray(gains))


def test_the_size_front_of_additive_effects_is_the_best_heads_in_order():
    gains = np.array([0.05, -0.1, 0.02, -0.03, 0.08, 0.01, -0.2, 0.03])
    front = size_front(Counting(additive(gains)), GRID, "zero", SETTINGS)
    helpful = np.sort(gains[gains > 0])[::-1]
    expected = {-float(k): 0.5 + helpful[:k].sum() for k in range(len(helpful) + 1)}
    assert {point.values[1]: point.values[0] for point in front.points} == pytest.approx(expected)
    assert front.points[0].mask.size == len(helpful)
    assert front.points[-1].mask.is_identity


def test_no_point_of_the_domain_front_is_beaten_by_any_mask_tried():
    new, old = Counting(Landscape(GRID, 1)), Counting(Landscape(GRID, 2))
    front = domain_front(new, [old], GRID, "uniform", SETTINGS)
    base = old.known["identity"].fitness
    tried = [(new.known[key].fitness, old.known[key].fitness - base) for key in new.known]
    for point in front.points:
        a, b = point.values
        assert not any((x >= a and y > b) or (x > a and y >= b) for x, y in tried)
    assert front.evaluated == len(new.known) == len(old.known)
    assert front.ffe == new.spent + old.spent == 2 * front.evaluated


def test_keeping_finds_the_best_mask_that_does_not_break_the_old_domain():
    new, old = Landscape(GRID, 1), Landscape(GRID, 2)
    front = domain_front(Counting(new), [Counting(old)], GRID, "zero", SETTINGS)
    masks = [
        Mask.gated(GRID, (flat[:3], flat[3:6], flat[6:])) for flat in product((0.0, 1.0), repeat=8)
    ]  # all of them: the grid is small
    identity = Mask.identity(GRID)
    for loss in (0.0, 0.005, 0.05):
        best = max(new(mask) for mask in masks if old(mask) >= old(identity) - loss)
        kept = front.keeping(loss)[0]
        assert kept.values[0] == best
        assert old(kept.mask) >= old(identity) - loss


def test_with_several_kept_domains_the_one_that_suffers_most_counts():
    new, old, other = Landscape(GRID, 1), Landscape(GRID, 2), Landscape(GRID, 3)
    front = domain_front(Counting(new), [Counting(old), Counting(other)], GRID, "zero", SETTINGS)
    identity = Mask.identity(GRID)
    assert len(front.points) > 2
    for point in front.points:
        changes = [domain(point.mask) - domain(identity) for domain in (old, other)]
        assert point.values == (new(point.mask), pytest.approx(min(changes)))


def test_same_seed_same_front():
    fronts = [domain_front(Counting(Landscape(GRID, 1)), [Counting(Landscape(GRID, 2))], GRID, "zero",
                           GeneticSettings(population=12, generations=3, elites=2, seed=seed))
              for seed in (4, 4, 5)]  # fmt: skip
    runs = [[(str(point.mask), point.values) for point in front.points] for front in fronts]
    assert runs[0] == runs[1]


def test_budget_and_most_heads_are_respected_and_no_mask_is_evaluated_twice():
    evaluate = Counting(Landscape(Grid((6, 6))))
    front = size_front(evaluate, Grid((6, 6)), "zero", GeneticSettings(budget=70.5, max_heads=3))
    assert front.why == "budget"
    assert 69.5 < evaluate.spent <= 70.5
    assert max(mask.size for mask in evaluate.asked) <= 3
    keys = [mask.key for mask in evaluate.asked]
    assert len(keys) == len(set(keys))


def test_a_budget_below_identity_is_an_error():
    with pytest.raises(HeadwiseError, match="does not pay"):
        size_front(Counting(Landscape(GRID)), GRID, "zero", GeneticSettings(budget=0.5))


def test_without_pymoo_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pymoo.algorithms.moo.nsga2", None)
    with pytest.raises(HeadwiseError, match=r"headwise\[fronts\]"):
        size_front(Counting(Landscape(GRID)), GRID, "zero")

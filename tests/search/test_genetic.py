import random
from itertools import product

import pytest
from synthetic import Counting, Landscape, bits

from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.genetic import genetic
from headwise.search.genome import GeneticSettings
from headwise.search.greedy import greedy
from headwise.search.sweep import sweep

GRID = Grid((6,) * 6)
SMALL = GeneticSettings(population=24, generations=12)


def refine(function, settings, grid=GRID):
    """Sweep, greedy, then the genetic search, as the main job runs them."""
    evaluate = Counting(function)
    swept = sweep(evaluate, grid, "zero")
    path = greedy(evaluate, grid, "zero", swept.ranking, width=4).path
    start = len(evaluate.calls)
    found = genetic(evaluate, grid, "zero", settings, ranking=swept.ranking, seeds=[item.mask for item in path])
    return found, evaluate, evaluate.calls[start:]


def test_it_finds_the_planted_optimum_more_often_than_random_search():
    grid = Grid((3, 4), pool=3)
    wins = {"genetic": 0, "random": 0}
    for seed in range(10):
        landscape = Landscape(grid, seed=seed)
        optimum = max(landscape(Mask.gated(grid, gates)) for gates in every_gates(grid))
        found, evaluate, _ = refine(landscape, GeneticSettings(population=16, generations=12, seed=seed), grid)
        evaluations = len({mask.key for mask in evaluate.asked})
        rng = random.Random(seed)
        tried = max(landscape(random_mask(grid, rng)) for _ in range(evaluations))
        wins["genetic"] += found.best.score.fitness == optimum
        wins["random"] += tried == optimum
    assert wins["genetic"] >= 9
    assert wins["genetic"] >= wins["random"] + 4


def every_gates(grid: Grid):
    for flat in product((1.0, 0.0), repeat=grid.size):
        values = iter(flat)
        yield tuple(tuple(next(values) for _ in range(heads)) for heads in grid.rows)


def random_mask(grid: Grid, rng: random.Random) -> Mask:
    return Mask.gated(grid, [[float(rng.random() < 0.5) for _ in range(heads)] for heads in grid.rows])


def test_it_beats_greedy_where_heads_interact():
    better = 0
    for seed in range(6):
        landscape = Landscape(GRID, seed=seed, pairs=0.5)
        found, _, calls = refine(landscape, GeneticSettings(seed=seed))
        reached = found.best.score.fitness
        better += reached > max(landscape(mask) for mask in calls[0])  # calls[0] holds the greedy path
    assert better >= 5


def test_same_seed_same_history_and_another_seed_another():
    runs = [refine(Landscape(GRID), GeneticSettings(population=24, generations=6, seed=seed))[0] for seed in (1, 1, 2)]
    assert runs[0].history == runs[1].history
    assert runs[0].best.mask == runs[1].best.mask
    assert runs[0].history != runs[2].history


def test_no_mask_is_evaluated_twice_and_a_generation_is_one_call():
    found, _, calls = refine(Landscape(GRID), SMALL)
    masks = [mask.key for call in calls for mask in call]
    assert len(set(masks)) == len(masks) == found.history[-1].evaluated
    assert len(calls) == len(found.history)


def test_the_first_population_holds_identity_the_best_single_heads_and_the_seeds():
    grid = Grid((5, 5))
    evaluate = Counting(Landscape(grid))
    ranking = sweep(evaluate, grid, "uniform").ranking
    seed = Mask.suppress(grid, list(grid)[:7], "uniform")
    evaluate.calls.clear()
    genetic(evaluate, grid, "uniform", GeneticSettings(population=20, generations=0), ranking=ranking, seeds=[seed])
    first = evaluate.calls[0]
    assert len(first) == 20
    assert first[0].is_identity
    assert seed in first
    assert {Mask.suppress(grid, [head], "uniform") for head in ranking[:5]} <= set(first)
    assert {Mask.suppress(grid, ranking[:k], "uniform") for k in range(2, 7)} <= set(first)


def test_seeds_that_do_not_fit_the_search_are_left_out():
    other = Mask.suppress(GRID, ["L0.H0", "L1.H1", "L2.H2"], "mean")
    soft = Mask.suppress(GRID, ["L0.H0", "L1.H1", "L3.H2"], "scale(0.5)")
    large = Mask.suppress(GRID, list(GRID)[:20])
    evaluate = Counting(Landscape(GRID))
    genetic(evaluate, GRID, "zero", GeneticSettings(max_heads=4, generations=2), seeds=[other, soft, large])
    assert not {other, soft, large} & set(evaluate.asked)
    assert all(mask.names in ((), ("zero",)) and mask.is_binary and mask.size <= 4 for mask in evaluate.asked)


@pytest.mark.parametrize("budget", [1.0, 7.5, 40.0, 63.0])
def test_the_budget_is_used_and_never_exceeded(budget):
    evaluate = Counting(Landscape(GRID))
    found = genetic(evaluate, GRID, "zero", GeneticSettings(population=24, budget=budget, patience=50))
    assert budget - 1 < evaluate.spent == found.ffe <= budget
    assert found.why == "budget"


def test_a_budget_below_one_mask_is_an_error():
    with pytest.raises(HeadwiseError, match="does not pay"):
        genetic(Counting(Landscape(GRID)), GRID, "zero", GeneticSettings(budget=0.5))


def test_it_says_why_it_stopped():
    flat = Counting(lambda mask: 0.5)
    assert genetic(flat, GRID, "zero", GeneticSettings(patience=3)).why == "patience"
    assert genetic(flat, GRID, "zero", GeneticSettings(generations=2)).why == "generations"
    tiny = Counting(Landscape(Grid((2, 2))))
    found = genetic(tiny, Grid((2, 2)), "zero", GeneticSettings(patience=100, generations=100))
    assert found.why == "exhausted"
    assert len(tiny.known) == 16


def test_the_front_trades_heads_for_fitness_and_holds_the_best_mask_of_each_size():
    found, evaluate, calls = refine(Landscape(GRID), SMALL)
    best = {}
    for mask in (mask for call in calls for mask in call):
        best[mask.size] = max(best.get(mask.size, 0.0), evaluate.known[mask.key].fitness)
    assert {item.mask.size: item.score.fitness for item in found.by_size} == best
    sizes = [item.mask.size for item in found.front]
    assert sizes == sorted(sizes)
    fitness = [item.score.fitness for item in found.front]
    assert fitness == sorted(set(fitness))
    assert found.front[-1].score.fitness == found.best.score.fitness == max(best.values())


def test_history_adds_up():
    seen = []
    evaluate = Counting(Landscape(GRID), price=0.5)
    found = genetic(evaluate, GRID, "zero", SMALL, progress=seen.append)
    assert tuple(seen) == found.history
    assert [record.number for record in seen] == list(range(len(seen)))
    assert [record.ffe for record in seen] == [record.evaluated * 0.5 for record in seen]
    assert [record.best for record in seen] == sorted(record.best for record in seen)
    assert all(record.mean <= record.best for record in seen)


def test_a_pooling_row_is_searched_like_the_others():
    grid = Grid((3, 3), pool=4)
    goal = ["L1.H2", "pool.H0", "pool.H3"]
    wanted = bits(Mask.suppress(grid, goal))
    evaluate = Counting(lambda mask: 1 - abs(bits(mask) - wanted).mean())
    found = genetic(evaluate, grid, "mean", GeneticSettings(population=16, generations=30, patience=30))
    assert str(found.best.mask) == ", ".join(f"{head}=mean" for head in goal)


@pytest.mark.parametrize(
    "bad",
    [{"population": 1}, {"tournament": 0}, {"flip": 1.5}, {"uniform": 0.8, "block": 0.4}, {"elites": 0},
     {"elites": 48}, {"immigrants": 47}, {"max_heads": 0}, {"budget": 0.0}, {"good": 0.0}, {"patience": 0}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(bad):
    with pytest.raises(HeadwiseError, match=next(reversed(bad))):
        GeneticSettings(**bad)

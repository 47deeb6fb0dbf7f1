import math
from statistics import median

import numpy as np
import pytest
import torch
from synthetic import Counting, bits, score

from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import embed, ffe
from headwise.evaluation.evaluator import Evaluator
from headwise.evaluation.layout import Plan
from headwise.evaluation.study import Study
from headwise.scoring.objectives import Retrieval
from headwise.search.anchors import Anchors
from headwise.search.contract import Found
from headwise.search.deltas import Collector, HeadDeltas, collect
from headwise.search.estimated import EstimateSettings, estimated
from headwise.search.genetic import genetic
from headwise.search.genome import GeneticSettings
from headwise.search.surrogate import Surrogate
from headwise.search.sweep import sweep

GRID = Grid((6,) * 6)
IMAGES, WIDTH = 200, 16
INNER = GeneticSettings(population=20, generations=6, elites=4, immigrants=2)


class World:
    """Embeddings that heads change nonlinearly; some heads carry noise and hurt retrieval."""

    def __init__(self, seed: int, bend: float = 0.35):
        g = torch.Generator().manual_seed(seed)
        self.base = torch.randn(IMAGES, WIDTH, generator=g)
        harm = (torch.rand(GRID.size, generator=g) < 0.35).float()  # (H)
        useful = 0.12 * self.base * torch.rand(GRID.size, 1, 1, generator=g)
        noise = 0.5 * torch.randn(GRID.size, IMAGES, WIDTH, generator=g)
        self.parts = useful * (1 - harm)[:, None, None] + noise * harm[:, None, None]  # (H, N, E)
        self.bend = bend
        captions = self.base + 1.2 * torch.randn(IMAGES, WIDTH, generator=g)
        self.captions = torch.nn.functional.normalize(captions, dim=-1)  # (N, E)

    def objective(self, embeddings: torch.Tensor):
        """Share of images whose own caption is among the nearest three."""
        similarity = torch.nn.functional.normalize(embeddings, dim=-1) @ self.captions.T  # (N, N)
        better = (similarity > similarity.diagonal()[:, None]).sum(1)  # (N)
        return score(float((better < 3).double().mean()))

    def embeddings(self, mask: Mask) -> torch.Tensor:
        kept = torch.tensor(1.0 - bits(mask), dtype=torch.float32)  # (H)
        x = self.base + torch.einsum("h,hne->ne", kept, self.parts)
        return torch.tanh(self.bend * x)  # (N, E): saturates, so that heads interact

    def evaluator(self) -> Counting:
        evaluate = Counting(lambda mask: 0.0)
        evaluate.function = lambda mask: self.objective(self.embeddings(mask)).fitness
        return evaluate

    def deltas(self) -> HeadDeltas:
        identity = self.embeddings(Mask.identity(GRID))
        changes = torch.stack([self.embeddings(Mask.suppress(GRID, [head])) - identity for head in GRID])
        return HeadDeltas(GRID, "zero", identity, changes.half(), tuple(GRID))

    def anchors(self) -> Anchors:
        return Anchors(self.deltas(), lambda masks: [(mask, self.embeddings(mask)) for mask in masks])


def run(world: World, **settings):
    evaluate = world.evaluator()
    ranking = sweep(evaluate, GRID, "zero").ranking
    search = GeneticSettings(
        **{name: settings.pop(name) for name in ("budget", "seed", "max_heads") if name in settings}
    )
    how = EstimateSettings(**{"inner": INNER, "agreement": -1.0, **settings})
    return estimated(evaluate, GRID, "zero", world.anchors(), world.objective, search, how, ranking=ranking), evaluate


def test_it_reaches_the_plain_searchs_fitness_with_a_tenth_of_its_ffe():
    gaps = []
    for seed in range(3):
        world = World(seed)
        evaluate = world.evaluator()
        ranking = sweep(evaluate, GRID, "zero").ranking
        plain = genetic(evaluate, GRID, "zero", GeneticSettings(generations=8, seed=seed), ranking=ranking)
        found, _ = run(world, budget=plain.ffe / 10, seed=seed)
        assert found.ffe <= plain.ffe / 10
        gaps.append(found.best.score.fitness - plain.best.score.fitness)
    assert median(gaps) >= 0


def test_scores_that_come_back_are_exact_and_the_best_is_the_best_of_them():
    found, evaluate = run(World(1))
    assert found.best.score.fitness == evaluate.known[found.best.mask.key].fitness
    assert all(item.score is evaluate.known[item.mask.key] for item in found.by_size)
    assert found.best.score.fitness == max(item.score.fitness for item in found.by_size)
    assert found.ffe == evaluate.spent - (1 + GRID.size)  # the sweep is not counted
    assert found.estimated > 10 * found.history[-1].evaluated


@pytest.mark.parametrize("lying", [False, True])
def test_where_estimates_do_not_agree_with_exact_runs_it_goes_on_exactly(lying):
    """Estimates that rank masks the wrong way round are left behind, and the budget goes to exact runs."""
    world = World(3)
    evaluate = world.evaluator()
    ranking = sweep(evaluate, GRID, "zero").ranking

    def objective(embeddings: torch.Tensor):
        return score(1.0 - world.objective(embeddings).fitness) if lying else world.objective(embeddings)

    options = GeneticSettings(population=20, elites=4, budget=60.0)
    found = estimated(evaluate, GRID, "zero", world.anchors(), objective, options, ranking=ranking)
    assert (found.exact_after is not None) == lying == found.why.startswith("exact: ")
    assert (found.agreement < 0.3) == lying
    assert found.ffe <= 60
    if lying:
        assert found.ffe > 50
        assert found.best.score.fitness > evaluate.known[Mask.suppress(GRID, ranking[:1], "zero").key].fitness
    assert found.best.score.fitness == evaluate.known[found.best.mask.key].fitness


def test_same_seed_same_search_another_seed_another():
    short = {"rounds": 2, "batch": 4}
    runs = [run(World(0), seed=seed, **short)[0] for seed in (1, 1, 2)]
    assert runs[0].history == runs[1].history
    assert runs[0].best.mask == runs[1].best.mask
    assert [r.estimated for r in runs[0].history] != [r.estimated for r in runs[2].history]


def test_a_population_of_two_is_enough_to_look_at_estimates():
    few = GeneticSettings(population=2, generations=2, elites=1, immigrants=0)
    found, _ = run(World(0), rounds=2, batch=2, inner=few)
    assert found.best.score.fitness >= max(item.score.fitness for item in found.by_size)


@pytest.mark.parametrize("budget", [2.5, 11.0])
def test_budget_and_most_heads_are_respected(budget):
    world = World(2)
    evaluate = world.evaluator()
    options = GeneticSettings(budget=budget, max_heads=3)
    found = estimated(evaluate, GRID, "zero", world.anchors(), world.objective, options)
    assert found.why == "budget"
    assert budget - 1 < found.ffe == evaluate.spent <= budget
    assert max(mask.size for mask in evaluate.asked) <= 3


def test_every_round_is_one_call_of_new_masks():
    found, evaluate = run(World(4), rounds=3, batch=5, patience=9, probes=4)
    assert [len(call) for call in evaluate.calls[2:]] == [4, 5, 5, 5]  # probes first
    keys = [mask.key for call in evaluate.calls[2:] for mask in call]
    assert len(set(keys)) == 19
    assert found.why == "rounds"


def test_a_tiny_grid_is_exhausted():
    grid = Grid((2,))
    world = Counting(lambda mask: mask.size / 4)
    deltas = HeadDeltas(grid, "zero", torch.ones(3, 2), torch.ones(2, 3, 2).half(), tuple(grid))
    anchors = Anchors(deltas, lambda masks: [(mask, torch.ones(3, 2)) for mask in masks])
    how = EstimateSettings(patience=99, rounds=99)
    found = estimated(world, grid, "zero", anchors, lambda e: score(0.5), GeneticSettings(), how)
    assert found.why == "exhausted"
    assert len(world.known) == 4
    assert math.isnan(found.agreement)  # too few masks


def test_what_it_cannot_do_is_refused():
    world = World(0)
    with pytest.raises(HeadwiseError, match="does not pay"):
        estimated(world.evaluator(), GRID, "zero", world.anchors(), world.objective, GeneticSettings(budget=0.5))
    with pytest.raises(HeadwiseError, match="batch"):
        EstimateSettings(batch=0)
    with pytest.raises(HeadwiseError, match=r"for the edit zero on .* these are uniform"):
        world.deltas().embeddings(Mask.suppress(GRID, ["L0.H0"], "uniform"))


# ---- the estimate


def test_deltas_from_the_engine_are_exact_for_single_heads_and_close_for_pairs(tower, images, tmp_path):
    deltas = collect(Collector(tower.grid, "uniform"), tower, images, Plan())
    masks = [Mask.suppress(tower.grid, [head], "uniform") for head in tower.grid]
    exact = {mask.key: e for mask, e in embed(tower, images, [Mask.identity(tower.grid), *masks], Plan())}
    assert torch.equal(deltas.identity, exact["identity"])
    for mask in masks:
        torch.testing.assert_close(deltas.embeddings(mask), exact[mask.key], atol=2e-3, rtol=2e-3)
    pair = masks[0] | masks[7]
    ((_, truth),) = embed(tower, images, [pair], Plan())
    change, guess = truth - exact["identity"], deltas.embeddings(pair) - exact["identity"]
    assert torch.nn.functional.cosine_similarity(change.flatten(), guess.flatten(), dim=0) > 0.9
    for other in ("uniform(0.5)", "zero", "uniform+zero"):
        with pytest.raises(HeadwiseError, match="for the edit uniform on"):
            deltas.embeddings(Mask.suppress(tower.grid, ["L0.H0"], other))
    with pytest.raises(HeadwiseError, match="for the edit uniform on"):
        deltas.embeddings(masks[0] | Mask.suppress(tower.grid, ["L0.H1"]))


@pytest.mark.parametrize("edit", ["zero", "scale(1.4)", "keys", "temperature(0.5)+scale(1.1)"])
def test_deltas_of_every_edit_are_exact_for_single_heads(tower, images, edit):
    deltas = collect(Collector(tower.grid, edit), tower, images, Plan())
    masks = [Mask.suppress(tower.grid, [head], edit) for head in tower.grid]
    for mask, exact in embed(tower, images, masks, Plan()):
        torch.testing.assert_close(deltas.embeddings(mask), exact, atol=2e-3, rtol=2e-3)


def test_the_sweep_gives_the_changes_that_a_collection_gives_bit_for_bit(tower, images, tmp_path):
    """Also for a later operator, whose sweep does not run identity again; a resumed sweep gives none."""
    texts = torch.randn(len(images), 24, generator=torch.Generator().manual_seed(2))
    objective = Retrieval(texts, np.arange(len(images)), scale=20.0)
    with Study(tmp_path / "s.sqlite", {"a": 1}) as study:
        evaluate = Evaluator(tower, Plan(chunk=4), images, objective, study)
        identity = None
        for operator in ("zero", "uniform"):
            keep = Collector(tower.grid, operator, identity=identity)
            evaluate.observe = keep
            spent = evaluate.spent
            sweep(evaluate, tower.grid, operator)
            assert evaluate.spent - spent == pytest.approx(ffe(tower, keep.masks), abs=1.0)
            again = collect(Collector(tower.grid, operator, identity=identity), tower, images, Plan(chunk=4))
            assert keep.deltas is not None
            assert torch.equal(keep.deltas.changes, again.changes)
            assert torch.equal(keep.deltas.identity, again.identity)
            identity = keep.deltas.identity
        keep = Collector(tower.grid, "zero")
        sweep(Evaluator(tower, Plan(chunk=4), images, objective, study, observe=keep), tower.grid, "zero")
        assert keep.deltas is None


def test_changes_of_some_heads_alone_limit_the_search_to_them(tower, images):
    heads = list(tower.grid)[2:5]
    deltas = collect(Collector(tower.grid, "zero", heads), tower, images, Plan())
    assert deltas.heads == tuple(heads)
    assert len(deltas.changes) == 3
    with pytest.raises(HeadwiseError, match=r"L0\.H0"):
        deltas.embeddings(Mask.suppress(tower.grid, ["L0.H0"], "zero"))
    world = World(0)
    few, evaluate = list(GRID)[10:18], World(0).evaluator()
    ranking = sweep(world.evaluator(), GRID, "zero").ranking
    seeds = [Mask.suppress(GRID, ["L0.H0"], "zero")]
    found = estimated(
        evaluate, GRID, "zero", world.anchors(), world.objective, GeneticSettings(), EstimateSettings(rounds=3),
        ranking=ranking, seeds=seeds, heads=few,
    )  # fmt: skip
    assert found.best.mask.size
    assert all(set(mask.heads) <= set(few) for mask in evaluate.asked)


def test_deltas_are_saved_whole_and_loaded_equal(tmp_path):
    deltas = World(0).deltas()
    deltas.save(tmp_path / "deltas.safetensors")
    again = HeadDeltas.load(tmp_path / "deltas.safetensors")
    assert (again.grid, again.operator, again.heads) == (deltas.grid, deltas.operator, deltas.heads)
    assert torch.equal(again.changes, deltas.changes)
    assert torch.equal(again.identity, deltas.identity)
    assert [path.name for path in tmp_path.iterdir()] == ["deltas.safetensors"]
    content = (tmp_path / "deltas.safetensors").read_bytes()
    (tmp_path / "deltas.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(HeadwiseError, match="Delete it"):
        HeadDeltas.load(tmp_path / "deltas.safetensors")
    with pytest.raises(HeadwiseError, match="Cannot write"):
        deltas.save(tmp_path / "deltas.safetensors" / "in-a-file.safetensors")


# ---- masks that were run


def test_an_estimate_starts_from_the_nearest_mask_that_was_run():
    world = World(5, bend=0.8)
    anchors, heads = world.anchors(), list(GRID)
    run = Mask.suppress(GRID, heads[:8])
    near, far = Mask.suppress(GRID, heads[1:9]), Mask.suppress(GRID, heads[20:22])
    before, after = anchors.embeddings(near), world.embeddings(near)
    assert (anchors.distance(near), anchors.distance(far)) == (7, 1)
    anchors.keep([run])
    assert (anchors.distance(run), anchors.distance(near), anchors.distance(far)) == (0, 2, 1)
    torch.testing.assert_close(anchors.embeddings(run), world.embeddings(run), atol=1e-3, rtol=1e-3)
    assert (anchors.embeddings(near) - after).norm() < 0.5 * (before - after).norm()
    assert torch.equal(anchors.embeddings(far), world.deltas().embeddings(far))
    single = Mask.suppress(GRID, heads[:1])
    assert torch.equal(anchors.embeddings(single), world.deltas().embeddings(single))
    assert anchors.distance(single) == anchors.distance(Mask.identity(GRID)) == 0


def test_of_equally_near_masks_the_mean_is_taken():
    world = World(6)
    anchors, heads = world.anchors(), list(GRID)
    left, right, between = (Mask.suppress(GRID, [*heads[:6], *more]) for more in (heads[6:7], heads[7:8], heads[6:8]))
    alone = []
    for mask in (left, right):
        one = world.anchors()
        one.keep([mask])
        alone.append(one.embeddings(between))
    anchors.keep([left, right])
    torch.testing.assert_close(anchors.embeddings(between), (alone[0] + alone[1]) / 2)


def test_a_continued_search_makes_the_same_anchors_without_scoring_anything_again(tower, images, tmp_path):
    texts = torch.randn(len(images), 24, generator=torch.Generator().manual_seed(2))
    objective = Retrieval(texts, np.arange(len(images)), scale=20.0)
    deltas = collect(Collector(tower.grid, "zero"), tower, images, Plan(chunk=4))
    scored = []

    def once(study: Study):
        def counted(embeddings):
            scored.append(1)
            return objective(embeddings)

        evaluate = Evaluator(tower, Plan(chunk=4), images, counted, study)
        ranking = sweep(evaluate, tower.grid, "zero").ranking
        anchors = Anchors(deltas, evaluate.embeddings)
        evaluate.observe = anchors.observe
        how = EstimateSettings(rounds=4, inner=INNER)
        return estimated(evaluate, tower.grid, "zero", anchors, objective, GeneticSettings(), how, ranking=ranking)

    with Study(tmp_path / "s.sqlite", {"a": 1}) as study:
        first, count = once(study), len(scored)
        again = once(study)
    assert count == len(scored) > tower.grid.size
    assert again.history == first.history
    assert again.best.mask == first.best.mask


def test_predictions_are_exact_where_masks_were_run_and_hope_grows_with_the_distance():
    world = World(5, bend=0.8)
    surrogate = Surrogate(world.anchors(), world.objective)
    masks = [Mask.suppress(GRID, list(GRID)[start : start + 15]) for start in range(0, 20, 2)]
    surrogate(masks)
    assert surrogate.spread == 0
    results = [Found(mask, world.objective(world.embeddings(mask))) for mask in masks]
    surrogate.learn(results, masks)
    assert [surrogate.predict(found.mask) for found in results] == [found.score.fitness for found in results]
    assert surrogate.spread > 0
    near, far = masks[0] ^ Mask.suppress(GRID, list(GRID)[:1]), masks[0] ^ Mask.suppress(GRID, list(GRID)[30:36])
    hopes = [surrogate.predict(mask, 1.0) - surrogate.predict(mask) for mask in (masks[0], near, far)]
    assert hopes[0] == 0 < hopes[1] < hopes[2]
    assert surrogate.cost(masks) == surrogate.spent == 0

"""Searches over several edits, of which every head has its own; with one edit they are what they were."""

import hashlib
import random
from itertools import cycle

import numpy as np
import pytest
import torch
from conftest import small_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from planted import SCALE, Planted
from synthetic import Counting, Landscape

from headwise.edits.edit import Edit
from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import embed
from headwise.evaluation.evaluator import Evaluator
from headwise.evaluation.layout import plan
from headwise.scoring.objectives import Retrieval
from headwise.search.alphabet import Alphabet, choices_of, toggled
from headwise.search.anchors import Anchors
from headwise.search.controls import controls
from headwise.search.deltas import Collector, Joined
from headwise.search.estimated import EstimateSettings, estimated
from headwise.search.genetic import genetic
from headwise.search.genome import Breeder, GeneticSettings
from headwise.search.pairs import Pairs
from headwise.search.sweep import sweep
from headwise.towers import tower_of

LETTERS = ("zero", "keys", "scale(1.5)")
GRID = Grid((3, 4), pool=3)


def asked(evaluate: Counting) -> str:
    text = "\n".join(" / ".join(map(str, call)) for call in evaluate.calls)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


# what searches of one edit asked for, in this order, before there were alphabets
BEFORE = {
    ((6,) * 6, 0): ("a13491a4b3cd896b", "b438864dc287ffd6", "8c88de828ecee616", "36663692fab9d85f"),
    ((3, 4), 3): ("3da3e8951a18fa4b", "d4f53aadf4c5dd5f", "60c44038c3a8cb2c", "25bf32134b10a98d"),
}


@pytest.mark.parametrize(("rows", "before"), BEFORE.items())
@pytest.mark.parametrize("several", [False, True])
def test_with_one_edit_the_search_is_bit_for_bit_what_it_was(rows, before, several):
    grid, found = Grid(*rows), []
    for seed in range(3):
        evaluate = Counting(Landscape(grid, seed=seed))
        ranking = sweep(evaluate, grid, "zero").ranking
        options = GeneticSettings(population=24, generations=8, seed=seed)
        if several:
            pairs = [(head, Edit.parse("zero")) for head in ranking]
            genetic(evaluate, grid, ("zero",), options, ranking=pairs)
        else:
            genetic(evaluate, grid, "zero", options, ranking=ranking)
        found.append(asked(evaluate))
    evaluate = Counting(Landscape(grid, seed=5))
    options = GeneticSettings(population=24, generations=8, max_heads=4)
    genetic(evaluate, grid, "scale(0.5)", options, heads=list(grid)[2:])
    assert (*found, asked(evaluate)) == before


def test_choices_have_numbers_and_masks_are_made_of_them():
    one, several = Alphabet(GRID, "zero"), Alphabet(GRID, LETTERS)
    assert [one.head(i) for i in one.allowed] == list(range(GRID.size)) == one.allowed
    assert len(several.allowed) == 3 * GRID.size
    mask = Mask.of(GRID, {"L0.H2": "keys", "L1.H0": "zero", "pool.H1": "scale(1.5)"})
    numbers = several.numbers(mask)
    assert numbers == tuple(sorted(numbers))
    assert several.mask(numbers) == mask
    assert several.numbers(Mask.identity(GRID)) == ()
    assert several.numbers(Mask.of(GRID, {"L0.H2": "scale(1.4)"})) is None
    assert several.numbers(Mask.identity(Grid((3, 4)))) is None
    few = Alphabet(GRID, LETTERS, [(Head(0, 1), Edit.parse("keys"))])
    assert few.numbers(mask) is None
    assert few.numbers(Mask.of(GRID, {"L0.H1": "keys"})) == (4,)


def test_a_head_goes_on_to_another_edit_or_off():
    keys, zero = (Mask.of(GRID, {"L0.H1": edit}) for edit in ("keys", "zero"))
    rest = Mask.of(GRID, {"L1.H1": "zero"})
    assert toggled(rest, keys) == rest | keys
    assert toggled(rest | zero, keys) == rest | keys
    assert toggled(rest | keys, keys) == rest


@given(st.integers(0, 10_000), st.sampled_from([("zero",), LETTERS]), st.sampled_from([None, 2, 5]))
@settings(max_examples=40, deadline=None)
def test_every_genome_has_at_most_one_edit_a_head_and_only_allowed_ones(seed, letters, most):
    rng = random.Random(seed)
    every = Alphabet(GRID, letters)
    allowed = [every.choices[i] for i in rng.sample(every.allowed, rng.randint(6, len(every.allowed)))]
    options = GeneticSettings(population=12, elites=4, max_heads=most, seed=seed)
    breeder = Breeder(GRID, letters, options, rng.sample(allowed, len(allowed) - 2), allowed)
    seeds = [Mask.of(GRID, {"L0.H0": "queries"}), breeder.mask(breeder.allowed[:1])]
    alive = breeder.first_population(seeds)
    archive = {genome: (rng.random(), 0.0, 0, "") for genome in alive}
    for _ in range(4):
        children = breeder.offspring(alive, archive)
        assert not set(children) & set(archive)
        archive.update({genome: (rng.random(), 0.0, 0, "") for genome in children})
        alive = sorted(archive, key=archive.__getitem__)[:12]
    for genome in archive:
        mask = breeder.mask(genome)
        assert mask.size == len(genome) <= (most or GRID.size)
        assert choices_of(mask) <= set(allowed)
        assert breeder.alphabet.numbers(mask) == genome


class Tuned:
    """Every head has its own best edit, all others hurt; half of the heads are best kept."""

    def __init__(self, seed: int):
        heads = random.Random(seed).sample(list(GRID), GRID.size // 2)
        self.best = dict(zip(heads, cycle(map(Edit.parse, LETTERS)), strict=False))

    @property
    def mask(self) -> Mask:
        return Mask.of(GRID, self.best)

    def __call__(self, mask: Mask) -> float:
        return 0.5 + sum(0.01 if self.best.get(head) == edit else -0.01 for head, edit in mask.edits.items())


@pytest.mark.parametrize("seed", range(4))
def test_the_exact_search_gives_each_head_its_own_edit(seed):
    tuned = Tuned(seed)
    found = genetic(Counting(tuned), GRID, LETTERS, GeneticSettings(generations=40, patience=40, seed=seed))
    assert found.best.mask == tuned.mask
    for letter in LETTERS:
        alone = genetic(Counting(tuned), GRID, letter, GeneticSettings(generations=20, seed=seed))
        assert alone.best.score.fitness < found.best.score.fitness
    again = genetic(Counting(tuned), GRID, LETTERS, GeneticSettings(generations=40, patience=40, seed=seed))
    assert again.history == found.history


# ---- a tower in which one head is too quiet and another one too loud

QUIET, LOUD = Head(0, 1), Head(1, 2)
BOTH = {QUIET: "scale(1.5)", LOUD: "zero"}


@pytest.fixture(scope="module")
def case() -> Planted:
    """Captions are near the embeddings with one head amplified and one, 20 times as loud as others, suppressed."""
    module = small_clip()
    with torch.no_grad():
        layers = [layer.self_attn.out_proj.weight for layer in module.vision_model.encoder.layers]
        layers[QUIET.layer][:, 16 * QUIET.index : 16 * QUIET.index + 16] *= 8
        layers[LOUD.layer][:, 16 * LOUD.index : 16 * LOUD.index + 16] *= 20
    tower = tower_of(module)
    pixels = torch.randn(32, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    ((_, clean),) = embed(tower, pixels, [Mask.of(tower.grid, BOTH)], plan(tower, dtype="float32"))
    texts = torch.nn.functional.normalize(clean - clean.mean(0)).repeat_interleave(2, 0)  # (2·N, E)
    texts = texts + 0.02 * torch.randn(texts.shape, generator=torch.Generator().manual_seed(2))
    return Planted(tower, pixels, texts, np.repeat(np.arange(32), 2), [])


class Searching:
    """The sweeps of several edits, and what estimates need of them."""

    def __init__(self, case: Planted, letters: tuple[str, ...]):
        self.letters, self.grid = letters, case.tower.grid
        self.evaluate = Evaluator(
            case.tower, plan(case.tower, dtype="float32"), case.images, Retrieval(case.texts, case.owner, SCALE)
        )
        self.effects, parts = [], []
        for letter in letters:
            self.evaluate.observe = keep = Collector(self.grid, letter, identity=parts[0].identity if parts else None)
            self.effects += [effect.found for effect in sweep(self.evaluate, self.grid, letter).heads]
            parts.append(keep.deltas)
        self.changes = Joined(parts)
        singles = sorted(self.effects, key=lambda found: found.order)
        self.ranking = [choice for found in singles for choice in found.mask.edits.items()]

    def anchors(self) -> Anchors:
        anchors = Anchors(self.changes, self.evaluate.embeddings)
        self.evaluate.observe = anchors.observe
        return anchors

    def run(self, seed: int = 0, exact: bool = False):
        if exact:
            options = GeneticSettings(population=24, generations=12, seed=seed)
            return genetic(self.evaluate, self.grid, self.letters, options, ranking=self.ranking)
        options = GeneticSettings(seed=seed)
        how = EstimateSettings(rounds=12, inner=GeneticSettings(population=16, generations=4, elites=4))
        more = {"ranking": self.ranking, "heads": list(self.changes.rows)}
        objective = self.evaluate.objective
        return estimated(self.evaluate, self.grid, self.letters, self.anchors(), objective, options, how, **more)


@pytest.mark.parametrize("exact", [False, True])
def test_one_head_is_turned_up_and_another_one_off(case, exact):
    both, wanted = Searching(case, ("zero", "scale(1.5)")).run(exact=exact), Mask.of(case.tower.grid, BOTH)
    assert choices_of(wanted) <= choices_of(both.best.mask)
    for letter in ("zero", "scale(1.5)"):
        alone = Searching(case, (letter,)).run(exact=exact)
        assert not choices_of(wanted) <= choices_of(alone.best.mask)
        assert alone.best.score.order < both.best.score.order


def test_the_same_seed_gives_the_same_search(case):
    runs = [Searching(case, ("zero", "scale(1.5)")).run(seed) for seed in (1, 1, 2)]
    assert runs[0].history == runs[1].history
    assert runs[0].best.mask == runs[1].best.mask
    assert runs[0].history != runs[2].history


def test_anchors_move_from_one_edit_of_a_head_to_another(case):
    search = Searching(case, ("zero", "scale(1.5)"))
    grid, anchors, rows = search.grid, search.anchors(), search.changes.rows
    run = Mask.of(grid, {"L0.H0": "zero", "L2.H1": "scale(1.5)"})
    search.evaluate([run])
    anchors.keep([run])
    ((_, exact),) = embed(case.tower, case.images, [run], plan(case.tower, dtype="float32"))
    torch.testing.assert_close(anchors.embeddings(run), exact, atol=2e-3, rtol=0)  # kept in float16
    other = Mask.of(grid, {"L0.H0": "scale(1.5)", "L2.H1": "scale(1.5)", "L1.H1": "zero"})
    assert anchors.nearest(other) == 3  # one edit goes, two come
    assert anchors.distance(other) == 2  # from the unchanged model, which is as near
    third = Mask.of(grid, {**run.edits, Head(1, 1): Edit.parse("zero"), Head(0, 0): Edit.parse("scale(1.5)")})
    assert third == other
    step = Mask.of(grid, {**run.edits, Head(0, 0): Edit.parse("scale(1.5)"), Head(2, 2): Edit.parse("zero")})
    near = Mask.of(grid, {**run.edits, Head(2, 2): Edit.parse("zero")})
    search.evaluate([near])
    anchors.keep([near])
    zero, more = Edit.parse("zero"), Edit.parse("scale(1.5)")
    moved = dict(embed(case.tower, case.images, [near], plan(case.tower, dtype="float32")))[near]
    moved = moved - rows[Head(0, 0), zero].float() + rows[Head(0, 0), more].float()
    torch.testing.assert_close(anchors.embeddings(step), moved, atol=5e-3, rtol=0)
    with pytest.raises(HeadwiseError, match=r"L0\.H0=keys"):
        anchors.embeddings(Mask.of(grid, {"L0.H0": "keys"}))


def test_pairs_mix_edits_but_never_name_a_head_twice(case):
    search = Searching(case, ("zero", "scale(1.5)"))
    pairs = Pairs(search.changes)
    ranked = list(pairs.ranked)
    assert all(one[0] != other[0] for one, other in ranked)
    assert any(one[1] != other[1] for one, other in ranked)
    assert len(set(ranked)) == len(ranked) == 24 * 23 // 2 - 12
    start = Mask.of(search.grid, {"L1.H1": "zero"})
    assert all(mask.size == 3 and choices_of(start) <= choices_of(mask) for mask in pairs(start, 6))
    assert [mask.size for mask in pairs.loudest((3, 4, 40))] == [3, 4]


def test_controls_carry_the_same_edits_in_the_same_layers(case):
    mask = Mask.of(case.tower.grid, {"L0.H1": "scale(1.5)", "L0.H2": "zero", "L1.H2": "zero"})
    for other in controls(mask, 20, seed=3):
        rows = [sorted(map(str, row)) for row in other.table]
        assert rows == [sorted(map(str, row)) for row in mask.table]

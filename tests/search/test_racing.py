import numpy as np
import pytest
import torch
from synthetic import Counting

from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Plan, embed, ffe
from headwise.scoring.objectives import Retrieval
from headwise.search.racing import FilledSubsets, RaceSettings, Rest, race

GRID = Grid((6, 6))
IMAGES = 400


class Units:
    """Masks with per-image units: the better the head's number, the more images it gets right."""

    def __init__(self, masks, seed=0, spread=0.3):
        rng = np.random.default_rng(seed)
        easy = rng.random(IMAGES)  # images differ in difficulty, the same for every mask
        gains = np.linspace(0, spread, len(masks))
        self.units = {
            mask.key: np.clip(easy + gain + rng.normal(0, 0.2, IMAGES), 0, 1).astype(np.float32)
            for mask, gain in zip(masks, rng.permutation(gains), strict=True)
        }
        self.spent, self.seen = 0.0, {}

    def __call__(self, masks, indices):
        for mask in masks:
            new = set(indices) - self.seen.setdefault(mask.key, set())
            self.spent += len(new) / IMAGES
            self.seen[mask.key] |= new
        return [self.units[mask.key][list(indices)] for mask in masks]

    def exact(self):
        return Counting(lambda mask: float(self.units[mask.key].mean()))


MASKS = [Mask.identity(GRID), *(Mask.suppress(GRID, [head]) for head in GRID)]


def test_the_winner_is_the_exact_winner_on_at_least_19_of_20_seeds_and_ffe_are_saved():
    right, saved = 0, 0.0
    for seed in range(20):
        units = Units(MASKS, seed)
        found = race(units, units.exact(), MASKS, IMAGES, RaceSettings(seed=seed))
        best = max(MASKS, key=lambda mask: units.units[mask.key].mean())
        right += found.winner.mask == best
        saved += found.saved / found.ffe_without
    assert right >= 19
    assert saved / 20 > 0.3


def test_survivors_are_ranked_by_their_exact_scores_and_nothing_is_lost():
    units = Units(MASKS)
    exact = units.exact()
    found = race(units, exact, MASKS, IMAGES)
    fitness = [item.score.fitness for item in found.ranking]
    assert fitness == sorted(fitness, reverse=True)
    assert fitness == [exact.known[item.mask.key].fitness for item in found.ranking]
    assert {item.mask for item in found.ranking} | {item.mask for item in found.dropped} == set(MASKS)
    assert exact.asked == [item for item in MASKS if item not in {gone.mask for gone in found.dropped}]
    assert found.ffe == units.spent + exact.spent
    assert found.ffe_without == len(MASKS)


def test_a_dropped_mask_says_when_and_by_how_much_it_was_behind():
    units = Units(MASKS)
    found = race(units, units.exact(), MASKS, IMAGES, RaceSettings(fractions=(0.25, 0.5)))
    assert {item.images for item in found.dropped} <= {100, 200}
    assert all(item.behind > 0 and item.p < RaceSettings().alpha / len(MASKS) / 2 for item in found.dropped)


def test_a_guess_of_the_units_drops_more_and_keeps_the_winner():
    """The guess knows how hard each image is for each mask, up to noise."""
    saved = {"plain": 0.0, "guessed": 0.0}
    for seed in range(5):
        rng = np.random.default_rng(seed)
        guesses = {key: units + rng.normal(0, 0.05, IMAGES) for key, units in Units(MASKS, seed).units.items()}
        for name, guess in (("plain", None), ("guessed", lambda mask: guesses[mask.key])):  # noqa: B023
            units = Units(MASKS, seed, spread=0.1)
            found = race(units, units.exact(), MASKS, IMAGES, RaceSettings(seed=seed), guess)
            assert found.winner.mask == max(MASKS, key=lambda mask: units.units[mask.key].mean())
            saved[name] += found.saved
    assert saved["guessed"] > 1.3 * saved["plain"] > 0


def test_a_guess_that_says_nothing_changes_no_decision():
    units, again = Units(MASKS), Units(MASKS)
    plain = race(units, units.exact(), MASKS, IMAGES)
    flat = race(again, again.exact(), MASKS, IMAGES, guess=lambda mask: np.zeros(IMAGES))
    assert [(d.mask, d.p) for d in plain.dropped] == [(d.mask, d.p) for d in flat.dropped]


def test_equal_masks_all_survive():
    units = Units(MASKS)
    same = units.units[MASKS[0].key]
    units.units = dict.fromkeys(units.units, same)
    assert race(units, units.exact(), MASKS, IMAGES).dropped == ()


def test_nothing_is_dropped_on_a_handful_of_images():
    units = Units(MASKS, spread=0.9)
    early = RaceSettings(fractions=(0.05, 0.1))  # 20 and 40 images
    assert race(units, units.exact(), MASKS, IMAGES, early).dropped == ()
    assert units.spent == 0
    assert race(units, units.exact(), MASKS, IMAGES, RaceSettings(fractions=(0.05, 0.2))).dropped != ()


def test_one_mask_wins_without_any_subset():
    units = Units(MASKS)
    found = race(units, units.exact(), [MASKS[3], MASKS[3]], IMAGES)
    assert found.winner.mask == MASKS[3]
    assert units.spent == 0
    assert found.saved == 0


@pytest.mark.parametrize("bad", [{"fractions": (0.5, 0.25)}, {"fractions": (0.5, 1.0)}, {"alpha": 0.0}])
def test_senseless_settings_are_refused(bad):
    with pytest.raises(HeadwiseError, match="Racing"):
        RaceSettings(**bad)


def test_no_masks_is_an_error():
    with pytest.raises(HeadwiseError, match="no masks"):
        race(Units(MASKS), Counting(lambda mask: 0.0), [], IMAGES)


class Real:
    """The engine's exact scores."""

    def __init__(self, tower, images, objective):
        self.all = {mask.key: objective(e) for mask, e in embed(tower, images, MASKS_OF(tower), Plan())}
        self.spent = 0.0

    def cost(self, masks):
        return float(len(masks))

    def __call__(self, masks):
        self.spent += len(masks)
        return [self.all[mask.key] for mask in masks]


def MASKS_OF(tower):
    return [Mask.identity(tower.grid), *(Mask.suppress(tower.grid, [head]) for head in tower.grid)]


def test_on_the_engine_units_of_a_complete_subset_are_the_exact_units(tower, images):
    generator = torch.Generator().manual_seed(3)
    objective = Retrieval(torch.randn(20, 24, generator=generator), np.repeat(np.arange(10), 2))
    masks = MASKS_OF(tower)
    ((_, identity),) = embed(tower, images, masks[:1], Plan())
    subsets = FilledSubsets(tower, Plan(), lambda i: images[list(i)], objective, identity)
    first = subsets(masks, [7, 2, 5])
    assert [len(units) for units in first] == [3] * len(masks)
    half = subsets.spent
    order = [7, 2, 5, 0, 1, 3, 4, 6, 8, 9]
    whole = subsets(masks, order)
    assert subsets.spent == pytest.approx(half * 10 / 3)  # images that were seen are not run again
    exact = Real(tower, images, objective)
    for mask, units in zip(masks, whole, strict=True):
        np.testing.assert_array_equal(units, exact.all[mask.key].units[order])
    found = race(subsets, exact, masks, 10, RaceSettings(fractions=(0.4, 0.8)))
    assert found.winner.score.fitness == max(item.fitness for item in exact.all.values())


def test_survivors_are_finished_with_the_images_that_no_rung_has_seen(tower):
    generator = torch.Generator().manual_seed(3)
    images = torch.randn(100, 3, 32, 32, generator=generator)
    objective = Retrieval(torch.randn(200, 24, generator=generator), np.repeat(np.arange(100), 2))
    masks = MASKS_OF(tower)
    ((_, identity),) = embed(tower, images, masks[:1], Plan())
    subsets = FilledSubsets(tower, Plan(), lambda i: images[list(i)], objective, identity)
    found = race(subsets, Rest(subsets), masks, 100, RaceSettings(fractions=(0.5, 0.8)))
    exact = Real(tower, images, objective)
    for item in found.ranking:
        assert item.score.fitness == exact.all[item.mask.key].fitness
        np.testing.assert_array_equal(item.score.units, exact.all[item.mask.key].units)
    if not found.dropped:
        assert found.ffe == pytest.approx(found.ffe_without)
    assert found.ffe_without == pytest.approx(ffe(tower, masks))
    assert found.ffe <= found.ffe_without + 1e-9

import pytest
from synthetic import Counting, Landscape, bits

from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.greedy import greedy
from headwise.search.sweep import sweep

GRID = Grid((4, 4, 4))


def run(function, **options):
    evaluate = Counting(function)
    ranking = sweep(evaluate, GRID, "zero").ranking
    before = len(evaluate.calls)
    return greedy(evaluate, GRID, "zero", ranking, **options), evaluate, evaluate.calls[before:]


def test_additive_effects_are_solved_exactly_and_it_stops_when_nothing_improves():
    gains = Landscape(GRID, seed=3, pairs=0.0).single
    found, _, _ = run(lambda mask: 0.5 + float(bits(mask) @ gains))
    assert found.best.mask == Mask.suppress(GRID, [head for head, gain in zip(GRID, gains, strict=True) if gain > 0])
    assert found.why == "no improvement"
    assert [item.mask.size for item in found.path] == list(range(len(found.path)))


def test_each_step_is_one_call_of_at_most_width_masks_that_extend_the_path():
    found, _, calls = run(Landscape(GRID, seed=1), width=5, max_heads=4, patience=9)
    steps = calls[1:]  # the first call is identity
    assert [len(call) for call in steps] == [5] * 4
    for step, before in zip(steps, found.path, strict=False):
        assert all(before.mask | mask == mask and mask.size == before.mask.size + 1 for mask in step)
    assert found.why == "max heads"


def test_patience_walks_through_a_step_that_does_not_improve():
    def trap(mask: Mask) -> float:  # two heads help together, each alone does nothing but is best of its kind
        return {0: 0.5, 1: 0.49, 2: 0.6}.get(mask.size, 0.4)

    impatient, _, _ = run(trap)
    patient, _, _ = run(trap, patience=2)
    assert impatient.best.mask.is_identity
    assert patient.best.mask.size == 2


def test_budget_is_never_exceeded():
    for budget in (0.5, 3.0, 8.0, 17.0):
        evaluate = Counting(Landscape(GRID, seed=5))
        found = greedy(evaluate, GRID, "zero", list(GRID), budget=budget, patience=20)
        assert evaluate.spent <= max(budget, 1.0)  # identity is always asked for
        assert found.why == "budget"
        assert found.ffe == evaluate.spent


def test_all_heads_may_end_up_suppressed():
    found, _, _ = run(lambda mask: mask.size / 100)
    assert found.best.mask.size == GRID.size
    assert found.why == "all heads suppressed"


@pytest.mark.parametrize("options", [{"width": 0}, {"patience": 0}, {"max_heads": 0}])
def test_senseless_settings_are_refused(options):
    with pytest.raises(HeadwiseError, match="at least 1"):
        greedy(Counting(Landscape(GRID)), GRID, "zero", list(GRID), **options)

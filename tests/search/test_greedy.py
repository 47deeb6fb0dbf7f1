import pytest
from synthetic import Counting, Landscape, bits, score

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


def test_each_step_is_one_call_of_width_masks_that_extend_the_path_while_that_helps():
    found, _, calls = run(Landscape(GRID, seed=3, pairs=0.0), width=5, max_heads=2)
    steps = calls[1:]  # the first call is identity
    assert [len(call) for call in steps[:2]] == [5, 5]
    for step, before in zip(steps[:2], found.path, strict=False):
        assert all(before.mask | mask == mask and mask.size == before.mask.size + 1 for mask in step)
    assert max(mask.size for call in calls for mask in call) == 2
    assert found.path[-1].mask.size == 2


def test_where_no_head_helps_heads_are_left_out_again():
    """The first head alone is the best, but the others do without it."""
    harmful, decoy = {"L0.H1", "L1.H2"}, "L2.H0"

    def value(mask: Mask) -> float:
        heads = set(map(str, mask.heads))
        return (
            0.5
            + 0.1 * len(heads & harmful) * (1 if heads >= harmful else -1)
            + 0.05 * (heads == {decoy})
            - (0.01 * len(heads - harmful))
        )

    def path(**options):
        pair = Mask.suppress(GRID, sorted(harmful), "zero")
        return run(value, pairs=lambda mask, count: [mask | pair], **options)[0]

    assert path().best.mask == Mask.suppress(GRID, sorted(harmful), "zero")
    assert [str(found.mask) for found in path().path][1] == f"{decoy}=zero"


def test_a_second_walk_follows_the_loss_where_the_fitness_says_nothing():
    target = Mask.suppress(GRID, ["L0.H0", "L1.H1", "L2.H2"], "zero")

    class Plateau(Counting):
        def __call__(self, masks):
            scores = super().__call__(masks)
            return [score(s.fitness, float((mask ^ target).size)) for s, mask in zip(scores, masks, strict=True)]

    def fitness(mask: Mask) -> float:  # noise, but for the target
        return 0.9 if mask == target else 0.1 + 0.01 * (mask.heads[0].index if mask.size == 1 else -1)

    for second in (False, True):
        evaluate = Plateau(fitness)
        found = greedy(evaluate, GRID, "zero", list(GRID), width=12, second=second)
        assert (found.best.mask == target) == second
        assert found.ffe == evaluate.spent


def test_estimates_choose_half_of_the_candidates_anew_after_every_step():
    class Last:
        """Expects most of the last head, then of the one before it."""

        learned: list[Mask] = []  # noqa: RUF012

        def learn(self, masks):
            self.learned += masks

        def __call__(self, masks):
            return [(float(max(map(list(GRID).index, mask.heads))), 0.0) for mask in masks]

    found, evaluate, calls = run(lambda mask: mask.size / 100, width=4, max_heads=3, guess=Last())
    assert all("L2.H3" in str(mask) for mask in calls[1][:1])  # not among the first four of the ranking
    multiple = [mask for mask in evaluate.asked if mask.size > 1]
    assert {mask.key for mask in Last.learned} == {mask.key for mask in multiple}
    assert found.best.mask.size == 3


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

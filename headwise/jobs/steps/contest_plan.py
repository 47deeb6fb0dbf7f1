"""The plan of a comparison: what each method will cost, all its seeds together, and in how many minutes here.

In: a prepared bench, settings with the budget that every method gets, the short timing. Out: stages of `planning.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headwise.baselines import BASELINES
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.budget import FIRST_ORDER, open_budget, starting_cost
from headwise.jobs.steps.contest_settings import BACKWARD, SEEDED, CompareSettings
from headwise.jobs.steps.pace import epochs_within
from headwise.jobs.steps.planning import SHARED, Speed, Stage, expected, learning_cost, together
from headwise.jobs.steps.settings import CANDIDATES, STRATEGIES
from headwise.jobs.steps.trained import WHOLE


def contest_stages(bench: Bench, kept: Sequence[Bench], settings: CompareSettings, speed: Speed) -> list[Stage]:
    """In the order in which they are run; the last line is the test split, which no budget bounds.

    Arguments:
        bench, settings: what is compared; the budget is that of each method.
        kept: the kept domains, whose images are all scored at the end.
        speed: from `planning.timing`.
    """
    images = {name: len(bench.indices(name)) for name in ("search", "pick", "test")}
    grid, out, searches = bench.tower.grid, [], 0

    def add(name: str, about: float, most: float, scores: float, of: int, bounded: bool = True) -> None:
        share = of / images["search"]
        seconds = about * speed.ffe * share + scores * speed.score * share**2
        out.append(Stage(name, about, most, seconds / 60, bounded))

    for operator in settings.search.operators:
        one = replace(settings.of(0), operators=(operator,), max_minutes=None)
        budget = open_budget(bench, one, speed.ffe, 0.0)
        left, sweep = budget.total - budget.reserved, starting_cost(bench, operator)
        swept = one.sweep and sweep <= left
        start = sweep if swept else FIRST_ORDER + min(1 + SHARED * grid.size / 3, (left - FIRST_ORDER) / 2)
        add(f"{'sweep' if swept else 'first-order scores, first heads'} ({operator})", start, start, grid.size + 1,
            images["search"])  # fmt: skip
        left -= start
        judged = 1  # the best single head
        for name in STRATEGIES:
            if name not in settings.strategies:
                continue
            times = settings.repeats if name in SEEDED else 1
            seeding, scores = (0.0, 0.0)
            if name == "ga":  # the walk of the greedy search that seeds it, the same for every seed
                seeding, scores = expected(bench, one, "greedy", left / 2)
            about, own = expected(bench, one, name, left - seeding)
            add(f"{name} ({operator}), {_times(times)}", times * (seeding + about), times * left,
                times * own + scores, images["search"])  # fmt: skip
            judged += times * (2 if name == "bp" else 1)
        searches += judged
        pick = together(bench, min(one.finalists, max(1, int(budget.reserved) - 1)))
        add(f"pick split ({operator})", judged * pick, judged * (one.finalists + 1.0), judged * pick, images["pick"])
    for rung in settings.learned:
        one = replace(settings.of(0), rungs=(rung,), max_minutes=None)
        budget, times = open_budget(bench, one, speed.ffe, 0.0), settings.repeats
        left = budget.total - budget.reserved
        about = times * learning_cost(one, left)
        add(f"learning {rung}, {_times(times)}", about, times * left, times * CANDIDATES, images["search"])
        pick, searches = times * together(bench, int(CANDIDATES) - 1), searches + times
        add(f"pick split ({rung})", pick, times * CANDIDATES, times * CANDIDATES, images["pick"])
    holdout = settings.training.holdout
    for name in BASELINES:
        if name in settings.strategies:
            epochs, epoch = epochs_within(settings), BACKWARD * (1 - holdout) + holdout
            # half of the epochs, as for AAT-BP: most end by their patience
            about, most = (1.0, 1.0) if name in WHOLE else (holdout + epochs / 2 * epoch, holdout + epochs * epoch)
            times = settings.repeats
            add(f"{name}, {_times(times)}", times * about, times * most, times * epochs, images["search"])
    masks = 2 * searches + settings.search.controls
    about = together(bench, masks)
    for domain in kept:
        add(
            f"kept domain {domain.pairs.name} (outside the budget)", about, masks + 1.0, masks, len(domain.pairs), False
        )
    add("test split (outside the budget)", about, masks + 1.0, masks, images["test"], False)
    return out


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"

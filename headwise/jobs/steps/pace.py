"""What each method of a comparison may spend: the same FFE for all, and of a time limit the same share of what is left.

In: settings, how fast the model runs here. Out: `Pace`, which hands every run its share, in the order of the runs. What
a clock said is kept in the study (`budget.Clock`), so that a comparison that goes on decides the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from headwise.errors import HeadwiseError
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.budget import Clock, least, starting_cost, total_of
from headwise.jobs.steps.contest_settings import BACKWARD, SEEDED, CompareSettings
from headwise.jobs.steps.settings import SEARCH_FFE, STRATEGIES
from headwise.search.contract import Left


@dataclass
class Pace:
    """
    Arguments:
        minutes: most minutes of all runs together; None: no limit, and every share is endless.
        rate: seconds of one FFE, from a short timing.
        clock: seconds since the command began.
        runs: how many are to come.
    """

    minutes: float | None
    rate: float
    clock: Callable[[], float]
    runs: int

    def share(self) -> Left | None:
        """FFE that the next run may spend by the clock, from now on; None: as many as it likes."""
        if self.minutes is None:
            return None
        now = self.clock()
        deadline = now + max(0.0, 60 * self.minutes - now) / max(1, self.runs)
        self.runs -= 1
        return lambda: max(0.0, deadline - self.clock()) / self.rate


def runs_of(settings: CompareSettings) -> tuple[int, int]:
    """How many searches (of all operators) and how many trainings, learned rungs among them, there are."""
    searches = sum(settings.repeats if name in SEEDED else 1 for name in STRATEGIES if name in settings.strategies)
    trainings = settings.repeats * sum(name not in STRATEGIES for name in settings.strategies)
    return searches * len(settings.search.operators), trainings


def paced(bench: Bench, settings: CompareSettings, rate: float, began: float) -> tuple[CompareSettings, Pace]:
    """The settings with the one budget in FFE that every method gets, and the clock that all share.

    With minutes the budget is what they pay for at this machine's rate, divided by the runs.

    Raises:
        HeadwiseError: minutes that do not pay for the least that every method takes.
    """
    search = settings.search
    clock = Clock(bench.study, began, replace(settings, search=replace(search, max_minutes=None)))
    searches, trainings = runs_of(settings)
    pace = Pace(search.max_minutes, rate, clock, searches + trainings)
    if search.max_minutes is None:
        return settings, pace
    operators = search.operators
    start = sum(starting_cost(bench, operator) for operator in operators) if search.sweep else 0.0
    own = start / len(operators)  # of each search's budget, run once for all of them
    can_spend = (60 * search.max_minutes - clock()) / rate
    each = can_spend / max(1, searches + trainings)
    if each * (searches + trainings) > start:  # what all start from is run once and counts in each
        each = max(each, (can_spend - start + searches * own) / max(1, searches + trainings))
    given = max(total_of(bench, replace(search, operators=(operator,))) for operator in operators)
    fewest = max(BACKWARD, least(replace(search, operators=operators[:1]), 0))
    if each < fewest:
        needed = search.max_minutes + (fewest - each) * (searches + trainings) * rate / 60
        raise HeadwiseError(
            f"{search.max_minutes:g} minutes are too few: they pay for {max(0.0, each):.1f} FFE of each of the "
            f"{searches + trainings} searches and trainings here, and the least that one takes is {fewest:.1f} FFE. Give at "
            f"least --max-minutes {math.ceil(10 * needed) / 10:g}, fewer --repeats or fewer names with --strategy."
        )
    return replace(settings, search=replace(search, budget=min(given, each))), pace


def epochs_within(settings: CompareSettings, left: Left | None = None) -> int:
    """Most epochs of a training that its budget, and its share of the time, pay for; at least one."""
    holdout = settings.training.holdout
    epoch = BACKWARD * (1 - holdout) + holdout
    budget = SEARCH_FFE if settings.search.budget is None else settings.search.budget
    return max(1, min(settings.training.epochs, int(min(budget, math.inf if left is None else left()) / epoch)))

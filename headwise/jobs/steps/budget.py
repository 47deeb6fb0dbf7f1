"""What may be spent before the test split, in FFE and in minutes, and how it is divided.

One FFE is a pass of the whole image tower over the split at hand (a gradient pass is two or three, `gated.py`). Every
question "how much is left" has one answer for a run and its continuation: FFE follow from what was asked for, and what
a clock said is kept in the study, question by question.
"""

from __future__ import annotations

import hashlib
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from headwise.edits.edit import unbound
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import ffe
from headwise.evaluation.evaluator import Evaluator
from headwise.evaluation.study import Study
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.settings import SEARCH_FFE, Settings
from headwise.search.contract import Left
from headwise.search.gated import trained_cost
from headwise.wording import option

FIRST_ORDER = 1.0 + trained_cost(False)  # FFE of first-order scores: one pass forward, one forward and backward
PICK_SHARE = 0.15  # of a budget that is kept for the finalists, where that pays for fewer than were asked for
SPARE = 3  # with kept domains: masks of every operator and size, and times as many in all, that they are checked on
REFIT_SHARE = 0.5  # of what is left for the searches for masks that learning again may take; else it is left out
STEADY = 10.0  # FFE after which the rate is the run's own and not that of the short timing


@dataclass
class Clock:
    """Seconds since a run began, the time before a kill included; every answer is kept in the study.

    Arguments:
        study: where answers are kept; None keeps none.
        began: `time.monotonic()` when the command began.
        about: the settings that the run has, but for its minutes: another run's answers in the same study are not its own.
    """

    study: Study | None
    began: float
    about: object = None
    _asked: int = 0
    _offset: float = 0.0

    def __post_init__(self) -> None:
        self._key = hashlib.sha256(repr(self.about).encode()).hexdigest()[:12]

    def __call__(self) -> float:
        name = f"clock {self._key} {self._asked}"
        self._asked += 1
        now = time.monotonic() - self.began
        known = self.study.read(name) if self.study else None
        if isinstance(known, float):
            self._offset = known - now
            return known
        value = now + self._offset
        if self.study:
            self.study.note(name, value)
        return value


@dataclass
class Budget:
    """FFE that may be spent before the test split.

    Arguments:
        total: all of them.
        minutes: most minutes; None: no limit.
        rate: seconds of one FFE, from a short timing; used with `minutes` alone.
        clock: seconds since the run began.
        reserved: FFE kept for the finalists.
        above: FFE kept for the rungs that train weights, and for learning again; these come last.
        refit: of them for learning again; 0: not asked for, or not paid for.
    """

    total: float
    minutes: float | None
    rate: float
    clock: Callable[[], float]
    reserved: float = 0.0
    above: float = 0.0
    refit: float = 0.0
    _spenders: list[Evaluator] = field(default_factory=list)

    def watch(self, evaluate: Evaluator) -> Evaluator:
        """Count what this evaluator spends."""
        self._spenders.append(evaluate)
        return evaluate

    @property
    def spent(self) -> float:
        """FFE so far, of all evaluators that are watched."""
        return sum(evaluate.spent for evaluate in self._spenders)

    def left(self) -> float:
        """FFE that are left of everything; with minutes no more than what the rest of them pays for."""
        left = self.total - self.spent
        if self.minutes is not None:
            seconds = self.clock()
            rate = seconds / self.spent if self.spent >= STEADY else self.rate
            left = min(left, (60 * self.minutes - seconds) / rate)
        return max(0.0, left)

    def open(self) -> float:
        """FFE that are left beside what is kept."""
        return max(0.0, self.left() - self.reserved - self.above)

    def share(self, parts: float) -> Left:
        """One of so many parts of what is left beside the reserve, from now on."""
        return divided(self.open, lambda: self.spent, parts)

    def finalists(self, settings: Settings, kept: int, anchored: bool = False) -> int:
        """How many finalists the rest pays for, with a kept domain's checks; identity always comes with them."""
        left = self.left() - self.above
        most = settings.finalists
        while most > 1 and picking(most, kept, anchored) > left:
            most -= 1
        return most


def divided(left: Left, spent: Callable[[], float], parts: float) -> Left:
    """One of so many parts of what is left now; never more than what is left then."""
    part, start = max(0.0, left()) / parts, spent()
    if parts == 1 and not math.isfinite(part):
        return left
    return lambda: max(0.0, min(part - (spent() - start), left()))


def picking(finalists: int, kept: int, anchored: bool = False) -> float:
    """Most FFE of so many finalists and identity on the pick split, of what is checked on kept domains, and of how far
    finalists move anchors."""
    return (1 + anchored) * (finalists + 1.0) + kept * (SPARE * finalists + 1.0)


def weights_cost(settings: Settings, kept: int, anchored: bool = False) -> float:
    """FFE of the rungs that train weights; none of it can be left out."""
    return len(settings.weights) * settings.weights_ffe(anchored, kept)


def refit_cost(bench: Bench, settings: Settings) -> float:
    """Most FFE of learning again what was chosen, from search and pick images; 0 where that is not asked for."""
    if not settings.refit:
        return 0.0
    search, pick = len(bench.splits.search), len(bench.splits.pick)
    return (search + pick) / search * settings.refit_ffe(bool(bench.anchored), len(bench.kept))


def starting_cost(bench: Bench, operator: str) -> float:
    """FFE of the sweep."""
    grid = bench.tower.grid
    singles = (Mask.suppress(grid, [head], operator) for head in bench.tower.able(operator))
    return ffe(bench.tower, [Mask.identity(grid), *singles])


def anchoring_cost(bench: Bench) -> float:
    """FFE of embedding the anchors once, in passes over the search split; 0 without anchors."""
    return len(bench.anchored.pairs) / len(bench.splits.search) if bench.anchored else 0.0


def least(settings: Settings, kept: int, anchored: bool = False) -> float:
    """The fewest FFE that a run takes: first-order scores and one head for each operator, one finalist, trained weights."""
    means = float(unbound(settings.searching))
    weights = weights_cost(settings, kept, anchored)
    return max(1, len(settings.searching)) * (FIRST_ORDER + 1.0) + 1.0 + means + picking(1, kept, anchored) + weights


def check_budget(settings: Settings, kept: int, anchored: bool = False) -> None:
    """Whether the budget pays for anything, before data are read.

    Arguments:
        kept: how many kept domains there are.
        anchored: whether there are anchors.

    Raises:
        HeadwiseError: it does not pay for the least that a run takes.
    """
    fewest = least(settings, kept, anchored)
    weights = f", and training {' and '.join(settings.weights)}," if settings.weights else ""
    if settings.budget is not None and settings.budget < fewest:
        raise HeadwiseError(
            f"A budget of {settings.budget:g} FFE is too small: first-order scores, one head for each edit and one "
            f"finalist{weights} take up to {fewest:.1f}. Give at least --budget {math.ceil(fewest)}."
        )


def total_of(bench: Bench, settings: Settings, searching: float = SEARCH_FFE) -> float:
    """The budget in FFE: what was given, or the sweep and so many for each operator and the finalists."""
    if settings.budget is not None:
        return settings.budget
    return certain(bench, settings) + searching * len(settings.searching) + refit_cost(bench, settings)


def certain(bench: Bench, settings: Settings) -> float:
    """FFE of all but the searches for masks and learning again: what they start from, learned rungs, finalists, weights."""
    around = len(bench.kept), bool(bench.anchored)
    start = sum(starting_cost(bench, operator) if settings.sweep else FIRST_ORDER for operator in settings.searching)
    rungs = settings.rung_ffe(bool(bench.anchored)) * len(settings.learning) + anchoring_cost(bench)
    return start + rungs + weights_cost(settings, *around) + picking(settings.finalists, *around)


def parts(settings: Settings, done: int, left: float, anchored: bool = False) -> float:
    """How many parts of what is left there are, the next rung's own being one: learned rungs get what all their epochs take,
    and masks the rest, but never less than an even part each.

    Arguments:
        done: edits searched, then all of them together where AAT-GA mixes them, and rungs learned so far.
        left: FFE beside the reserve.
        anchored: whether there are anchors.
    """
    searches = len(settings.searching) + settings.mixes - done
    even = searches + len(settings.learning)
    if done >= len(settings.searching) + settings.mixes:
        return even
    rest = left - len(settings.learning) * settings.rung_ffe(anchored)
    return left * searches / max(rest, left * searches / even) if left > 0 else even


def open_budget(bench: Bench, settings: Settings, rate: float, began: float, searching: float = SEARCH_FFE) -> Budget:
    """The budget of a run.

    Arguments:
        bench, settings: of the run.
        rate: seconds of one FFE on this machine; a run that goes on is given what its first part measured.
        began: `time.monotonic()` when the command began.
        searching: FFE for the searches of an operator where no budget was given.

    Raises:
        HeadwiseError: a budget, or minutes, that do not pay for the least that a run takes.
    """
    around = len(bench.kept), bool(bench.anchored)
    check_budget(settings, *around)
    total, fewest = total_of(bench, settings, searching), least(settings, *around) + anchoring_cost(bench)
    if total < fewest:
        raise HeadwiseError(
            f"A budget of {total:g} FFE is too small: the least that a run takes is {fewest:.1f}, of which embedding the anchors "
            f"takes {anchoring_cost(bench):.1f}. Give at least {option('budget', str(math.ceil(fewest)))}, or fewer anchors."
        )
    budget = Budget(total, settings.max_minutes, rate, Clock(bench.study, began, replace(settings, max_minutes=None)))
    can_spend = budget.left()
    if settings.max_minutes is not None and can_spend < fewest:
        needed = math.ceil(10 * (settings.max_minutes + (fewest - can_spend) * rate / 60)) / 10
        raise HeadwiseError(
            f"{settings.max_minutes:g} minutes are too few: after reading and preparing they pay for {can_spend:.1f} FFE "
            f"here, and the least that a run takes is {fewest:.1f} FFE. Give at least --max-minutes {needed:g}."
        )
    whole = picking(settings.finalists, *around)
    again = refit_cost(bench, settings)
    if again <= (can_spend - certain(bench, settings)) * (REFIT_SHARE if settings.searching else 1.0):
        budget.refit = again
    budget.above = weights_cost(settings, *around) + budget.refit
    budget.reserved = max(picking(1, *around), min(whole, PICK_SHARE * (can_spend - budget.above)))
    return budget

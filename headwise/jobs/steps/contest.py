"""Every method on the same splits: what it found, what that cost, and what the pick split made of it.

In: a bench and `CompareSettings`. Out: a `Run` for every search, operator and seed and for every learned rung and seed, in a
fixed order. The test split
is not read here; that is `standings.py`.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import TypeVar

import torch

from headwise.edits.edit import unbound
from headwise.edits.mask import Mask
from headwise.evaluation.evaluator import Evaluator
from headwise.evaluation.study import Study
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.budget import Budget, divided, open_budget
from headwise.jobs.steps.choosing import has_only, of_every_size
from headwise.jobs.steps.contest_settings import SEEDED, CompareSettings
from headwise.jobs.steps.learning import learn
from headwise.jobs.steps.pace import Pace
from headwise.jobs.steps.progress import metered
from headwise.jobs.steps.searching import RUN, Strategy
from headwise.jobs.steps.settings import STRATEGIES as SEARCH_STRATEGIES
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.starting import Start, begin
from headwise.scoring import stats
from headwise.scoring.objectives import Retrieval, Score
from headwise.search.contract import Found, Left, best_of, purse

Ran = TypeVar("Ran")


@dataclass(frozen=True, eq=False)
class Run:
    """One method, operator and seed.

    Arguments:
        method, operator, seed: which; no operator: the edits are learned.
        best: the best mask by the search split alone.
        chosen: what the pick split chose among the method's masks and identity.
        pick_delta: of the chosen mask, a fraction.
        ffe: beyond what all searches start from; searches that seed it included.
        evaluated: FFE of its exact evaluations.
        own: seconds beside them: the search's own work, or training. What ran before a kill is not in it.
        interrupted: it was killed and continued.
        facts: what else there is to say, plain JSON values.
    """

    method: str
    operator: str | None
    seed: int
    best: Found
    chosen: Mask
    pick_delta: float
    ffe: float
    evaluated: float
    own: float
    interrupted: bool
    facts: dict[str, object]


class Timed(Evaluator):
    """An evaluator that knows what it evaluated, how long that took, and at what rate where nothing was known."""

    seconds = 0.0
    evaluated = 0.0
    run_seconds = 0.0
    run_ffe = 0.0

    @classmethod
    def of(cls, bench: Bench, split: str, operator: str | None = None) -> Timed:
        """The bench's evaluator of a split, with a clock, and with the constants that the operator needs."""
        plain = bench.evaluator(split)
        if operator and unbound([operator]):
            plain.means = bench.means
        return cls(**{f.name: getattr(plain, f.name) for f in fields(plain)})

    def __call__(self, masks: Sequence[Mask]) -> list[Score]:
        before = self.study.count(self.split) if self.study else 0
        cost, new = self.cost(masks), len(self._new(masks))
        began = time.perf_counter()
        try:
            return super().__call__(masks)
        finally:
            took = time.perf_counter() - began
            self.seconds += took
            self.evaluated += cost
            if new and (self.study is None or self.study.count(self.split) - before == new):
                self.run_seconds += took
                self.run_ffe += cost

    def embeddings(self, masks: Sequence[Mask]) -> Iterator[tuple[Mask, torch.Tensor]]:
        """What is run again because its score was known counts with the score, not as the search's own time."""
        began = time.perf_counter()
        yield from list(super().embeddings(masks))
        self.seconds += time.perf_counter() - began


def run_searches(bench: Bench, settings: CompareSettings, pace: Pace) -> list[Run]:
    """All searches that were asked for, for every operator and seed, in a fixed order.

    Arguments:
        pace: what the clock leaves each of them.

    Raises:
        HeadwiseError: an edit that the tower cannot have, or a budget that pays for nothing.
    """
    runs, unmasked = [], None
    names = ("best single head", *(name for name in SEARCH_STRATEGIES if name in settings.strategies))
    for operator in settings.search.operators:
        bench.tower.check_edit(operator)
        evaluate, options = (
            Timed.of(bench, "search", operator),
            replace(settings.of(0), operators=(operator,), max_minutes=None),
        )
        budget = open_budget(bench, options, math.nan, time.monotonic())
        budget.watch(evaluate)
        start = begin(bench, evaluate, operator, options, budget.share(1), unmasked)
        unmasked = start.deltas.identity if start.deltas else None
        _keep_rate(bench, evaluate)
        for name in names:
            for seed in range(settings.repeats if name in SEEDED else 1):
                runs += _run(
                    bench, settings, start, budget, name, seed, pace.share() if name in SEARCH_STRATEGIES else None
                )
    return runs


def run_learned(bench: Bench, settings: CompareSettings, pace: Pace) -> list[Run]:
    """All learned rungs that were asked for, with every seed; no operator is theirs."""
    runs = []
    for rung in settings.learned:
        for seed in range(settings.repeats):
            evaluate, options = Timed.of(bench, "search"), replace(settings.of(seed), rungs=(rung,), max_minutes=None)
            budget, clock = open_budget(bench, options, math.nan, time.monotonic()), pace.share()
            left = purse(evaluate, budget.total - budget.reserved, clock)
            evaluate([Mask.identity(bench.tower.grid)])
            run = partial(learn, bench, evaluate, rung, options, left)
            found, own, interrupted = _timed(bench, evaluate, f"compare: {rung}, seed {seed}, {_short(options)}", run)
            (strategy,) = found.strategies
            runs.append(_judged(bench, evaluate, rung, None, options, strategy, 0.0, own, interrupted))
    return runs


def _run(
    bench: Bench, settings: CompareSettings, start: Start, budget: Budget, name: str, seed: int, clock: Left | None
) -> list[Run]:
    """One method; AAT-BP gives two runs, binary and soft. What all searches start from is in the budget of each."""
    evaluate, options, operator = Timed.of(bench, "search", start.operator), settings.of(seed), start.operator
    evaluate([Mask.identity(start.grid), *(found.mask for found in start.singles)])  # from the study
    left = purse(evaluate, budget.total - budget.reserved - start.cost, clock)
    key = f"compare: {name}, {operator}, seed {seed}, {_short(options)}"
    run = partial(_strategies, bench, evaluate, start, options, left, name)
    found, own, interrupted = _timed(bench, evaluate, key, run)
    paid = replace(options, finalists=min(options.finalists, max(1, int(budget.reserved) - 1)))
    return [
        _judged(bench, evaluate, method, operator, paid, strategy, seeding, own, interrupted)
        for method, strategy, seeding in found
    ]


def _timed(bench: Bench, evaluate: Timed, key: str, run: Callable[[], Ran]) -> tuple[Ran, float, bool]:
    """What a method gives, seconds of its own work, and whether it was killed and continued: a replay takes no time of
    its own, so the study keeps what the first run took."""
    evaluate.seconds = evaluate.evaluated = 0.0
    note = bench.study.read(key, {}) if bench.study else {}
    assert isinstance(note, dict)
    if bench.study and not note:
        bench.study.note(key, {"own": None})
    began = time.perf_counter()
    found = run()
    own = time.perf_counter() - began - evaluate.seconds
    if isinstance(note.get("own"), float):
        own = note["own"]
    else:
        note = {"own": own, "interrupted": bool(note)}
        if bench.study:
            bench.study.note(key, note)
    _keep_rate(bench, evaluate)
    return found, own, bool(note["interrupted"])


def _judged(
    bench: Bench,
    evaluate: Timed,
    method: str,
    operator: str | None,
    options: Settings,
    strategy: Strategy,
    seeding: float,
    own: float,
    interrupted: bool,
) -> Run:
    chosen, delta = pick_from(bench, operator, strategy.masks, options)
    return Run(
        method=method,
        operator=operator,
        seed=options.seed,
        best=strategy.best,
        chosen=chosen,
        pick_delta=delta,
        ffe=seeding + strategy.ffe,
        evaluated=evaluate.evaluated,
        own=own,
        interrupted=interrupted,
        facts=strategy.facts,
    )


def _strategies(
    bench: Bench, evaluate: Evaluator, start: Start, options: Settings, left: Left, name: str
) -> list[tuple[str, Strategy, float]]:
    """What a method found, and the FFE of what seeded it."""
    if name == "best single head":
        return [(name, Strategy(name, (start.best,), 0.0), 0.0)]
    if name == "ga":
        half = divided(left, lambda: evaluate.spent, 2)
        greedy = RUN["greedy"](bench, evaluate, start, options, half, [])
        return [(name, RUN[name](bench, evaluate, start, options, left, [greedy]), greedy.ffe)]
    if name == "bp":
        both = RUN["bp"](bench, evaluate, start, options, left, [])
        hard = tuple(found for found in both.masks if found.mask.is_binary)
        soft = tuple(found for found in both.masks if not found.mask.is_binary) or hard
        return [("bp", replace(both, masks=hard or (start.best,)), 0.0), ("bp soft", replace(both, masks=soft), 0.0)]
    return [(name, RUN[name](bench, evaluate, start, options, left, []), 0.0)]


def pick_from(bench: Bench, operator: str | None, found: Sequence[Found], options: Settings) -> tuple[Mask, float]:
    """The pick split's choice between identity and a method's masks (`stats.choose`), and its change."""
    edits = (operator,) if operator else ()
    edited = of_every_size([item for item in found if item.mask.size], 1, edits)[: options.finalists]
    masks = [Mask.identity(bench.tower.grid), *(item.mask for item in edited)]
    evaluate = Timed.of(bench, "pick", operator)
    with metered(bench.reporter, evaluate, "Pick split", evaluate.cost(masks)):
        scores = evaluate(masks)
    values = [mask.values for mask in masks]
    choice = stats.choose(scores, values, level=options.level, rule=options.choose, seed=options.seed)
    return masks[choice.index], choice.delta[choice.index]


def random_of(runs: Sequence[Run]) -> Mask | None:
    """The mask that random masks are matched to: the best that any search found; None: all found identity."""
    searched = [run for run in runs if run.operator and has_only(run.best.mask, (run.operator,))]
    found = [run.best for run in searched if run.best.mask.size]
    return best_of(found).mask if found else None


def captions_or_none(bench: Bench) -> Retrieval | None:
    """The retrieval objective of the search split; None where the source has labels."""
    target = bench.objective("search")
    return target if isinstance(target, Retrieval) else None


def rate_of(bench: Bench) -> float:
    """Seconds per FFE on the search split, over all that this study ran on this machine."""
    assert bench.study is not None
    seconds, ffe = _engine(bench.study)
    return seconds / ffe if ffe else math.nan


def _keep_rate(bench: Bench, evaluate: Timed) -> None:
    if bench.study and evaluate.run_ffe:
        seconds, ffe = _engine(bench.study)
        bench.study.note("compare: engine", [seconds + evaluate.run_seconds, ffe + evaluate.run_ffe])


def _engine(study: Study) -> list[float]:
    note = study.read("compare: engine", [0.0, 0.0])
    assert isinstance(note, list)
    return note


def _short(options: Settings) -> str:
    import hashlib
    import json

    return hashlib.sha256(json.dumps(options.as_json(), sort_keys=True).encode()).hexdigest()[:12]

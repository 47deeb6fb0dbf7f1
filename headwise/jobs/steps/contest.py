"""Every method on the same splits: what it found, what that cost, and what the pick split made of it."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace

import torch

from headwise.baselines import BASELINES
from headwise.baselines.training import FitSettings
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.evaluator import Evaluator
from headwise.evaluation.study import Study
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.progress import metered
from headwise.jobs.steps.searching import RUN, Strategy
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.starting import Start, begin
from headwise.scoring import stats
from headwise.scoring.objectives import Retrieval, Score
from headwise.search.contract import Found, best_of
from headwise.search.sweep import sweep

SEARCHES = ("best single head", "greedy", "genetic", "screened", "taylor", "bp", "bp soft")
SEEDED = frozenset({"genetic", "screened", "bp", "bp soft", *BASELINES})  # the others do the same for every seed
NEED_CAPTIONS = frozenset(BASELINES)
BACKWARD = 3.0  # FFE of a forward and a backward pass


@dataclass(frozen=True)
class CompareSettings:
    """What to compare, and how.

    Arguments:
        methods: of `SEARCHES` and `headwise.baselines.BASELINES`.
        seeds: runs of every method that draws random numbers.
        budget: most FFE of a method's own search or training, beyond the sweep (and the greedy search that seeds
            AAT-GA).
        search: settings of the searches; operators among them are compared one by one.
        training: settings of the baselines.

    Raises:
        HeadwiseError: an unknown method, no seed, or a budget that pays for nothing.
    """

    methods: tuple[str, ...] = (*SEARCHES, *BASELINES)
    seeds: int = 5
    budget: float = 200.0
    search: Settings = field(default_factory=Settings)
    training: FitSettings = field(default_factory=FitSettings)

    def __post_init__(self) -> None:
        known = (*SEARCHES, *BASELINES)
        for name in self.methods:
            if name not in known:
                raise HeadwiseError(f"{name!r} is not a method. There are: {', '.join(known)}.")
        if not self.methods:
            raise HeadwiseError(f"No method was given. There are: {', '.join(known)}.")
        if self.seeds < 1 or not self.budget >= BACKWARD:
            raise HeadwiseError(
                f"seeds is {self.seeds} and budget {self.budget:g} FFE; seeds must be at least 1 and the budget at "
                f"least {BACKWARD:g} FFE, one epoch of training."
            )

    def of(self, seed: int) -> Settings:
        """The searches' settings for one seed, within the budget."""
        base = self.search
        epochs = max(1, min(base.gradient.epochs, int(self.budget / BACKWARD)))
        return replace(
            base,
            seed=seed,
            keep_soft=True,
            genetic=replace(base.genetic, budget=self.budget),
            screened=replace(base.screened, budget=self.budget),
            gradient=replace(base.gradient, epochs=epochs),
        )


@dataclass(frozen=True, eq=False)
class Run:
    """One method, operator and seed.

    Arguments:
        method, operator, seed: which.
        best: the best mask by the search split alone.
        chosen: what the pick split chose among the method's masks and identity.
        pick_delta: of the chosen mask, a fraction.
        ffe: beyond the sweep; searches that seed it included.
        evaluated: FFE of its exact evaluations.
        own: seconds beside them: the search's own work, or training. What ran before a kill is not in it.
        interrupted: it was killed and continued.
        facts: what else there is to say, plain JSON values.
    """

    method: str
    operator: str
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
    def of(cls, bench: Bench, split: str, operator: str) -> Timed:
        plain = bench.evaluator(split)
        if operator == "mean":
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


def run_searches(bench: Bench, settings: CompareSettings) -> list[Run]:
    """All searches that were asked for, for every operator and seed, in a fixed order.

    Raises:
        HeadwiseError: an operator that the tower cannot use, or a search that the source does not fit.
    """
    runs, unmasked = [], None
    asked = tuple(name for name in ("screened", "taylor") if name in settings.methods)  # they need more than a sweep
    for operator in settings.search.operators:
        bench.tower.check_operator(operator)
        evaluate = Timed.of(bench, "search", operator)
        start = begin(bench, evaluate, operator, replace(settings.of(0), strategies=asked, sweep=True), unmasked)
        unmasked = start.deltas.identity if start.deltas else None
        _keep_rate(bench, evaluate)
        for name in SEARCHES:
            if name not in settings.methods or (name == "bp soft" and "bp" in settings.methods):
                continue
            for seed in range(settings.seeds if name in SEEDED else 1):
                runs += _run(bench, settings, start, name, seed)
    return runs


def _run(bench: Bench, settings: CompareSettings, start: Start, name: str, seed: int) -> list[Run]:
    """One method; AAT-BP gives two runs, binary and soft."""
    evaluate, options, operator = Timed.of(bench, "search", start.operator), settings.of(seed), start.operator
    sweep(evaluate, start.grid, operator)  # from the study: what all searches start from costs none of them
    evaluate.seconds = evaluate.evaluated = 0.0
    key = f"compare: {name}, {operator}, seed {seed}, {_short(options)}"
    note = bench.study.read(key, {}) if bench.study else {}
    assert isinstance(note, dict)
    if bench.study and not note:
        bench.study.note(key, {"own": None})
    began = time.perf_counter()
    found = _strategies(bench, evaluate, start, options, name)
    own = time.perf_counter() - began - evaluate.seconds
    if isinstance(note.get("own"), float):
        own = note["own"]  # a replay takes no time of its own
    else:
        note = {"own": own, "interrupted": bool(note)}
        if bench.study:
            bench.study.note(key, note)
    _keep_rate(bench, evaluate)
    runs = []
    for method, strategy, seeding in found:
        if method not in settings.methods:
            continue
        chosen, delta = pick_from(bench, operator, strategy.masks, options)
        runs.append(
            Run(
                method=method,
                operator=operator,
                seed=seed,
                best=strategy.best,
                chosen=chosen,
                pick_delta=delta,
                ffe=seeding + strategy.ffe,
                evaluated=evaluate.evaluated,
                own=own,
                interrupted=bool(note["interrupted"]),
                facts=strategy.facts,
            )
        )
    return runs


def _strategies(
    bench: Bench, evaluate: Evaluator, start: Start, options: Settings, name: str
) -> list[tuple[str, Strategy, float]]:
    """What a method found, and the FFE of what seeded it."""
    if name == "best single head":
        return [(name, Strategy(name, (start.best,), 0.0), 0.0)]
    if name == "genetic":
        greedy = RUN["greedy"](bench, evaluate, start, options, [])
        return [(name, RUN[name](bench, evaluate, start, options, [greedy]), greedy.ffe)]
    if name == "taylor":
        assert start.first is not None
        return [(name, RUN[name](bench, evaluate, start, options, []), start.first.spent)]
    if name in ("bp", "bp soft"):
        both = RUN["bp"](bench, evaluate, start, options, [])
        hard = tuple(found for found in both.masks if found.mask.is_binary)
        soft = tuple(found for found in both.masks if not found.mask.is_binary) or hard
        return [("bp", replace(both, masks=hard), 0.0), ("bp soft", replace(both, masks=soft), 0.0)]
    return [(name, RUN[name](bench, evaluate, start, options, []), 0.0)]


def shortlist(found: Iterable[Found], most: int) -> list[Found]:
    """The best of every size, at most so many, best first: what a pick split can choose from honestly."""
    by_size: dict[int, Found] = {}
    for item in sorted(found, key=lambda item: item.order):
        if item.mask.size:
            by_size.setdefault(item.mask.size, item)
    return sorted(by_size.values(), key=lambda item: item.order)[:most]


def pick_from(bench: Bench, operator: str, found: Sequence[Found], options: Settings) -> tuple[Mask, float]:
    """The pick split's choice between identity and a method's masks (`stats.choose`), and its change."""
    masks = [Mask.identity(bench.tower.grid), *(item.mask for item in shortlist(found, options.finalists))]
    evaluate = Timed.of(bench, "pick", operator)
    with metered(bench.reporter, evaluate, "Pick split", evaluate.cost(masks)):
        scores = evaluate(masks)
    choice = stats.choose(scores, [m.size for m in masks], level=options.level, seed=options.seed)
    return masks[choice.index], choice.delta[choice.index]


def random_of(runs: Sequence[Run]) -> Mask | None:
    """The mask that random masks are matched to: the best that any search found; None: all found identity."""
    found = [run.best for run in runs if run.best.mask.size and run.best.mask.is_binary]
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

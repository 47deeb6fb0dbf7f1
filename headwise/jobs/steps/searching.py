"""The searches of one operator on the search split: what they start from, then every strategy that was asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from headwise.checked import Damaged, load_tensors
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.evaluator import Evaluator
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.progress import metered
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.starting import Start, begin, exact, scratch
from headwise.scoring.losses import loss_of
from headwise.search.contract import Found, best_of

CUTS = 12  # heads of AAT-BP's ranking that are cut, one more each: soft gates often stay above one half


@dataclass(frozen=True)
class Strategy:
    """What one strategy found.

    Arguments:
        name: of `settings.STRATEGIES`.
        masks: what the pick split may choose from, each with its score on the search split.
        ffe: what it cost beyond the sweep.
        facts: what else there is to say of it, plain JSON values.
    """

    name: str
    masks: tuple[Found, ...]
    ffe: float
    facts: dict[str, object] = field(default_factory=dict)

    @cached_property
    def best(self) -> Found:
        """The best mask by the search split."""
        return best_of(self.masks)


@dataclass(frozen=True)
class Searched:
    """The strategies of one operator and what they started from.

    Arguments:
        start: the sweep, or what stood in for it.
        strategies: in the order of the settings.
        unmasked: embeddings of the unchanged model, (N, E), where the screened search needed them.
    """

    start: Start
    strategies: tuple[Strategy, ...]
    unmasked: torch.Tensor | None = None

    def candidates(self) -> Iterator[tuple[str, Found]]:
        """Every mask worth comparing on the pick split, and what found it."""
        yield "best single head", self.start.best
        for strategy in self.strategies:
            yield from ((strategy.name, found) for found in strategy.masks if found.mask.size)


def search(
    bench: Bench, evaluate: Evaluator, operator: str, settings: Settings, before: Sequence[Searched] = ()
) -> Searched:
    """Sweep, then every strategy of the settings, in their order; later ones start from what earlier ones found.

    Arguments:
        bench: from `headwise.jobs.steps.bench.prepare`.
        evaluate: of the search split.
        operator: what a suppressed head emits.
        settings: what to run.
        before: what the same evaluator found with other operators.
    """
    start = begin(bench, evaluate, operator, settings, before[0].unmasked if before else None)
    done: list[Strategy] = []
    for name in settings.strategies:
        done.append(RUN[name](bench, evaluate, start, settings, done))
    unmasked = start.deltas.identity if start.deltas else None
    return Searched(replace(start, deltas=None), tuple(done), unmasked)


def _greedy(bench: Bench, evaluate: Evaluator, start: Start, settings: Settings, _done: list[Strategy]) -> Strategy:
    from headwise.jobs.steps.racing import Contest
    from headwise.search.greedy import greedy

    contest = Contest(bench, evaluate, start.identity, start.singles, settings.race) if settings.race else None
    with metered(bench.reporter, evaluate, f"Greedy ({start.operator})", None):
        found = greedy(
            evaluate,
            start.grid,
            start.operator,
            start.ranking,
            width=settings.width,
            max_heads=settings.max_heads,
            contest=contest,
        )
    return Strategy("greedy", found.path, found.ffe, {"why": found.why, **({"race": contest.facts} if contest else {})})


def _genetic(bench: Bench, evaluate: Evaluator, start: Start, settings: Settings, done: list[Strategy]) -> Strategy:
    from headwise.search.genetic import genetic

    options = replace(settings.genetic, seed=settings.seed, max_heads=settings.max_heads)
    seeds = [found.mask for strategy in done for found in strategy.masks]
    with metered(bench.reporter, evaluate, f"AAT-GA ({start.operator})", options.budget):
        found = genetic(evaluate, start.grid, start.operator, options, ranking=start.ranking, seeds=seeds)
    facts = {"why": found.why, "generations": len(found.history)}
    return Strategy("genetic", found.front, found.ffe, facts)


def _screened(bench: Bench, evaluate: Evaluator, start: Start, settings: Settings, done: list[Strategy]) -> Strategy:
    from headwise.search.anchors import Anchors
    from headwise.search.screened import screened

    assert start.deltas is not None  # `begin` made them
    anchors = Anchors(start.deltas, evaluate.embeddings)
    options = replace(settings.screened, seed=settings.seed, max_heads=settings.max_heads)
    seeds = [found.mask for strategy in done for found in strategy.masks]
    with metered(bench.reporter, evaluate, f"Screened AAT-GA ({start.operator})", options.budget):
        evaluate.observe = anchors.observe
        found = screened(
            evaluate,
            start.grid,
            start.operator,
            anchors,
            evaluate.objective,
            options,
            ranking=start.ranking,
            seeds=seeds,
            heads=start.deltas.heads,
        )
        evaluate.observe = None
    facts: dict[str, object] = {
        "why": found.why,
        "estimated": found.estimated,
        "correlation": number(found.correlation),
        "corrected_correlation": number(found.corrected),
        "ffe_of_changes": 0.0,  # they come with the evaluations of single heads, which `Start.ffe` counts
    }
    return Strategy("screened", found.by_size, found.ffe, facts)


def _taylor(bench: Bench, evaluate: Evaluator, start: Start, settings: Settings, _done: list[Strategy]) -> Strategy:
    first, spent = start.first, evaluate.spent
    assert first is not None  # `begin` made them
    most = min(settings.max_heads or start.grid.size, sum(score > 0 for score in first.scores.values()))
    cuts = [Mask.suppress(start.grid, first.ranking[:size], start.operator) for size in range(1, max(most, 1) + 1)]
    with metered(bench.reporter, evaluate, f"Heads by first-order score ({start.operator})", evaluate.cost(cuts)):
        scores = evaluate(cuts)
    found = tuple(Found(mask, score) for mask, score in zip(cuts, scores, strict=True))
    return Strategy("taylor", found, evaluate.spent - spent)


def _gradient(bench: Bench, evaluate: Evaluator, start: Start, settings: Settings, _done: list[Strategy]) -> Strategy:
    from headwise.search.gradient import learn_gates

    tower, spent = exact(bench), evaluate.spent
    with metered(bench.reporter, evaluate, f"AAT-BP ({start.operator})", None):
        learned = learn_gates(
            tower,
            evaluate.pixels,
            loss_of(bench.objective("search"), tower.device),
            start.operator,
            replace(settings.gradient, seed=settings.seed),
            means=evaluate.means,
            checkpoint=_sound(bench, f"bp-{start.operator}-seed{settings.seed}.safetensors"),
            about=bench.key,
            progress=evaluate.progress,
        )
        evaluate.spent += learned.spent
        most = settings.max_heads or max(CUTS, learned.binary.size)
        masks = [mask for mask in (*learned.cuts(most), learned.binary) if mask.size <= most]
        if settings.keep_soft:
            masks.append(learned.soft)
        masks = list(dict.fromkeys(masks))
        scores = evaluate(masks)
    found = tuple(Found(mask, score) for mask, score in zip(masks, scores, strict=True))
    gates = {str(head): learned.soft.gate(head) for head in learned.soft.grid}
    facts: dict[str, object] = {"gates": gates, "best_epoch": learned.best}
    return Strategy("bp", found, evaluate.spent - spent, facts)


def _sound(bench: Bench, name: str) -> Path | None:
    """A file of learned gates beside the study; a damaged one is removed, and the gates are learned again."""
    path = scratch(bench, name)
    if path is not None and path.exists():
        try:
            load_tensors(path)
        except Damaged:
            bench.reporter.say(f"The learned gates in {path} are damaged; they are learned again.")
            path.unlink()
    return path


def _front(bench: Bench, evaluate: Evaluator, start: Start, settings: Settings, done: list[Strategy]) -> Strategy:
    from headwise.jobs.steps.keeping import evaluators
    from headwise.search.fronts import domain_front

    if not bench.kept:
        raise HeadwiseError("The strategy front trades a domain against another. Give one with --keep-domain.")
    options = replace(settings.genetic, seed=settings.seed, max_heads=settings.max_heads)
    seeds = [found.mask for strategy in done for found in strategy.masks]
    keep = evaluators(bench, "search", evaluate.means)
    with metered(bench.reporter, evaluate, f"Front ({start.operator})", None):
        found = domain_front(evaluate, keep, start.grid, start.operator, options, ranking=start.ranking, seeds=seeds)
    points = [found.identity, *(p for p in found.keeping(settings.max_loss / 100) if p.mask.size)]
    masks = tuple(Found(point.mask, point.scores[0]) for point in points)
    return Strategy("front", masks, found.ffe, {"why": found.why, "points": len(found.points)})


def number(value: float) -> float | None:
    """JSON has no nan."""
    return None if math.isnan(value) else value


RUN: dict[str, Callable[[Bench, Evaluator, Start, Settings, list[Strategy]], Strategy]] = {
    "greedy": _greedy,
    "genetic": _genetic,
    "screened": _screened,
    "taylor": _taylor,
    "bp": _gradient,
    "front": _front,
}

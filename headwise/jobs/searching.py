"""The searches of one operator on the search split: the sweep, then every strategy that was asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from headwise.errors import HeadwiseError
from headwise.evaluator import Evaluator
from headwise.jobs.bench import Bench
from headwise.jobs.settings import Settings
from headwise.mask import Mask
from headwise.objectives import Retrieval
from headwise.search.contract import Found, best_of
from headwise.search.sweep import Sweep, sweep
from headwise.towers.base import Tower


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
        return best_of(self.masks)


@dataclass(frozen=True)
class Searched:
    """The sweep and the strategies of one operator."""

    sweep: Sweep
    strategies: tuple[Strategy, ...]

    def candidates(self) -> Iterator[tuple[str, Found]]:
        """Every mask worth comparing on the pick split, and what found it."""
        yield "best single head", self.sweep.best
        for strategy in self.strategies:
            yield from ((strategy.name, found) for found in strategy.masks if found.mask.size)


def search(bench: Bench, evaluate: Evaluator, operator: str, settings: Settings) -> Searched:
    """Sweep, then every strategy of the settings, in their order; later ones start from what earlier ones found."""
    grid = bench.tower.grid
    total = evaluate.cost([Mask.suppress(grid, [head], operator) for head in grid])
    with metered(bench, evaluate, f"Sweep ({operator})", total):
        swept = sweep(evaluate, grid, operator)
    done: list[Strategy] = []
    for name in settings.strategies:
        done.append(RUN[name](bench, evaluate, swept, settings, done))
    return Searched(swept, tuple(done))


@contextmanager
def metered(bench: Bench, evaluate: Evaluator, title: str, total: float | None) -> Iterator[None]:
    """Shows the evaluator's work as one stage."""
    with bench.reporter.stage(title, total, "FFE") as advance:
        evaluate.progress = advance
        try:
            yield
        finally:
            evaluate.progress = None


def _greedy(bench: Bench, evaluate: Evaluator, swept: Sweep, settings: Settings, _done: list[Strategy]) -> Strategy:
    from headwise.jobs.racing import Contest
    from headwise.search.greedy import greedy

    alone = [effect.found for effect in swept.heads]
    contest = Contest(bench, evaluate, swept.identity, alone, settings.race) if settings.race else None
    with metered(bench, evaluate, f"Greedy ({swept.operator})", None):
        found = greedy(
            evaluate,
            swept.grid,
            swept.operator,
            swept.ranking,
            width=settings.width,
            max_heads=settings.max_heads,
            contest=contest,
        )
    return Strategy("greedy", found.path, found.ffe, {"why": found.why, **({"race": contest.facts} if contest else {})})


def _genetic(bench: Bench, evaluate: Evaluator, swept: Sweep, settings: Settings, done: list[Strategy]) -> Strategy:
    from headwise.search.genetic import genetic

    options = replace(settings.genetic, seed=settings.seed, max_heads=settings.max_heads)
    seeds = [found.mask for strategy in done for found in strategy.masks]
    with metered(bench, evaluate, f"AAT-GA ({swept.operator})", options.budget):
        found = genetic(evaluate, swept.grid, swept.operator, options, ranking=swept.ranking, seeds=seeds)
    facts = {"why": found.why, "generations": len(found.history)}
    return Strategy("genetic", found.front, found.ffe, facts)


def _screened(bench: Bench, evaluate: Evaluator, swept: Sweep, settings: Settings, done: list[Strategy]) -> Strategy:
    from headwise.search.deltas import HeadDeltas, collect
    from headwise.search.screened import screened

    path = _scratch(bench, f"deltas-{swept.operator}.safetensors")
    if path is not None and path.exists():
        deltas = HeadDeltas.load(path)
    else:
        with metered(bench, evaluate, f"Heads' changes ({swept.operator})", None):
            deltas = collect(
                evaluate.tower,
                evaluate.pixels,
                swept.operator,
                evaluate.layout,
                means=evaluate.means,
                progress=evaluate.progress,
            )
        if path is not None:
            deltas.save(path)
    options = replace(settings.screened, seed=settings.seed, max_heads=settings.max_heads)
    seeds = [found.mask for strategy in done for found in strategy.masks]
    with metered(bench, evaluate, f"Screened AAT-GA ({swept.operator})", options.budget):
        found = screened(
            evaluate,
            swept.grid,
            swept.operator,
            deltas,
            evaluate.objective,
            options,
            ranking=swept.ranking,
            seeds=seeds,
        )
    facts = {
        "why": found.why,
        "estimated": found.estimated,
        "correlation": found.correlation,
        "corrected_correlation": found.corrected,
        "ffe_of_changes": deltas.ffe,
    }
    return Strategy("screened", found.by_size, found.ffe, facts)


def _taylor(bench: Bench, evaluate: Evaluator, swept: Sweep, settings: Settings, _done: list[Strategy]) -> Strategy:
    from headwise.search.taylor import agreement, taylor

    target = _captions(bench, swept)
    start = evaluate.spent
    with metered(bench, evaluate, f"First-order scores ({swept.operator})", None):
        first = taylor(
            _exact(bench),
            evaluate.pixels,
            target.texts,
            target.owner,
            swept.operator,
            means=evaluate.means,
            loss=target.loss,
            scale=target.scale,
            bias=target.bias,
            chunk=evaluate.layout.chunk,
            progress=evaluate.progress,
        )
        most = min(settings.max_heads or swept.grid.size, sum(score > 0 for score in first.scores.values()))
        cuts = [Mask.suppress(swept.grid, first.ranking[:size], swept.operator) for size in range(1, max(most, 1) + 1)]
        scores = evaluate(cuts)
    found = tuple(Found(mask, score) for mask, score in zip(cuts, scores, strict=True))
    facts: dict[str, object] = {
        "scores": {str(head): score for head, score in first.scores.items()},
        "rank_correlation_with_the_sweep": agreement(first, swept),
    }
    return Strategy("taylor", found, first.spent + evaluate.spent - start, facts)


def _gradient(bench: Bench, evaluate: Evaluator, swept: Sweep, settings: Settings, _done: list[Strategy]) -> Strategy:
    from headwise.search.gradient import learn_gates

    target = _captions(bench, swept)
    start = evaluate.spent
    with metered(bench, evaluate, f"AAT-BP ({swept.operator})", None):
        learned = learn_gates(
            _exact(bench),
            evaluate.pixels,
            target.texts,
            target.owner,
            swept.operator,
            replace(settings.gradient, seed=settings.seed),
            means=evaluate.means,
            loss=target.loss,
            scale=target.scale,
            bias=target.bias,
            checkpoint=_scratch(bench, f"bp-{swept.operator}.safetensors"),
            progress=evaluate.progress,
        )
        most = settings.max_heads or max(1, learned.binary.size)
        masks = [mask for mask in (*learned.cuts(most), learned.binary) if mask.size <= most]
        if settings.keep_soft:
            masks.append(learned.soft)
        masks = list(dict.fromkeys(masks))
        scores = evaluate(masks)
    found = tuple(Found(mask, score) for mask, score in zip(masks, scores, strict=True))
    gates = {str(head): learned.soft.gate(head) for head in learned.soft.grid}
    facts: dict[str, object] = {"gates": gates, "best_epoch": learned.best}
    return Strategy("bp", found, learned.spent + evaluate.spent - start, facts)


def _front(bench: Bench, evaluate: Evaluator, swept: Sweep, settings: Settings, done: list[Strategy]) -> Strategy:
    from headwise.jobs.keeping import evaluators
    from headwise.search.fronts import domain_front

    if not bench.kept:
        raise HeadwiseError("The strategy front trades a domain against another. Give one with --keep-domain.")
    options = replace(settings.genetic, seed=settings.seed, max_heads=settings.max_heads)
    seeds = [found.mask for strategy in done for found in strategy.masks]
    keep = evaluators(bench, "search", evaluate.means)
    with metered(bench, evaluate, f"Front ({swept.operator})", None):
        found = domain_front(evaluate, keep, swept.grid, swept.operator, options, ranking=swept.ranking, seeds=seeds)
    points = [found.identity, *(p for p in found.keeping(settings.max_loss / 100) if p.mask.size)]
    masks = tuple(Found(point.mask, point.scores[0]) for point in points)
    return Strategy("front", masks, found.ffe, {"why": found.why, "points": len(found.points)})


def _captions(bench: Bench, swept: Sweep) -> Retrieval:
    """The search split's captions, which gradients need.

    Raises:
        HeadwiseError: the source has labels, not captions.
    """
    target = bench.objective("search")
    if not isinstance(target, Retrieval):
        raise HeadwiseError(
            f"{bench.pairs.name} has labels, not captions; gradients of the gates ({swept.operator}) need captions. "
            "Use the strategies greedy, genetic or screened."
        )
    return target


def _exact(bench: Bench) -> Tower:
    """The tower in float32: gradients are not taken through a bfloat16 copy."""
    return bench.model.tower.cast(bench.layout.device, torch.float32)


def _scratch(bench: Bench, name: str) -> Path | None:
    return bench.study.path.parent / name if bench.study else None


RUN: dict[str, Callable[[Bench, Evaluator, Sweep, Settings, list[Strategy]], Strategy]] = {
    "greedy": _greedy,
    "genetic": _genetic,
    "screened": _screened,
    "taylor": _taylor,
    "bp": _gradient,
    "front": _front,
}

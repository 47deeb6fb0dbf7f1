"""The searches of one operator on the search split: what they start from, then every strategy that was asked for.

What is left of the budget is divided evenly among the strategies still to come; what one does not spend is the next
one's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import torch

from headwise.checked import Damaged, load_tensors
from headwise.edits.mask import Mask
from headwise.evaluation.evaluator import Evaluator
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.budget import divided
from headwise.jobs.steps.progress import metered
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.starting import Start, begin, exact, scratch
from headwise.scoring.losses import loss_of
from headwise.search.anchors import Anchors, Guesses
from headwise.search.contract import Found, Left, affordable, best_of
from headwise.search.gated import trained_cost
from headwise.search.genome import GeneticSettings
from headwise.search.pairs import Pairs

CUTS = 12  # heads of AAT-BP's ranking that are cut, one more each: soft gates often stay above one half
CUTS_LEAST = 2.0  # FFE kept for cuts of the learned gates
SEED_LOUDEST = (3, 4, 5, 6)  # as many of the loudest heads together it tries, too
SEED_PAIRS = 4  # pairs of heads that AAT-GA tries alone, and as many on top of the best mask so far


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
        unmasked: embeddings of the unchanged model, (N, E), where they are known.
    """

    start: Start
    strategies: tuple[Strategy, ...]
    unmasked: torch.Tensor | None = None

    def candidates(self) -> Iterator[tuple[str, Found]]:
        """Every mask worth comparing on the pick split, and what found it."""
        if self.start.singles:
            yield "best single head", self.start.best
        for strategy in self.strategies:
            yield from ((strategy.name, found) for found in strategy.masks if found.mask.size)


def search(
    bench: Bench,
    evaluate: Evaluator,
    operator: str,
    settings: Settings,
    left: Left,
    before: Sequence[Searched] = (),
) -> Searched:
    """What the searches start from, then every strategy of the settings, in their order; later ones start from what
    earlier ones found.

    Arguments:
        bench: from `headwise.jobs.steps.bench.prepare`.
        evaluate: of the search split.
        operator: what a suppressed head emits.
        settings: what to run.
        left: FFE that all of this may still spend (`budget.Budget.share`).
        before: what the same evaluator found with other operators.
    """
    start = begin(bench, evaluate, operator, settings, left, before[0].unmasked if before else None)
    done: list[Strategy] = []
    for i, name in enumerate(settings.strategies):
        part = divided(left, lambda: evaluate.spent, len(settings.strategies) - i)
        done.append(RUN[name](bench, evaluate, start, settings, part, done))
    unmasked = start.deltas.identity if start.deltas else None
    return Searched(replace(start, deltas=None), tuple(done), unmasked)


def _greedy(
    bench: Bench, evaluate: Evaluator, start: Start, settings: Settings, left: Left, _done: list[Strategy]
) -> Strategy:
    from headwise.search.greedy import greedy

    anchors = Anchors(start.deltas, evaluate.embeddings) if start.deltas else None
    known = start.deltas.heads if start.deltas else start.ranking
    with metered(bench.reporter, evaluate, f"Greedy ({start.operator})", None):
        evaluate.observe = anchors and anchors.observe
        found = greedy(
            evaluate,
            start.grid,
            start.operator,
            [head for head in start.ranking if head in set(known)],
            width=settings.width,
            max_heads=settings.max_heads,
            left=left,
            guess=Guesses(anchors, evaluate.objective) if anchors else None,
            pairs=Pairs(start.deltas) if start.deltas else None,
            second=True,
        )
        evaluate.observe = None
    return Strategy("greedy", found.masks, found.ffe, {"why": found.why})


def _genetic(
    bench: Bench, evaluate: Evaluator, start: Start, settings: Settings, left: Left, done: list[Strategy]
) -> Strategy:
    """AAT-GA; on estimates unless every mask is to be run, or the heads' changes are not known."""
    options = replace(settings.genetic, seed=settings.seed, max_heads=settings.max_heads)
    seeds = [found.mask for strategy in done for found in strategy.masks]
    if start.deltas:
        pairs = Pairs(start.deltas)
        best = best_of([*start.singles, *(found for strategy in done for found in strategy.masks)]).mask
        seeds += [*pairs(Mask.identity(start.grid), SEED_PAIRS), *pairs(best.bare(), SEED_PAIRS)]
        seeds += pairs.loudest(SEED_LOUDEST)
    with metered(bench.reporter, evaluate, f"AAT-GA ({start.operator})", None):
        if settings.exact or not start.deltas:
            return _exact(evaluate, start, options, seeds, left)
        return _estimated(evaluate, start, settings, options, seeds, left)


def _exact(evaluate: Evaluator, start: Start, options: GeneticSettings, seeds: Sequence[Mask], left: Left) -> Strategy:
    from headwise.search.genetic import genetic

    found = genetic(evaluate, start.grid, start.operator, options, ranking=start.ranking, seeds=seeds, left=left)
    return Strategy("ga", found.front, found.ffe, {"why": found.why, "generations": len(found.history)})


def _estimated(
    evaluate: Evaluator,
    start: Start,
    settings: Settings,
    options: GeneticSettings,
    seeds: Sequence[Mask],
    left: Left,
) -> Strategy:
    from headwise.search.estimated import estimated

    assert start.deltas is not None
    anchors = Anchors(start.deltas, evaluate.embeddings)
    evaluate.observe = anchors.observe
    found = estimated(
        evaluate,
        start.grid,
        start.operator,
        anchors,
        evaluate.objective,
        options,
        settings.estimates,
        ranking=start.ranking,
        seeds=seeds,
        heads=start.deltas.heads,
        left=left,
    )
    evaluate.observe = None
    facts: dict[str, object] = {
        "why": found.why,
        "estimated": found.estimated,
        "agreement": number(found.agreement),
        "exact_after": found.exact_after,
    }
    return Strategy("ga", found.by_size, found.ffe, facts)


def _gradient(
    bench: Bench, evaluate: Evaluator, start: Start, settings: Settings, left: Left, done: list[Strategy]
) -> Strategy:
    from headwise.search.gradient import learn_gates

    tower, spent = exact(bench), evaluate.spent
    options = replace(settings.gradient, seed=settings.seed)
    epoch = trained_cost(options.recompute)  # at most: images held out cost one pass
    epochs = min(options.epochs, math.floor((left() - CUTS_LEAST) / epoch)) if left() < math.inf else options.epochs
    if epochs < 1:
        identity = Found(Mask.identity(start.grid), start.identity)
        return Strategy("bp", (identity,), 0.0, {"why": "budget"})
    with metered(bench.reporter, evaluate, f"AAT-BP ({start.operator})", None):
        learned = learn_gates(
            tower,
            evaluate.pixels,
            loss_of(bench.objective("search"), tower.device),
            start.operator,
            replace(options, epochs=epochs),
            means=evaluate.means,
            checkpoint=sound(bench, f"bp-{start.operator}-seed{settings.seed}.safetensors"),
            about=bench.key,
            progress=evaluate.progress,
        )
        evaluate.spent += learned.spent
        most = settings.max_heads or max(CUTS, learned.binary.size)
        masks = [learned.binary] if learned.binary.size <= most else []
        if settings.keep_soft:
            masks.append(learned.soft)
        masks = list(dict.fromkeys([*masks, *learned.cuts(most)]))
        paid = affordable(evaluate, masks, left())
        scores = evaluate(paid) if paid else []
    found = tuple(Found(mask, score) for mask, score in zip(paid, scores, strict=True))
    found = found or (Found(Mask.identity(start.grid), start.identity),)
    gates = {str(head): gate for head, gate in learned.gates.items()}
    why = "budget" if len(paid) < len(masks) or epochs < options.epochs else "patience or epochs"
    facts: dict[str, object] = {"why": why, "gates": gates, "best_epoch": learned.best}
    return Strategy("bp", found, evaluate.spent - spent, facts)


def sound(bench: Bench, name: str) -> Path | None:
    """A file of learned numbers beside the study; a damaged one is removed, and they are learned again."""
    path = scratch(bench, name)
    if path is not None and path.exists():
        try:
            load_tensors(path)
        except Damaged:
            bench.reporter.say(f"What was learned, in {path}, is damaged; it is learned again.")
            path.unlink()
    return path


def number(value: float) -> float | None:
    """JSON has no nan."""
    return None if math.isnan(value) else value


RUN: dict[str, Callable[[Bench, Evaluator, Start, Settings, Left, list[Strategy]], Strategy]] = {
    "greedy": _greedy,
    "ga": _genetic,
    "bp": _gradient,
}

"""The searches of one operator on the search split: what they start from, then every strategy that was asked for
(`together.py`: AAT-GA over several operators).

What is left of the budget is divided evenly among the strategies still to come; what one does not spend is the next
one's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TypeVar

import torch

from headwise.checked import Damaged, load_tensors
from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.evaluation.evaluator import Evaluator
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.budget import divided
from headwise.jobs.steps.progress import metered
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.shelf import Shelf
from headwise.jobs.steps.starting import Start, begin, exact, scratch
from headwise.scoring.losses import loss_of
from headwise.search.alphabet import Choice
from headwise.search.anchors import Anchors, Guesses
from headwise.search.contract import Found, Left, affordable, best_of
from headwise.search.deltas import Changes
from headwise.search.gated import trained_cost
from headwise.search.gradient_state import OtherRun
from headwise.search.pairs import Pairs

Learned = TypeVar("Learned")
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
        alphas: of learned edits, how far from the unchanged model each of the masks goes.
    """

    name: str
    masks: tuple[Found, ...]
    ffe: float
    facts: dict[str, object] = field(default_factory=dict)
    alphas: tuple[float, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """What found each of the masks, for people."""
        if self.alphas:
            return tuple(f"{self.name}, α {alpha:g}" for alpha in self.alphas)
        return (self.name,) * len(self.masks)

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

    def without_deltas(self) -> Searched:
        """Without the heads' changes, which fill memory."""
        return replace(self, start=replace(self.start, deltas=None))

    def candidates(self) -> Iterator[tuple[str, Found]]:
        """Every mask worth comparing on the pick split, and what found it."""
        if self.start.singles:
            yield "best single head", self.start.best
        for strategy in self.strategies:
            yield from (pair for pair in zip(strategy.names, strategy.masks, strict=True) if pair[1].mask.size)


def search(
    bench: Bench,
    evaluate: Evaluator,
    operator: str,
    settings: Settings,
    left: Left,
    before: Sequence[Searched] = (),
) -> Searched:
    """What the searches start from, then every strategy that searches with one edit, in the order of the settings; later
    ones start from what earlier ones found.

    Arguments:
        bench: from `headwise.jobs.steps.bench.prepare`.
        evaluate: of the search split.
        operator: what a suppressed head emits.
        settings: what to run.
        left: FFE that all of this may still spend (`budget.Budget.share`).
        before: what the same evaluator found with other operators.
    """
    unmasked = before[0].unmasked if before else None
    known = next((one.start.first for one in before if one.start.first), None)
    start = begin(bench, evaluate, operator, settings, left, unmasked, known)
    done: list[Strategy] = []
    for i, name in enumerate(settings.alone):
        part = divided(left, lambda: evaluate.spent, len(settings.alone) - i)
        done.append(RUN[name](bench, evaluate, start, settings, part, done))
    unmasked = start.deltas.identity if start.deltas else None
    found = Searched(start, tuple(done), unmasked)
    return found if settings.mixes else found.without_deltas()


def _greedy(
    bench: Bench, evaluate: Evaluator, start: Start, settings: Settings, left: Left, _done: list[Strategy]
) -> Strategy:
    from headwise.search.greedy import greedy

    anchors = Anchors(start.deltas, evaluate.embeddings, Shelf.beside(bench)) if start.deltas else None
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
    found = [item for strategy in done for item in strategy.masks]
    heads = start.deltas.heads if start.deltas else start.ranking
    edits, changes = start.operator, start.deltas
    return evolve(bench, evaluate, edits, start.ranking, heads, changes, start.singles, found, settings, left)


def evolve(
    bench: Bench,
    evaluate: Evaluator,
    edits: str | Sequence[str],
    ranking: Sequence[Head | Choice],
    allowed: Sequence[Head | Choice],
    changes: Changes | None,
    singles: Sequence[Found],
    before: Sequence[Found],
    settings: Settings,
    left: Left,
) -> Strategy:
    """AAT-GA with one edit or several.

    Arguments:
        edits: what a head may carry.
        ranking, allowed: as `search.genetic.genetic`; with changes, those that have them.
        changes: by each of the allowed; None: every mask is run.
        singles: heads that were run alone.
        before: what searches found before: seeds.
    """
    from headwise.search.estimated import estimated
    from headwise.search.genetic import genetic

    grid = bench.tower.grid
    options = replace(settings.genetic, seed=settings.seed, max_heads=settings.max_heads)
    seeds = [found.mask for found in before]
    if changes:
        pairs = Pairs(changes)
        best = best_of([*singles, *before]).mask
        seeds += [*pairs(Mask.identity(grid), SEED_PAIRS), *pairs(best.bare(), SEED_PAIRS)]
        seeds += pairs.loudest(SEED_LOUDEST)
    given = {"ranking": ranking, "seeds": seeds, "heads": allowed, "left": left}
    name = edits if isinstance(edits, str) else ", ".join(edits)
    with metered(bench.reporter, evaluate, f"AAT-GA ({name})", None):
        if settings.exact or not changes:
            plain = genetic(evaluate, grid, edits, options, **given)
            return Strategy("ga", plain.front, plain.ffe, {"why": plain.why, "generations": len(plain.history)})
        anchors = Anchors(changes, evaluate.embeddings, Shelf.beside(bench))
        evaluate.observe = anchors.observe
        found = estimated(evaluate, grid, edits, anchors, evaluate.objective, options, settings.estimates, **given)
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
        learn = partial(
            learn_gates,
            tower,
            evaluate.pixels,
            loss_of(bench.objective("search"), tower.device),
            start.operator,
            replace(options, epochs=epochs),
            means=evaluate.means,
            about=bench.key,
            workers=bench.crew,
            progress=evaluate.progress,
        )
        name = f"bp-{start.operator}-seed{settings.seed}.safetensors"
        learned = resumed(bench, name, lambda path: learn(checkpoint=path))
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


def resumed(bench: Bench, name: str, learn: Callable[[Path | None], Learned]) -> Learned:
    """Learn with a checkpoint beside the study; a damaged one, or one of other settings, is said and learned again.

    Arguments:
        name: of the file.
        learn: called with its path, None without a study.
    """
    path = scratch(bench, name)
    if path is not None and path.exists():
        try:
            load_tensors(path)
        except Damaged:
            bench.reporter.say(f"What was learned, in {path}, is damaged; it is learned again.")
            path.unlink()
    try:
        return learn(path)
    except OtherRun:
        assert path is not None
        bench.reporter.say(f"What was learned, in {path}, was learned with other settings; it is learned again.")
        path.unlink()
        return learn(path)


def number(value: float) -> float | None:
    """JSON has no nan."""
    return None if math.isnan(value) else value


RUN: dict[str, Callable[[Bench, Evaluator, Start, Settings, Left, list[Strategy]], Strategy]] = {
    "greedy": _greedy,
    "ga": _genetic,
    "bp": _gradient,
}

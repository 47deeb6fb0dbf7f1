"""What the searches of one operator start from: the exact sweep, or first-order scores in its place.

In: a bench, an evaluator of the search split, what may be spent. Out: `Start`: a ranking of the heads, the score of
those that were evaluated alone, and how they change the embeddings. Which searches follow is not known here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from headwise.edits.edit import canonical
from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import ffe
from headwise.evaluation.evaluator import Evaluator
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.progress import metered
from headwise.jobs.steps.settings import Settings
from headwise.scoring.losses import loss_of
from headwise.scoring.objectives import Score
from headwise.search.contract import Found, Left, affordable, best_of
from headwise.search.deltas import Collector, HeadDeltas, collect
from headwise.search.first_order import FirstOrder
from headwise.search.first_order import first_order as score_heads
from headwise.search.sweep import Sweep, sweep
from headwise.towers.base import Tower

SINGLES_SHARE = 1 / 3  # of the heads are run alone without the sweep: estimates know the changes by these alone
MOST_BYTES = 4e9  # of heads' changes: above that there are no estimates


@dataclass(frozen=True)
class Start:
    """
    Arguments:
        grid, operator: the heads, and what a suppressed one emits.
        identity: score of the model as it is.
        ranking: heads, the most harmful first: the sweep's order, or that of the first-order scores.
        singles: heads that were evaluated alone: all of them, or the first of the ranking.
        sweep: None where it was skipped.
        first: first-order scores of all the run's edits, where there is no sweep.
        deltas: how heads change the embeddings, for estimates and pairs; None where they would not fit into memory.
        ffe: of identity and `singles`.
    """

    grid: Grid
    operator: str
    identity: Score
    ranking: tuple[Head, ...]
    singles: tuple[Found, ...]
    sweep: Sweep | None
    first: FirstOrder | None
    deltas: HeadDeltas | None
    ffe: float

    @property
    def cost(self) -> float:
        """FFE of all of it, first-order scores among them."""
        return self.ffe + (self.first.spent if self.first else 0.0)

    @property
    def best(self) -> Found:
        """The best head of those that were evaluated alone (it may be worse than identity)."""
        return best_of(self.singles)


def begin(
    bench: Bench,
    evaluate: Evaluator,
    operator: str,
    settings: Settings,
    left: Left,
    unmasked: torch.Tensor | None = None,
    known: FirstOrder | None = None,
) -> Start:
    """The sweep; where it is not wanted or not paid for, first-order scores and the first heads of their ranking.

    Arguments:
        bench, evaluate, operator, settings, left: as `searching.search`.
        unmasked: embeddings of the unchanged model, (N, E), where a former operator's search knows them.
        known: first-order scores that a former operator's search has, of this operator too.
    """
    grid = bench.tower.grid

    def masks_of(heads: Sequence[Head]) -> list[Mask]:
        return [Mask.identity(grid), *(Mask.suppress(grid, [head], operator) for head in heads)]

    first, heads, title = None, bench.tower.able(operator), f"Sweep ({operator})"
    sweeping = settings.sweep
    if settings.sweep and (cost := evaluate.cost(masks_of(heads))) > (can_spend := left()):
        sweeping = False
        bench.reporter.say(
            f"The sweep ({operator}) costs {cost:.1f} FFE and {can_spend:.1f} are left for it: first-order scores start "
            "the search."
        )
    if not sweeping:
        first = known or first_order(bench, evaluate, (operator, *settings.searching))
        wanted = first.ranking(canonical(operator))[: max(settings.width, math.ceil(SINGLES_SHARE * grid.size))]
        paid = affordable(evaluate, masks_of(wanted), max(left() / 2, evaluate.cost(masks_of(wanted[:1]))))
        title, heads = f"First heads of the ranking ({operator})", wanted[: max(1, len(paid) - 1)]
    masks = masks_of(heads)
    wanted_changes = set(settings.strategies) & {"greedy", "ga"}
    width = max(block.width for block in bench.tower.blocks)  # of an embedding, about
    together = len(settings.searching) if settings.mixes else 1  # whose changes are in memory at once
    fits = len(heads) * len(evaluate.pixels) * width * 2 * together <= MOST_BYTES
    keep = Collector(grid, operator, heads, unmasked) if wanted_changes and fits else None
    with metered(bench.reporter, evaluate, title, evaluate.cost(masks)):
        evaluate.observe = keep
        identity, *scores = evaluate(masks)
        evaluate.observe = None
    swept = sweep(evaluate, grid, operator, heads) if sweeping else None
    return Start(
        grid=grid,
        operator=canonical(operator),
        identity=identity,
        ranking=swept.ranking if swept else first.ranking(canonical(operator)) if first else (),
        singles=tuple(Found(mask, score) for mask, score in zip(masks[1:], scores, strict=True)),
        sweep=swept,
        first=first,
        deltas=_changes(bench, evaluate, keep) if keep else None,
        ffe=ffe(bench.tower, masks),
    )


def _changes(bench: Bench, evaluate: Evaluator, keep: Collector) -> HeadDeltas:
    """The changes that came with the evaluations, or those of a run that was interrupted.

    A study that knows scores but has no file of changes was interrupted between the two: they are collected again.
    """
    path = scratch(bench, f"deltas-{keep.operator}.safetensors")
    deltas = keep.deltas
    if deltas is None and path is not None and path.exists():
        try:
            deltas = HeadDeltas.load(path, bench.key)
        except HeadwiseError as error:  # damaged, or of another study whose folder this was
            what = f"damaged ({error.__cause__})" if error.__cause__ else "of another study"
            bench.reporter.say(f"The heads' changes in {path} are {what}; they are made again.")
        else:
            if deltas.heads == keep.heads:
                return deltas
            deltas = None
    if deltas is None:
        with metered(bench.reporter, evaluate, f"Heads' changes again ({keep.operator})", None):
            deltas = collect(
                keep,
                evaluate.tower,
                evaluate.pixels,
                evaluate.layout,
                means=evaluate.means,
                progress=evaluate.progress,
            )
    if path is not None:
        deltas.save(path, bench.key)
    return deltas


def first_order(bench: Bench, evaluate: Evaluator, edits: Sequence[str]) -> FirstOrder:
    """First-order scores of these edits on the evaluator's split; what they cost is added to what it spent."""
    tower = exact(bench)
    with metered(bench.reporter, evaluate, "First-order scores", None):
        first = score_heads(
            tower,
            evaluate.pixels,
            loss_of(bench.objective("search"), tower.device),
            edits,
            chunk=evaluate.layout.chunk,
            progress=evaluate.progress,
        )
    evaluate.spent += first.spent
    return first


def exact(bench: Bench) -> Tower:
    """The tower in float32: gradients are not taken through a bfloat16 copy."""
    return bench.model.tower.cast(bench.layout.device, torch.float32)


def scratch(bench: Bench, name: str) -> Path | None:
    """A file beside the study; None without a study."""
    return bench.study.path.parent / name if bench.study else None

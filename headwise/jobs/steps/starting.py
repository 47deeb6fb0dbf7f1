"""What the searches of one operator start from: the exact sweep, or first-order scores in its place."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch

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
from headwise.search.contract import Found, best_of
from headwise.search.deltas import Collector, HeadDeltas, collect
from headwise.search.sweep import Sweep, sweep
from headwise.search.taylor import Taylor, taylor
from headwise.towers.base import Tower

SCREENED_SHARE = 1 / 3  # of the heads: without the sweep the screened search knows the changes by these alone


@dataclass(frozen=True)
class Start:
    """
    Arguments:
        grid, operator: the heads, and what a suppressed one emits.
        identity: score of the model as it is.
        ranking: heads, the most harmful first: the sweep's order, or that of the first-order scores.
        singles: heads that were evaluated alone: all of them, or the first of the ranking.
        sweep: None where it was skipped.
        first: first-order scores, where a strategy or the missing sweep asks for them.
        deltas: how heads change the embeddings, for the screened search alone.
        ffe: of identity and `singles`.
    """

    grid: Grid
    operator: str
    identity: Score
    ranking: tuple[Head, ...]
    singles: tuple[Found, ...]
    sweep: Sweep | None
    first: Taylor | None
    deltas: HeadDeltas | None
    ffe: float

    @property
    def best(self) -> Found:
        """The best head of those that were evaluated alone (it may be worse than identity)."""
        return best_of(self.singles)


def begin(
    bench: Bench, evaluate: Evaluator, operator: str, settings: Settings, unmasked: torch.Tensor | None = None
) -> Start:
    """The sweep, or without it first-order scores and the first few heads of their ranking.

    Arguments:
        bench, evaluate, operator, settings: as `searching.search`.
        unmasked: embeddings of the unchanged model, (N, E), where a former operator's search knows them.
    """
    grid, screened = bench.tower.grid, "screened" in settings.strategies
    first = None
    if "taylor" in settings.strategies or not settings.sweep:
        first = first_order(bench, evaluate, operator)
    if settings.sweep:
        title, heads = f"Sweep ({operator})", tuple(grid)
    else:
        assert first is not None
        count = math.ceil(SCREENED_SHARE * grid.size) if screened else 0
        title, heads = f"First heads of the ranking ({operator})", first.ranking[: max(settings.width, count)]
    masks = [Mask.identity(grid, operator), *(Mask.suppress(grid, [head], operator) for head in heads)]
    keep = Collector(grid, operator, heads, unmasked) if screened else None
    with metered(bench.reporter, evaluate, title, evaluate.cost(masks)):
        evaluate.observe = keep
        identity, *scores = evaluate(masks)
        evaluate.observe = None
    swept = sweep(evaluate, grid, operator) if settings.sweep else None
    return Start(
        grid=grid,
        operator=masks[1].operator,
        identity=identity,
        ranking=swept.ranking if swept else first.ranking if first else (),
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
            bench.reporter.say(f"{error.__cause__ or 'Another study'}: {path.name} is made again.")
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


def first_order(bench: Bench, evaluate: Evaluator, operator: str) -> Taylor:
    """First-order scores on the evaluator's split; what they cost is added to what it spent."""
    tower = exact(bench)
    with metered(bench.reporter, evaluate, f"First-order scores ({operator})", None):
        first = taylor(
            tower,
            evaluate.pixels,
            loss_of(bench.objective("search"), tower.device),
            operator,
            means=evaluate.means,
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

"""The plan of a run: what each stage costs in FFE and about how many minutes that takes here, from a short timing.

Takes a prepared bench and settings; evaluates a few masks on a few images and keeps nothing of them. How much a search
really spends depends on what it finds, so every stage has two figures: `about`, what such searches spent where they
were measured (`benchmarks/lengths.py`, docs/defaults.md), and `most`, which the budget allows. Without --budget they are
given about as much as they use, so that the two are close.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from headwise.edits.mask import Mask
from headwise.evaluation.engine import embed, ffe
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.budget import (
    FIRST_ORDER,
    SPARE,
    Budget,
    anchoring_cost,
    parts,
    picking,
    starting_cost,
)
from headwise.jobs.steps.settings import CANDIDATES, Settings
from headwise.scoring.objectives import Objective
from headwise.search.gated import trained_cost
from headwise.search.values import ALPHAS, epoch_cost

IMAGES = 64  # of the search split that are timed, at most
SECONDS = 2.0  # that a timing of them may take
TIMED_HEADS = 4
# what searches spend before they end by themselves: medians of benchmarks/lengths.py, in docs/defaults.md
GREEDY_STEPS = 20.0  # of both walks, pairs and heads left out among them
GA_ROUNDS = 24.0  # on estimates
GA_FIRST = 16.0  # probes and pairs
GA_ESTIMATES = 190.0  # estimates a round
SHARED = 0.6  # of a pass: what a search's mask costs beside others that share its first layers
HEADS = 4  # of a mask that a search found, as far as the cost of running it goes


@dataclass(frozen=True)
class Stage:
    """One line of the plan.

    Arguments:
        name: what is done.
        about, most: FFE.
        minutes: for `about`.
        bounded: the budget is for this, too.
    """

    name: str
    about: float
    most: float
    minutes: float
    bounded: bool = True


@dataclass(frozen=True)
class Speed:
    """Seconds on this machine.

    Arguments:
        ffe: of one FFE on the search split.
        score: of turning the embeddings of one mask into a score.
    """

    ffe: float
    score: float


def timing(bench: Bench) -> Speed:
    """A few masks on a few images of the search split, and the objective on random embeddings; a study keeps it.

    Workers share what is timed here in one process.
    """
    known = bench.study.read("speed") if bench.study else None
    speed = Speed(*known) if isinstance(known, list) else _timed(bench)
    if bench.study and known is None:
        bench.study.note("speed", [speed.ffe, speed.score])
    workers = bench.crew.count if bench.crew else 1
    return Speed(speed.ffe / workers, speed.score / workers)


def _timed(bench: Bench) -> Speed:
    grid, tower = bench.tower.grid, bench.tower
    operator = next((o for o in ("uniform", "zero") if o in tower.letters), "zero")
    heads = list(grid)
    some = heads[:: max(1, len(heads) // TIMED_HEADS)][:TIMED_HEADS]
    masks = [Mask.identity(grid), *(Mask.suppress(grid, [head], operator) for head in some)]
    indices, cost = bench.indices("search"), ffe(tower, masks)

    def run(count: int) -> tuple[float, int]:
        """Seconds of all masks on so many images, and the width of an embedding."""
        began, width = time.perf_counter(), 0
        for _, embeddings in embed(tower, bench.cache.take(indices[:count]), masks, bench.layout):
            width = embeddings.shape[-1]
        return time.perf_counter() - began, width

    run(1)  # the first call is slower
    once, width = run(min(4, len(indices)))
    count = min(len(indices), IMAGES, max(4, int(4 * SECONDS / max(once, 1e-6))))
    seconds = min(run(count)[0] for _ in range(2)) / cost * len(indices) / count
    return Speed(seconds, _score_seconds(bench.objective("search"), len(indices), width))


def _score_seconds(objective: Objective, images: int, width: int) -> float:
    embeddings = torch.randn(images, width, generator=torch.Generator().manual_seed(0))  # (N, E)
    objective(embeddings)
    began = time.perf_counter()
    objective(embeddings)
    return time.perf_counter() - began


def stages(bench: Bench, settings: Settings, budget: Budget, speed: Speed) -> list[Stage]:
    """The plan, in the order in which it is run; the last line is the test split, which the budget does not bound."""
    sizes = {name: len(bench.indices(name)) for name in ("search", "pick", "test")}
    kept, grid, total, anchored = len(bench.kept), bench.tower.grid, budget.total, bool(bench.anchored)
    out: list[Stage] = []
    left = total - budget.reserved - budget.above

    def add(
        name: str, about: float, most: float, passes: float, scores: float, images: int, bounded: bool = True
    ) -> None:
        share = images / sizes["search"]
        seconds = passes * speed.ffe * share + scores * speed.score * share**2
        out.append(Stage(name, about, most, seconds / 60, bounded))

    if bench.anchored:
        cost = anchoring_cost(bench)
        add("embedding the anchors", cost, cost, cost, 0, sizes["search"])
        left -= cost
    for i, operator in enumerate(settings.searching):
        part = left / parts(settings, i, left, anchored)
        sweep = starting_cost(bench, operator)
        if settings.sweep and sweep <= part:
            start = sweep
            add(f"sweep ({operator})", sweep, sweep, sweep, grid.size + 1, sizes["search"])
        else:
            heads = max(settings.width, math.ceil(grid.size / 3))
            start = FIRST_ORDER + min(1 + SHARED * heads, (part - FIRST_ORDER) / 2)
            add(f"first-order scores, first heads ({operator})", start, start, start, heads, sizes["search"])
        rest = part - start
        for k, name in enumerate(settings.alone):
            share = rest / (len(settings.alone) - k)
            about, scores = expected(bench, settings, name, share)
            add(f"{name} ({operator})", about, share, about, scores, sizes["search"])
            rest -= about
        left -= part - rest
    if settings.mixes:
        part = left / parts(settings, len(settings.searching), left, anchored)
        about, scores = expected(bench, settings, "ga", part)
        add(f"ga ({', '.join(settings.searching)})", about, part, about, scores, sizes["search"])
        left -= about
    for i, rung in enumerate(settings.learning, len(settings.searching) + settings.mixes):
        part = left / parts(settings, i, left, anchored)
        about = learning_cost(settings, part, anchored)
        add(f"learning {rung}", about, part, about, CANDIDATES, sizes["search"])
        left -= about
    finalists = settings.finalists
    while finalists > 1 and picking(finalists, kept, anchored) > budget.reserved:
        finalists -= 1
    about = together(bench, finalists)
    add("finalists on the pick split", about, finalists + 1.0, about, finalists + 1, sizes["pick"])
    if bench.anchored:
        images = len(bench.anchored.pairs)
        add("how far finalists move the anchors", about, finalists + 1.0, about, 0, images)
    for domain in bench.kept:
        about = together(bench, SPARE * finalists)
        images = len(domain.indices("pick"))
        add(f"kept domain {domain.pairs.name}", about, SPARE * finalists + 1.0, about, SPARE * finalists + 1, images)
    for rung in settings.weights:
        cost = settings.values.epochs * settings.trained_cost(anchored)
        add(f"training {rung}", cost, cost, cost, 0, sizes["search"])
        add(f"{rung} on the pick split", len(ALPHAS), len(ALPHAS), len(ALPHAS), len(ALPHAS), sizes["pick"])
        for domain in bench.kept:
            images = len(domain.indices("pick"))
            add(f"{rung} on {domain.pairs.name}", len(ALPHAS), len(ALPHAS), len(ALPHAS), len(ALPHAS), images)
    if budget.refit:
        add("learning again what was chosen", budget.refit, budget.refit, budget.refit, 0, sizes["search"])
    searches = len(settings.strategies) + len(settings.learning) + len(settings.weights)
    again = bool(budget.refit) * (bool(settings.learning) + bool(settings.weights))
    shown = settings.controls + searches + again + 2  # the best single head and the chosen mask
    tested = together(bench, shown)
    add("test split (outside the budget)", tested, shown + 1.0, tested, shown + 1, sizes["test"], False)
    return out


def together(bench: Bench, count: int) -> float:
    """FFE of identity and so many masks in one call, each of `HEADS` heads anywhere."""
    grid, draw = bench.tower.grid, random.Random(0)
    masks = [Mask.suppress(grid, draw.sample(list(grid), min(HEADS, grid.size))) for _ in range(count)]
    return ffe(bench.tower, [Mask.identity(grid), *masks])


def expected(bench: Bench, settings: Settings, name: str, share: float) -> tuple[float, float]:
    """FFE that a strategy is likely to spend of its share, and how many scores are computed."""
    if name == "greedy":
        about = min(share, settings.width * SHARED * GREEDY_STEPS)
        return about, about / SHARED + GREEDY_STEPS * bench.tower.grid.size
    if name == "ga" and settings.exact:
        return share, share / SHARED
    if name == "ga":
        about = min(share, (GA_ROUNDS * settings.estimates.batch + GA_FIRST) * SHARED)
        return about, about / SHARED + GA_ROUNDS * GA_ESTIMATES
    options = settings.gradient
    epoch = trained_cost(options.recompute) * (1 - options.holdout) + options.holdout
    about = min(share, epoch * options.epochs / 2 + 12 * SHARED)
    return about, about / SHARED


def learning_cost(settings: Settings, share: float, anchored: bool = False) -> float:
    """FFE that a learned rung is likely to spend of its share: its epochs and its candidates."""
    return min(share, epoch_cost(settings.values, anchored) * settings.values.epochs + CANDIDATES)


def plan_rows(found: Sequence[Stage]) -> list[tuple[str, str, str, str]]:
    """The plan as a table: stage, about FFE, up to how many FFE, minutes; the sum of what the budget bounds last."""
    rows = [(s.name, f"{s.about:.1f}", f"{s.most:.1f}", f"{s.minutes:.1f}") for s in found]
    bounded = [stage for stage in found if stage.bounded]
    about, minutes = sum(s.about for s in bounded), sum(s.minutes for s in bounded)
    rows.append(("all before the test split", f"{about:.1f}", "", f"{minutes:.1f}"))
    return rows


def plan_json(found: Sequence[Stage], budget: float, minutes: float | None) -> dict[str, object]:
    """The plan as plain JSON values.

    Arguments:
        budget: FFE; of a comparison those of each method.
        minutes: most minutes, where there is such a limit.
    """
    rows = [
        {"stage": s.name, "ffe": s.about, "most": s.most, "minutes": s.minutes, "bounded": s.bounded} for s in found
    ]
    return {"budget": budget, "max_minutes": minutes, "stages": rows}


def plan_text(found: Sequence[Stage], budget: str, minutes: float | None) -> str:
    """The plan in lines for a terminal or a log.

    Arguments:
        budget: what may be spent before the test split, in words.
        minutes: within how many minutes; None: no limit.
    """
    head = f"Plan: {budget} before the test split"
    if minutes is not None:
        head += f", within {minutes:g} minutes"
    width = max(len(s.name) for s in found) + 2
    lines = [f"  {name:<{width}}{about:>8} FFE{f', up to {most}' if most else '':<17}{minutes:>7} min"
             for name, about, most, minutes in plan_rows(found)]  # fmt: skip
    return "\n".join([head + ":", *lines])

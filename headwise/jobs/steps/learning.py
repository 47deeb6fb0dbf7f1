"""The learned rungs of the ladder: values of every head by back-propagation, then shrunken toward the unchanged model.

In: a bench, an evaluator of the search split, a rung's name (`scale`, `spectral`, `scale+temperature`), what may be spent.
Out: `Searched`, as of the searches for masks: the candidates are identity + α · (learned − identity), each with its exact
score. How they compare with masks is for the pick split.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

from headwise.edits.mask import Mask
from headwise.evaluation.evaluator import Evaluator
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.progress import metered
from headwise.jobs.steps.searching import Searched, Strategy, resumed
from headwise.jobs.steps.settings import CANDIDATES, Settings
from headwise.jobs.steps.starting import Start, exact
from headwise.scoring.losses import loss_of
from headwise.search.contract import Found, Left, affordable
from headwise.search.values import epoch_cost, learn_values


def learn(bench: Bench, evaluate: Evaluator, rung: str, settings: Settings, left: Left) -> Searched:
    """Learn one rung and score its candidates on the search split.

    Arguments:
        bench, evaluate, settings: as `searching.search`.
        rung: what is learned, joined by a plus.
        left: FFE that all of this may still spend.
    """
    identity = Mask.identity(bench.tower.grid)
    start = Start(bench.tower.grid, rung, evaluate([identity])[0], (), (), None, None, None, 0.0)
    tower, spent = exact(bench), evaluate.spent
    options = replace(settings.values, learn=tuple(rung.split("+")), seed=settings.seed)
    old = bench.anchored
    can = left() - CANDIDATES
    epochs = (
        options.epochs if math.isinf(can) else min(options.epochs, math.floor(can / epoch_cost(options, bool(old))))
    )
    if epochs < 1:
        unchanged = Found(identity, start.identity)
        return Searched(start, (Strategy(rung, (unchanged,), 0.0, {"why": "budget"}),))
    with metered(bench.reporter, evaluate, f"Learning {rung}", None):
        evaluate.spent += 1.0  # the pass that the moments are taken in
        run = partial(
            learn_values,
            tower,
            evaluate.pixels,
            loss_of(bench.objective("search"), tower.device),
            replace(options, epochs=epochs),
            bench.moments,
            anchors=old and old.anchors(settings.anchor_weight, bench.model.logit_scale),
            about=bench.key + (old.pairs.hash if old else ""),
            workers=bench.crew,
            progress=evaluate.progress,
        )
        name = f"learned-{rung}{_held_to(bench, settings)}-seed{settings.seed}.safetensors"
        learned = resumed(bench, name, lambda path: run(checkpoint=path))
        evaluate.spent += learned.spent
        shrunken = dict(reversed(learned.shrunken.items()))  # all of it first, as long as the budget pays
        paid = affordable(evaluate, list(shrunken.values()), left())
        scores = evaluate(paid) if paid else []
    found = tuple(Found(mask, score) for mask, score in zip(paid, scores, strict=True))
    why = "budget" if epochs < options.epochs and len(learned.history) == epochs else "patience or epochs"
    facts: dict[str, object] = {"why": why, "best_epoch": learned.best, "values": learned.mask.values}
    shares = tuple(shrunken)[: len(paid)]
    return Searched(
        start,
        (Strategy(rung, found or (Found(identity, start.identity),), evaluate.spent - spent, facts, shares),),
    )


def _held_to(bench: Bench, settings: Settings) -> str:
    """Part of a checkpoint's name: what is learned with other anchors, or another weight, begins anew."""
    if bench.anchored is None:
        return ""
    return f"-anchored-{settings.anchor_weight:g}-{bench.anchored.pairs.hash[:12]}"

"""The learned rungs of the ladder: values of every head by back-propagation, then shrunken toward the unchanged model.

In: a bench, an evaluator of the search split, a rung's name (`scale`, `spectral`, `scale+temperature`), what may be spent.
Out: `Searched`, as of the searches for masks: the candidates are identity + α · (learned − identity), each with its exact
score. How they compare with masks is for the pick split.
"""

from __future__ import annotations

import math
from collections.abc import Callable
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
from headwise.search.values import LearnedValues, epoch_cost, learn_values


def learn(bench: Bench, evaluate: Evaluator, rung: str, settings: Settings, left: Left) -> Searched:
    """Learn one rung and score its candidates on the search split.

    Arguments:
        bench, evaluate, settings: as `searching.search`.
        rung: what is learned, joined by a plus.
        left: FFE that all of this may still spend.
    """
    identity = Mask.identity(bench.tower.grid)
    start = Start(bench.tower.grid, rung, evaluate([identity])[0], (), (), None, None, None, 0.0)
    spent, wanted = evaluate.spent, settings.values.epochs
    can = left() - CANDIDATES
    epoch = epoch_cost(settings.values, bool(bench.anchored))
    epochs = wanted if math.isinf(can) else min(wanted, math.floor(can / epoch))
    if epochs < 1:
        unchanged = Found(identity, start.identity)
        return Searched(start, (Strategy(rung, (unchanged,), 0.0, {"why": "budget"}),))
    with metered(bench.reporter, evaluate, f"Learning {rung}", None):
        evaluate.spent += 1.0  # the pass that the moments are taken in
        learned = learned_values(bench, rung, settings, epochs, evaluate.progress)
        evaluate.spent += learned.spent
        shrunken = dict(reversed(learned.shrunken.items()))  # all of it first, as long as the budget pays
        paid = affordable(evaluate, list(shrunken.values()), left())
        scores = evaluate(paid) if paid else []
    found = tuple(Found(mask, score) for mask, score in zip(paid, scores, strict=True))
    why = "budget" if epochs < wanted and len(learned.history) == epochs else "patience or epochs"
    facts: dict[str, object] = {"why": why, "best_epoch": learned.best, "values": learned.mask.values}
    shares = tuple(shrunken)[: len(paid)]
    return Searched(
        start,
        (Strategy(rung, found or (Found(identity, start.identity),), evaluate.spent - spent, facts, shares),),
    )


def learned_values(
    bench: Bench,
    rung: str,
    settings: Settings,
    epochs: int,
    progress: Callable[[float], None] | None,
    suffix: str = "",
) -> LearnedValues:
    """Learn a rung's values on the bench's search split, held to its anchors; an interrupted run goes on.

    Arguments:
        epochs: most of them.
        progress: called with the FFE done since the last call.
        suffix: part of the checkpoint's name.
    """
    tower, old, about, held = exact(bench), bench.anchored, bench.key, ""
    if old:  # what is learned with other anchors, or another weight, begins anew
        about, held = about + old.pairs.hash, f"-anchored-{settings.anchor_weight:g}-{old.pairs.hash[:12]}"
    run = partial(
        learn_values,
        tower,
        bench.cache.take(bench.splits.search),
        loss_of(bench.objective("search"), tower.device),
        replace(settings.values, learn=tuple(rung.split("+")), seed=settings.seed, epochs=epochs),
        bench.moments,
        anchors=old and old.anchors(settings.anchor_weight, bench.model.logit_scale),
        about=about,
        workers=bench.crew,
        progress=progress,
    )
    name = f"learned-{rung}{held}{suffix}-seed{settings.seed}.safetensors"
    return resumed(bench, name, lambda path: run(checkpoint=path))

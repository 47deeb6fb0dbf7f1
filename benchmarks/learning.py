"""How long learned rungs should be trained, and on what: gains on images that neither search, pick nor test.

    python benchmarks/learning.py --data DATA --work WORK --target freehand --target pixel
    python benchmarks/learning.py --data DATA --work WORK --target freehand --target pixel --more 150     learning again

DATA and WORK as for benchmarks/ladder.py. The draw of search images (seed 10) is none of that page's, and the gains are
on 300 images that it does not test on: what is chosen here did not see what is shown there.
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

sys.path.insert(0, str(Path(__file__).resolve().parent))

from domains import target_pairs
from ladder import TEST

import headwise
from headwise.baselines import FitSettings, fit
from headwise.baselines.training import embeddings_of
from headwise.baselines.weights import between
from headwise.data.splits import Splits
from headwise.edits.mask import Mask
from headwise.jobs.steps.bench import Bench, prepare
from headwise.jobs.steps.opening import Machine, load_model
from headwise.jobs.steps.refitting import joined
from headwise.scoring.losses import captions_of, loss_of
from headwise.scoring.objectives import Retrieval
from headwise.search.values import ValueSettings, learn_values

SEED, JUDGED = 10, 300
SHRUNK = (0.5, 1.0)
WAYS: dict[str, dict[str, Any]] = {
    "20 % held out, up to 20 epochs": {"holdout": 0.2, "epochs": 20},
    "all, 8 epochs": {"holdout": 0.0, "epochs": 8},
    "all, 16 epochs, a learning rate of 0.02": {"holdout": 0.0, "epochs": 16, "learning_rate": 0.02},
}

LIKE_RUNGS = "all, 8 epochs"


def gains(bench: Bench, rung: str, way: dict[str, Any]) -> list[float]:
    """Changes on the judged images at each α, points."""
    evaluate = bench.evaluator("test")
    base = evaluate([Mask.identity(bench.tower.grid)])[0].fitness
    tower, pixels = bench.model.tower, bench.cache.take(bench.splits.search)
    if rung in ("lora", "projection"):
        settings = FitSettings(rank=8, seed=SEED, **way)
        objective = bench.objective("search")
        assert isinstance(objective, Retrieval)
        fitted = fit(rung, tower, pixels, captions_of(objective, tower.device), settings)
        towers = [between(tower, fitted.tower, alpha) for alpha in SHRUNK]
        found = [evaluate.objective(embeddings_of(one, evaluate.pixels, evaluate.layout)).fitness for one in towers]
    else:
        settings = ValueSettings(learn=tuple(rung.split("+")), seed=SEED, **way)
        learned = learn_values(tower, pixels, loss_of(bench.objective("search"), "cpu"), settings, bench.moments)
        found = [score.fitness for score in evaluate([learned.mask.shrunk(alpha) for alpha in SHRUNK])]
    return [100 * (one - base) for one in found]


def main(
    data: Annotated[Path, typer.Option(help="What recipes/demo/prepare.py made.")],
    work: Annotated[Path, typer.Option(help="Where pairs are kept.")],
    target: Annotated[list[str], typer.Option(help="Domains.")],
    size: Annotated[int, typer.Option(help="Search images.")] = 200,
    rung: Annotated[list[str] | None, typer.Option(help="By default spectral.")] = None,
    more: Annotated[
        int, typer.Option(help="Images that only the last way learns from, too; the others are left out.")
    ] = 0,
) -> None:
    model = load_model("demo", Machine())
    print("| domain | learned | trained on | α = ½ | α = 1 | seconds |\n|---|---|---|---:|---:|---:|")
    for name in target:
        pairs = headwise.read(
            target_pairs(data, work, name, dict.fromkeys(("search", "pick", "test"), 10**9)), split=None
        )
        order = list(range(len(pairs)))
        random.Random(f"{name} test").shuffle(order)
        rest = order[TEST:]
        random.Random(f"{name} {SEED}").shuffle(rest)
        judged, later = rest[size : size + JUDGED], rest[size + JUDGED : size + JUDGED + more]
        parts = [tuple(sorted(part)) for part in (rest[:size], later, judged)]
        bench = prepare(model, pairs, Splits(*parts, how="drawn", hash=f"{name} {size} {more}"), dtype="float32")
        ways = [(bench, said, way) for said, way in WAYS.items()]
        if more:
            ways = [(bench, LIKE_RUNGS, WAYS[LIKE_RUNGS]), (joined(bench), f"{len(later)} more", WAYS[LIKE_RUNGS])]
        for one in rung or ["spectral"]:
            for where, said, way in ways:
                began = time.process_time()
                half, whole = gains(where, one, way)
                took = time.process_time() - began
                print(f"| {name} | {one} | {said} | {half:+.2f} | {whole:+.2f} | {took:.0f} |", flush=True)


if __name__ == "__main__":
    typer.run(main)

"""Which settings AAT-GA should have: final fitness on the search split and what it is worth on the pick split.

    python benchmarks/defaults.py --images 200 --budget 60 --seeds 2

On the packaged model and pairs, or on --model and --pairs. All runs share one record of evaluations, so what two
settings both ask for is computed once; FFE are counted as if it were not. The test split is not read.
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass, replace

import numpy as np

from headwise.data.read import read
from headwise.data.splits import split
from headwise.demo import pairs_file
from headwise.evaluation.evaluator import Evaluator
from headwise.jobs.steps.bench import Bench, prepare
from headwise.search.genetic import genetic
from headwise.search.genome import GeneticSettings
from headwise.search.greedy import greedy
from headwise.search.sweep import sweep
from headwise.towers import load

VARIANTS = {
    "default": {},
    "population 24": {"population": 24},
    "population 96": {"population": 96},
    "no crossover": {"uniform": 0.0, "block": 0.0},
    "uniform crossover only": {"uniform": 0.8, "block": 0.0},
    "block crossover only": {"uniform": 0.0, "block": 0.8},
    "flip every head with 3 %": {"flip": 0.03, "one_head": 0.0, "swap": 0.0},
    "tournament 2": {"tournament": 2},
    "tournament 6": {"tournament": 6},
    "no elites but one": {"elites": 1},
    "no immigrants": {"immigrants": 0},
}


@dataclass
class Shared:
    """An evaluator's scores, known to several evaluators that each count their own FFE."""

    bench: Bench
    known: dict

    def fresh(self) -> Evaluator:
        evaluator = self.bench.evaluator("search")
        evaluator.study = _Memory(self.known)  # type: ignore[assignment]
        return evaluator


class _Memory:
    """What an evaluator needs of a study, kept in memory."""

    def __init__(self, known: dict):
        self.known = known

    def get(self, _split: str, masks: list) -> dict:
        return {mask.key: self.known[mask.key] for mask in masks if mask.key in self.known}

    def put(self, _split: str, scores: list) -> None:
        self.known.update({mask.key: score for mask, score in scores})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--pairs", default=str(pairs_file()))
    parser.add_argument("--operator", default="uniform")
    parser.add_argument("--images", type=int, default=200, help="of the search split")
    parser.add_argument("--budget", type=float, default=60.0, help="FFE of each run")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--only", default="", help="settings to try, separated by commas; default all")
    args = parser.parse_args()
    pairs = read(args.pairs)
    splits = split(pairs)
    splits = replace(splits, search=splits.search[: args.images], hash="")
    bench = prepare(load(args.model), pairs, splits)
    shared = Shared(bench, {})
    first = shared.fresh()
    swept = sweep(first, bench.tower.grid, args.operator)
    grown = greedy(first, bench.tower.grid, args.operator, swept.ranking)
    seeds = [found.mask for found in grown.path]
    pick = bench.evaluator("pick")
    base = pick([seeds[0]])[0]
    note = {
        "identity": swept.identity.fitness,
        "best head": swept.best.score.fitness,
        "greedy": grown.best.score.fitness,
    }
    print(
        json.dumps({name: round(100 * value, 2) for name, value in note.items()} | {"greedy FFE": round(grown.ffe, 1)})
    )
    print(
        "| setting | search, median | search, each seed | pick, gain in points | heads | generations |\n|---|---|---|---|---|---|"
    )
    wanted = [name.strip() for name in args.only.split(",") if name.strip()]
    for name, change in VARIANTS.items():
        if wanted and name not in wanted:
            continue
        rows = []
        for seed in range(args.seeds):
            options = replace(GeneticSettings(budget=args.budget, seed=seed), **change)
            found = genetic(
                shared.fresh(), bench.tower.grid, args.operator, options, ranking=swept.ranking, seeds=seeds
            )
            gain = float(np.mean(pick([found.best.mask])[0].units - base.units))
            rows.append((100 * found.best.score.fitness, 100 * gain, found.best.mask.size, len(found.history)))
        search, gains, sizes, generations = zip(*rows, strict=True)
        each = " ".join(f"{value:.2f}" for value in search)
        print(
            f"| {name} | {statistics.median(search):.2f} | {each} | {statistics.median(gains):+.2f} "
            f"| {statistics.median(sizes):.0f} | {statistics.median(generations):.0f} |",
            flush=True,
        )


if __name__ == "__main__":
    main()

"""Does the screened search reach the plain AAT-GA's fitness with a tenth of its FFE?

    python benchmarks/screened.py --images 200 --budget 200 --seeds 5 --json screened.json

On the packaged model and pairs, or on --model and --pairs, search split alone. For each seed: the plain search
with the budget, then the screened one with a tenth of it; both start from the same sweep. The sweep and the
collection of the heads' changes (one walk, free if the sweep keeps its embeddings) are not in either budget and
are printed. Masks that both searches ask for run once; FFE are counted as if they did not.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

from headwise.data.read import read
from headwise.data.splits import split
from headwise.demo import pairs_file
from headwise.evaluator import Evaluator
from headwise.jobs.bench import Bench, prepare
from headwise.search.deltas import HeadDeltas, collect
from headwise.search.genetic import GeneticSettings, genetic
from headwise.search.screened import ScreenedSettings, screened
from headwise.search.sweep import Sweep, sweep
from headwise.towers import load


class Memory:
    """What an evaluator needs of a study, kept in memory."""

    def __init__(self) -> None:
        self.known: dict = {}

    def get(self, _split: str, masks) -> dict:
        return {mask.key: self.known[mask.key] for mask in masks if mask.key in self.known}

    def put(self, _split: str, scores) -> None:
        self.known.update({mask.key: score for mask, score in scores})


def fresh(bench: Bench, memory: Memory, swept: Sweep | None = None) -> Evaluator:
    """An evaluator that has spent nothing; what the sweep asked for is free to it."""
    evaluator = bench.evaluator("search")
    evaluator.study = memory  # type: ignore[assignment]
    if swept:
        sweep(evaluator, swept.grid, swept.operator)
    return evaluator


def compare(bench: Bench, memory: Memory, swept: Sweep, deltas: HeadDeltas, budget: float, seed: int) -> dict:
    grid, operator = swept.grid, swept.operator
    evaluate = fresh(bench, memory, swept)
    settings = GeneticSettings(generations=200, patience=200, budget=budget, seed=seed)
    plain = genetic(evaluate, grid, operator, settings, ranking=swept.ranking)
    begun = time.perf_counter()
    short = screened(
        fresh(bench, memory, swept),
        grid,
        operator,
        deltas,
        bench.objective("search"),
        ScreenedSettings(budget=budget / 10, rounds=1000, patience=1000, seed=seed),
        ranking=swept.ranking,
    )
    return {
        "seed": seed,
        "plain": plain.best.score.fitness,
        "plain_ffe": plain.ffe,
        "plain_mask": str(plain.best.mask),
        "screened": short.best.score.fitness,
        "screened_ffe": short.ffe,
        "screened_mask": str(short.best.mask),
        "screened_seconds": round(time.perf_counter() - begun, 1),
        "estimated": short.estimated,
        "evaluated": short.history[-1].evaluated,
        "correlation": short.correlation,
        "corrected": short.corrected,
        "plain_ffe_to_reach": next((r.ffe for r in plain.history if r.best >= short.best.score.fitness), None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--pairs", default=str(pairs_file()))
    parser.add_argument("--operator", default="uniform")
    parser.add_argument("--images", type=int, default=200, help="of the search split")
    parser.add_argument("--budget", type=float, default=200.0, help="FFE of the plain search")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    pairs = read(args.pairs)
    splits = split(pairs)
    bench = prepare(
        load(args.model, device=args.device),
        pairs,
        replace(splits, search=splits.search[: args.images], hash=""),
        device=args.device,
    )
    memory = Memory()
    evaluate = fresh(bench, memory)
    swept = sweep(evaluate, bench.tower.grid, args.operator)
    deltas = collect(bench.tower, bench.cache.take(bench.indices("search")), args.operator, bench.layout)
    print(f"{len(bench.indices('search'))} images, operator {args.operator}, {bench.layout.dtype} on {args.device}")
    print(f"identity {100 * swept.identity.fitness:.2f}, best single head {100 * swept.best.score.fitness:.2f}")
    print(f"sweep {evaluate.spent:.1f} FFE, collecting the changes {deltas.ffe:.1f} FFE (neither is in a budget)")
    rows = []
    for seed in range(args.seeds):
        row = compare(bench, memory, swept, deltas, args.budget, seed)
        rows.append(row)
        print(
            f"seed {seed}: plain {100 * row['plain']:.2f} after {row['plain_ffe']:.0f} FFE; screened "
            f"{100 * row['screened']:.2f} after {row['screened_ffe']:.1f} FFE ({row['estimated']} estimates, "
            f"{row['screened_seconds']} s); estimate against exact r = {row['correlation']:.2f}, corrected "
            f"{row['corrected']:.2f}; the plain search reached that after {row['plain_ffe_to_reach'] or 'never'} FFE",
            flush=True,
        )
    gap = statistics.median(row["screened"] - row["plain"] for row in rows)
    print(f"median difference of fitness, screened minus plain: {100 * gap:+.2f} points")
    if args.json:
        args.json.write_text(json.dumps({"settings": {**vars(args), "json": None}, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()

"""Which drawing style to package: measured on each target's search and pick splits, never on its test split.

    python recipes/demo/choose_target.py --model headwise/demo/model pairs-openmoji/pairs.parquet pairs-pixel/…

For each target and operator: recall of the unchanged model, the best mask of sweep and greedy search on the search
split, and what that mask gains on the pick split with its paired standard error.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path

from headwise.cli.telling import Terminal
from headwise.data.read import read
from headwise.data.splits import Splits, split
from headwise.jobs.steps.bench import prepare
from headwise.jobs.steps.searching import search
from headwise.jobs.steps.settings import Settings
from headwise.scoring.stats import standard_error
from headwise.towers import load


def measure(model_name: str, source: Path, operators: tuple[str, ...], most: int) -> list[dict]:
    model, pairs = load(model_name), read(source)
    whole = split(pairs)
    first = whole.search[:most]
    kept = (*first, *whole.pick[:most])
    seen = pairs.subset(kept)  # the test split is not even decoded
    count = len(first)
    splits = Splits(tuple(range(count)), tuple(range(count, len(kept))), (), whole.how, whole.hash)
    bench = prepare(model, seen, splits, reporter=Terminal())
    settings = Settings(operators=operators, strategies=("greedy",))
    rows = []
    for operator in operators:
        evaluate, pick = bench.evaluator("search"), bench.evaluator("pick")
        if operator == "mean":
            evaluate.means = pick.means = bench.means
        found = search(bench, evaluate, operator, settings, lambda: math.inf)
        best = found.strategies[0].best
        before, after = pick([best.mask - best.mask, best.mask])
        rows.append(
            {
                "target": source.parent.name,
                "operator": operator,
                "images": [len(splits.search), len(splits.pick)],
                "search before": round(100 * found.start.identity.fitness, 2),
                "search gain": round(100 * (best.score.fitness - found.start.identity.fitness), 2),
                "helpful alone": sum(single.score.order > found.start.identity.order for single in found.start.singles),
                "heads": best.mask.size,
                "pick before": round(100 * before.fitness, 2),
                "pick gain": round(100 * (after.fitness - before.fitness), 2),
                "pick error": round(100 * standard_error(after.hits - before.hits, before.plan), 2),
                "mask": str(best.mask),
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--operators", default="uniform,zero,mean")
    parser.add_argument("--images", type=int, default=400, help="most images of the search and of the pick split")
    parser.add_argument("pairs", nargs="+", type=Path)
    args = parser.parse_args()
    for source in args.pairs:
        for row in measure(args.model, source, tuple(args.operators.split(",")), args.images):
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()

"""How many FFE searches spend before they end by themselves: what the plan of a run (`--dry-run`) expects of them.

    python benchmarks/lengths.py --out lengths.jsonl

Greedy and AAT-GA, each as `headwise refine` runs it without --budget, on the packaged model and on models with planted
harm (`plants.py`), with several numbers of images and operators. Each run is a line in the file; the same command
continues where it stopped. Printed at the end: quantiles over all runs, for `jobs/steps/planning.py`.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from plants import attention, damage

from headwise.data.read import read
from headwise.data.splits import split
from headwise.demo import pairs_file
from headwise.edits.mask import Mask
from headwise.evaluation.engine import ffe
from headwise.jobs.steps.bench import Bench, prepare
from headwise.jobs.steps.searching import search
from headwise.jobs.steps.settings import SEARCH_FFE, Settings
from headwise.search.contract import purse
from headwise.towers import load, tower_of


def bench_of(kind: str, images: int, seed: int) -> Bench:
    """The packaged model, with planted harm unless `kind` is none, and some of the images of the search split."""
    model = load("demo")
    if kind != "none":
        damage(attention(model.module), kind, random.Random(seed), 32, 10.0)
        model = replace(model, tower=tower_of(model.module))
    pairs = read(str(pairs_file()))
    splits = split(pairs)
    chosen = random.Random(seed).sample(splits.search, images)
    return prepare(model, pairs, replace(splits, search=tuple(sorted(chosen)), hash=""), dtype="float32")


def run(kind: str, images: int, operator: str, seed: int) -> dict:
    """What each search spent of the default budget."""
    bench, settings = bench_of(kind, images, seed), replace(Settings(), operators=(operator,), seed=seed)
    evaluate = bench.evaluator("search")
    heads = [Mask.suppress(bench.tower.grid, [head], operator) for head in bench.tower.grid]
    sweep = ffe(bench.tower, [Mask.identity(bench.tower.grid), *heads])
    if operator == "mean":
        evaluate.means = bench.means
    began = time.perf_counter()
    found = search(bench, evaluate, operator, settings, purse(evaluate, sweep + SEARCH_FFE, None))
    return {
        "sweep": found.start.cost,
        **{s.name: {"ffe": s.ffe, **{k: s.facts.get(k) for k in ("why", "agreement", "exact_after", "estimated")}}
           for s in found.strategies},
        "seconds": time.perf_counter() - began,
    }  # fmt: skip


INPUTS = [
    ("none", 100, "uniform", 1), ("none", 200, "zero", 2), ("three", 100, "uniform", 3), ("none", 100, "mean", 4),
    ("compensating", 100, "uniform", 5), ("none", 300, "uniform", 6), ("six", 100, "zero", 7), ("none", 100, "zero", 8),
    ("none", 200, "uniform", 9), ("redundant", 100, "uniform", 10), ("none", 200, "mean", 11),
    ("one", 100, "uniform", 12),
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("lengths.jsonl"))
    parser.add_argument("--most", type=int, default=len(INPUTS), help="inputs")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    for kind, images, operator, seed in INPUTS[: args.most]:
        facts = {"plant": kind, "images": images, "operator": operator, "seed": seed}
        if any(facts.items() <= row.items() for row in rows):
            continue
        rows.append(facts | run(kind, images, operator, seed))
        with args.out.open("a") as file:
            file.write(json.dumps(rows[-1]) + "\n")
        print(rows[-1], flush=True)
    for name in ("greedy", "ga"):
        spent = sorted(row[name]["ffe"] for row in rows)
        print(name, "median", statistics.median(spent), "range", spent[0], spent[-1], [round(x) for x in spent])


if __name__ == "__main__":
    main()

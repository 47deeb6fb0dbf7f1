"""What distractors are worth where pairs are few: held-out gain of what is found on 40 images, with and without them.

    python benchmarks/distractors.py --seeds 5 > table.md

The packaged model and pairs. Each seed draws its own images: --images to search on, --pick to choose by, --test to
judge by; what is left gives texts of one's own domain without images. Distractors take part in search and choice; the
gain is always that of plain mean recall on the test images, so that rows compare. `best by search`: what the search
itself liked best; `best by pick`: of all its candidates, and the unchanged model, what the pick split scores highest;
`chosen`: what `refine` would take (safe rule, level 5 %). Greedy has --budget FFE, its sweep included. Means over seeds in points ± standard error over seeds.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections import defaultdict
from dataclasses import replace

import numpy as np

from headwise.data.read import read
from headwise.data.splits import Splits, split
from headwise.edits.mask import Mask
from headwise.jobs.steps.bench import Bench, prepare
from headwise.jobs.steps.choosing import pick
from headwise.jobs.steps.distractors import distractors_of
from headwise.jobs.steps.learning import learn
from headwise.jobs.steps.searching import Searched, search
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.tasks import embed_texts
from headwise.processor import machine
from headwise.search.values import ValueSettings
from headwise.towers import load

WAYS = ("none", "phrases", "own texts")
METHODS = ("greedy mask (uniform)", "scale")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in (("seeds", 5), ("images", 40), ("pick", 30), ("test", 300), ("budget", 40)):
        options.add_argument(f"--{name}", type=int, default=value)
    given = options.parse_args()
    pairs, model = read("demo"), load("demo")
    bench = prepare(model, pairs, split(pairs), dtype="float32")
    gains: dict[tuple[str, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    counts: dict[str, list[int]] = defaultdict(list)
    for seed in range(given.seeds):
        order = random.Random(seed).sample(range(len(pairs)), len(pairs))
        cuts = np.cumsum([given.images, given.pick, given.test])
        search_part, pick_part, test_part, rest = (tuple(sorted(p.tolist())) for p in np.split(order, cuts))
        splits = Splits(search_part, pick_part, test_part, how="drawn", hash=str(seed))
        plain = replace(bench, splits=splits)
        masks: dict[tuple[str, str, str], Mask] = {}
        own = tuple(text for i in rest for text in pairs.captions[i])
        for way in WAYS:
            task, used = bench.task, sorted((*search_part, *pick_part, *test_part))
            if way != "none":
                known = distractors_of("phrases" if way == "phrases" else own, pairs.subset(used).texts, "the pairs")
                task = replace(task, distractors=known, foreign=embed_texts(model, known.texts))
                counts[way].append(len(known.texts))
            for method in METHODS:
                for name, mask in found_by(replace(plain, task=task), method, seed, given.budget).items():
                    masks[method, way, name] = mask
        test = plain.evaluator("test")  # all at once: they share the unchanged model, and what was found twice
        base = test([Mask.identity(bench.tower.grid)])[0]
        for (method, way, name), score in zip(masks, test(list(masks.values())), strict=True):
            gains[method, way][name].append(100 * (score.fitness - base.fitness))
        for (method, way, name), mask in masks.items():
            if name == "chosen":
                gains[method, way]["took"].append(float(not mask.is_identity))
        print(f"seed {seed}: {time.process_time():.0f} s of processor time", file=sys.stderr)
    print(f"{given.images} search, {given.pick} pick, {given.test} test images; {given.seeds} seeds; {processor()}.\n")
    print("| found by | distractors | best by search | best by pick | chosen | chosen in |")
    print("|---|---:|---:|---:|---:|---:|")
    for (method, way), found in gains.items():
        cells = [told(found[name]) for name in ("search", "pick", "chosen")]
        texts = "none" if way == "none" else f"{np.mean(counts[way]):,.0f} ({way})"
        print(f"| {method} | {texts} | {' | '.join(cells)} | {int(sum(found['took']))} of {given.seeds} |")
    print("\nWith distractors less without, seed by seed:\n")
    print("| found by | distractors | best by search | best by pick |")
    print("|---|---|---:|---:|")
    for (method, way), found in gains.items():
        if way != "none":
            base = gains[method, "none"]
            cells = [told(np.subtract(found[name], base[name]).tolist()) for name in ("search", "pick")]
            print(f"| {method} | {way} | {' | '.join(cells)} |")


def found_by(bench: Bench, method: str, seed: int, budget: float) -> dict[str, Mask]:
    """What a method finds: the best by search, the best by pick, and the one that is chosen."""
    values = ValueSettings(epochs=20, holdout=0.2)  # a fifth of the images says when to stop
    settings = Settings(strategies=("greedy",), values=values, seed=seed)
    evaluate = bench.evaluator("search")
    searched: list[Searched]
    if method == "scale":
        searched = [learn(bench, evaluate, "scale", settings, lambda: math.inf)]
    else:
        searched = [search(bench, evaluate, "uniform", settings, lambda: budget - evaluate.spent)]
    best = searched[0].strategies[0].best.mask
    picked = pick(bench, searched, settings)
    liked = max(picked.finalists, key=lambda one: (one.pick.order, -one.mask.values)).mask
    return {"search": best, "pick": liked, "chosen": picked.chosen.mask}


def told(values: list[float]) -> str:
    """Mean and its standard error over seeds."""
    error = np.std(values, ddof=1) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return f"{np.mean(values):+.2f} ± {error:.2f}"


def processor() -> str:
    """Where this ran."""
    return str(machine("cpu").get("processor", machine("cpu")))


if __name__ == "__main__":
    main()

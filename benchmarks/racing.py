"""How often does racing change the mask that the greedy search finds, and how many FFE does it save?

    python benchmarks/racing.py
    python benchmarks/racing.py --width 36 --images 300

On the packaged model and pairs, or on --model and --pairs, search split alone; a seed is an order in which images
come to the races. Embeddings are kept, so what several seeds ask for runs once; FFE are counted as if they did not.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import median

import torch

from headwise.data.splits import split
from headwise.edits.mask import Mask
from headwise.evaluation.engine import embed, ffe
from headwise.evaluation.evaluator import Evaluator
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.opening import Machine, load_model, prepared, read_pairs
from headwise.jobs.steps.progress import Silent
from headwise.jobs.steps.racing import Contest
from headwise.scoring.objectives import Score
from headwise.search.greedy import Greedy, greedy
from headwise.search.racing import FilledSubsets, RaceSettings
from headwise.search.sweep import Sweep, sweep


@dataclass
class Kept:
    """Every mask's embeddings and score, computed once."""

    bench: Bench
    evaluator: Evaluator
    embeddings: dict[str, torch.Tensor] = field(default_factory=dict)
    scores: dict[str, Score] = field(default_factory=dict)

    def need(self, masks: Sequence[Mask]) -> None:
        new = [mask for mask in masks if mask.key not in self.embeddings]
        if new:
            run = self.evaluator
            for mask, found in embed(run.tower, run.pixels, new, run.layout):
                self.embeddings[mask.key] = found
                self.scores[mask.key] = run.objective(found)

    def get(self, _split: str, masks: Sequence[Mask]) -> dict[str, Score]:
        """As a study's: an evaluator with this never runs anything itself."""
        self.need(masks)
        return {mask.key: self.scores[mask.key] for mask in masks}

    def put(self, _split: str, scores: Sequence[tuple[Mask, Score]]) -> None:
        """Nothing to keep: a race's scores come from these embeddings."""

    def fresh(self) -> Evaluator:
        """An evaluator that has spent nothing."""
        return replace(self.evaluator, study=self, _scores={})  # type: ignore[arg-type]


@dataclass
class FromKept(FilledSubsets):
    """Subsets whose embeddings are kept; it counts FFE as the engine's do."""

    kept: Kept | None = None

    def _run(self, masks: Sequence[Mask], indices: Sequence[int]) -> None:
        assert self.kept is not None
        self.kept.need(masks)
        self._filled = {mask.key: self._filled[mask.key] for mask in masks if mask.key in self._filled}
        _, seen = self._filled.get(masks[0].key, (None, frozenset()))
        missing = [i for i in indices if i not in seen]
        self.spent += ffe(self.tower, masks) * len(missing) / len(self.identity)
        for mask in masks:
            whole, _ = self._filled.get(mask.key, (self.identity.clone(), seen))
            whole[missing] = self.kept.embeddings[mask.key][missing]  # (n, E)
            self._filled[mask.key] = (whole, seen.union(missing))


def search(kept: Kept, swept: Sweep, width: int, race: RaceSettings | None) -> tuple[Greedy, dict, float]:
    """A greedy search from the sweep on: what it found, what its races did, what it cost."""
    evaluate = kept.fresh()
    sweep(evaluate, swept.grid, swept.operator)
    start, contest = evaluate.spent, None
    if race:
        identity = kept.embeddings["identity"]
        subsets = FromKept(evaluate.tower, evaluate.layout, lambda _: identity, evaluate.objective, identity)
        subsets.kept = kept
        alone = [effect.found for effect in swept.heads]
        contest = Contest(kept.bench, evaluate, swept.identity, alone, race, subsets=subsets)
    found = greedy(evaluate, swept.grid, swept.operator, swept.ranking, width=width, contest=contest)
    return found, contest.facts if contest else {}, evaluate.spent - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--pairs", default="demo")
    parser.add_argument("--operator", default="uniform")
    parser.add_argument("--images", type=int, help="of the search split; all by default")
    parser.add_argument("--width", type=int, default=8, help="heads that each greedy step tries")
    parser.add_argument("--alpha", type=float, default=RaceSettings().alpha)
    parser.add_argument("--seeds", type=int, default=20)
    args = parser.parse_args()
    pairs = read_pairs(args.pairs, Silent(), {})
    splits = split(pairs)
    splits = replace(splits, search=splits.search[: args.images], hash="")
    bench = prepared(load_model(args.model, Machine()), pairs, splits, None, None, Machine(), Silent())
    kept = Kept(bench, bench.evaluator("search"))
    swept = sweep(kept.fresh(), bench.tower.grid, args.operator)
    exact, _, cost = search(kept, swept, args.width, None)
    rows = [search(kept, swept, args.width, RaceSettings(alpha=args.alpha, seed=seed)) for seed in range(args.seeds)]
    changed = sum(found.best.mask != exact.best.mask for found, _, _ in rows)
    worst = max(exact.best.score.fitness - found.best.score.fitness for found, _, _ in rows)
    costs = [spent for _, _, spent in rows]
    dropped = [100 * facts["dropped"] / max(1, facts["masks"]) for _, facts, _ in rows]
    images = f"{len(bench.indices('search'))} images"
    print("| greedy search | best mask | masks raced | dropped | FFE | FFE saved | winner changed |")
    print("|---|---|---:|---:|---:|---:|---:|")
    print(f"| width {args.width}, {images}, exact | {exact.best.mask} | | | {cost:.1f} | | |")
    print(
        f"| raced, {args.seeds} seeds: median (range) | | {median(f['masks'] for _, f, _ in rows):.0f} "
        f"| {median(dropped):.0f} % ({min(dropped):.0f} to {max(dropped):.0f}) "
        f"| {median(costs):.1f} ({min(costs):.1f} to {max(costs):.1f}) "
        f"| {100 * (1 - median(costs) / cost):.0f} % ({100 * (1 - max(costs) / cost):.0f} to "
        f"{100 * (1 - min(costs) / cost):.0f}) | {changed} of {args.seeds} |"
    )
    print(f"\nLargest loss of fitness where the winner changed: {100 * max(0.0, worst):.2f} points.")


if __name__ == "__main__":
    main()

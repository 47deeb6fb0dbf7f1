"""Does AAT-GA on estimates reach what it reaches when it runs every mask, with a tenth of the FFE?

    python benchmarks/estimated.py --pairs demo,pairs-openmoji/pairs.parquet,pairs-pixel/pairs.parquet \
        --seeds 5 --folder estimated/

On the search split of each source (of --images images, by default all of them), for each seed: the plain search, as
`headwise refine` sets it up but with no limit besides its budget, then the one on estimates with a tenth of that budget.
Both start from the same sweep, which also gives the estimates; the sweep is in neither budget,
and the ratio is also printed with the sweep counted for both. Each source has a study in the folder, and each
finished seed a line in `rows.jsonl`: the same command continues where it stopped. FFE are counted as if nothing had
come from the study. (`recipes/demo/package_pairs.py` makes the folders of pairs.)

`r estimate`: Pearson's correlation of estimated and exact fitness over masks of two and more heads that the search of
every mask evaluated. `agreement` in rows.jsonl: what the search on estimates measures itself, Spearman's over the masks
that it chose to run; it is lower, because all of these were estimated high.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch

from headwise.data.read import read
from headwise.data.splits import split
from headwise.demo import pairs_file
from headwise.edits.mask import Mask
from headwise.evaluation.evaluator import Evaluator
from headwise.jobs.steps.bench import Bench, prepare
from headwise.jobs.steps.settings import Settings
from headwise.scoring.objectives import Score
from headwise.search.anchors import Anchors
from headwise.search.deltas import Collector, HeadDeltas, collect
from headwise.search.estimated import estimated
from headwise.search.genetic import genetic
from headwise.search.sweep import Sweep, sweep
from headwise.towers import load


def prepared(source: str, args: argparse.Namespace) -> Bench:
    pairs = read(str(pairs_file()) if source == "demo" else source)
    splits = split(pairs)
    part = splits.search[: args.images] if args.images else splits.search
    name = "demo" if source == "demo" else Path(source).parent.name
    return prepare(
        load(args.model, device=args.device),
        pairs,
        replace(splits, search=part, hash=f"{splits.hash} {len(part)}"),
        device=args.device,
        study=args.folder / f"{name}-{len(part)}.sqlite",
    )


@dataclass
class Recording:
    """An evaluator that remembers what it was asked."""

    evaluate: Evaluator
    seen: dict[Mask, float] = field(default_factory=dict)

    @property
    def spent(self) -> float:
        return self.evaluate.spent

    def cost(self, masks: Sequence[Mask]) -> float:
        return self.evaluate.cost(masks)

    def __call__(self, masks: Sequence[Mask]) -> list[Score]:
        scores = self.evaluate(masks)
        self.seen.update({mask: score.fitness for mask, score in zip(masks, scores, strict=True)})
        return scores

    def correlation(self, deltas: HeadDeltas, most: int = 200) -> float:
        """Of estimates with exact fitness, over at most so many masks, evenly chosen."""
        masks = [mask for mask in self.seen if mask.size > 1]
        masks = masks[:: max(1, len(masks) // most)]
        guesses = [self.evaluate.objective(deltas.embeddings(mask)).fitness for mask in masks]
        return float(np.corrcoef(guesses, [self.seen[mask] for mask in masks])[0, 1])


def fresh(bench: Bench, operator: str) -> tuple[Evaluator, Sweep]:
    """An evaluator that has asked for the sweep and nothing else."""
    evaluate = bench.evaluator("search")
    evaluate.means = bench.means if operator == "mean" else None
    return evaluate, sweep(evaluate, bench.tower.grid, operator)


def compare(bench: Bench, deltas: HeadDeltas, operator: str, budget: float, seed: int) -> dict:
    """One seed: the plain search, then the screened one."""
    evaluate, swept = fresh(bench, operator)
    swept_ffe = evaluate.spent
    options = replace(Settings().genetic, generations=10_000, patience=10_000, budget=budget, seed=seed)
    recording = Recording(evaluate)
    plain = genetic(recording, swept.grid, operator, options, ranking=swept.ranking)
    evaluate, _ = fresh(bench, operator)
    short, how = replace(options, budget=budget / 10), replace(Settings().estimates, rounds=10_000, patience=10_000)
    begun = time.perf_counter()
    anchors = Anchors(deltas, evaluate.embeddings)
    evaluate.observe = anchors.observe
    target, ranking = bench.objective("search"), swept.ranking
    found = estimated(evaluate, swept.grid, operator, anchors, target, short, how, ranking=ranking)
    return {
        "identity": swept.identity.fitness,
        "best_head": swept.best.score.fitness,
        "sweep_ffe": swept_ffe,
        "plain": plain.best.score.fitness,
        "plain_ffe": plain.ffe,
        "plain_mask": str(plain.best.mask),
        "estimates": found.best.score.fitness,
        "estimates_ffe": found.ffe,
        "estimates_mask": str(found.best.mask),
        "estimates_seconds": round(time.perf_counter() - begun, 1),
        "estimated": found.estimated,
        "evaluated": found.history[-1].evaluated if found.history else 0,
        "correlation": recording.correlation(deltas),
        "agreement": found.agreement,
        "exact_after": found.exact_after,
        # how soon each had what the plain search had at the end
        "ffe_to_reach_plain": next((r.ffe for r in found.history if r.best >= plain.best.score.fitness), None),
        "plain_ffe_to_reach_estimates": next(
            (r.ffe for r in plain.history if r.best >= found.best.score.fitness), None
        ),
    }


def table(rows: list[dict]) -> list[str]:
    """One line per source, medians over seeds."""
    lines = [
        "| pairs | images | identity | best head | every mask run | estimates | difference, each seed | median | FFE: every mask, "
        "estimates | with the sweep | r estimate |",
        "|---|---:|---:|---:|---:|---:|---|---:|---:|---:|---:|",
    ]
    for name in dict.fromkeys(row["pairs"] for row in rows):
        mine = [row for row in rows if row["pairs"] == name]

        def middle(key: str, mine: list[dict] = mine) -> float:
            return statistics.median(row[key] for row in mine)

        gaps = [100 * (row["estimates"] - row["plain"]) for row in mine]
        ffe, short, swept = middle("plain_ffe"), middle("estimates_ffe"), middle("sweep_ffe")
        cells = (
            name,
            str(mine[0]["images"]),
            *(f"{100 * middle(key):.2f}" for key in ("identity", "best_head", "plain", "estimates")),
            " ".join(f"{gap:+.2f}" for gap in gaps),
            f"{statistics.median(gaps):+.2f}",
            f"{ffe:.0f}, {short:.1f}",
            f"{ffe + swept:.0f}, {short + swept:.0f}",
            f"{middle('correlation'):.2f}",
        )
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--pairs", default="demo", help="sources, separated by commas; demo: the packaged pairs")
    parser.add_argument("--operator", default="uniform")
    parser.add_argument("--images", type=int, default=0, help="of the search split; 0: all")
    parser.add_argument("--budget", type=float, default=200.0, help="FFE of the plain search")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, default=Path("estimated"), help="studies and rows.jsonl")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    args.folder.mkdir(parents=True, exist_ok=True)
    record = args.folder / "rows.jsonl"
    known = [json.loads(line) for line in record.read_text().splitlines()] if record.exists() else []
    rows = []
    for source in args.pairs.split(","):
        bench = prepared(source, args)
        deltas = None
        for seed in range(args.seeds):
            facts = {
                "pairs": source,
                "weights": bench.model.tower.weights_hash,
                "data": bench.pairs.hash,
                "images": len(bench.indices("search")),
                "operator": args.operator,
                "precision": bench.layout.dtype,
                "budget": args.budget,
                "seed": seed,
            }
            row = next((row for row in known if facts.items() <= row.items()), None)
            if row is None:
                if deltas is None:
                    deltas = changes(bench, args.operator)
                row = facts | compare(bench, deltas, args.operator, args.budget, seed)
                with record.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            rows.append(row)
            print(
                f"{source} seed {seed}: plain {100 * row['plain']:.2f} after {row['plain_ffe']:.0f} FFE, estimates "
                f"{100 * row['estimates']:.2f} after {row['estimates_ffe']:.1f} FFE ({row['estimated']} estimates, "
                f"{row['estimates_seconds']} s)",
                flush=True,
            )
    print("\n".join(table(rows)))


def changes(bench: Bench, operator: str) -> HeadDeltas:
    """Collected apart, because a study that continues knows the sweep's scores and not its embeddings."""
    pixels, means = bench.cache.take(bench.indices("search")), bench.means if operator == "mean" else None
    return collect(Collector(bench.tower.grid, operator), bench.tower, pixels, bench.layout, means=means)


if __name__ == "__main__":
    main()

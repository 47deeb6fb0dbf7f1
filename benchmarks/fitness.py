"""What searches should be guided by: mean recall, the contrastive loss or a soft rank; held-out gain at the same FFE.

    python benchmarks/fitness.py --seeds 5 --ffe 24

On the packaged model and pairs: for every seed other images are searched on and tested on. First-order scores rank the heads,
the first third of them is run alone; then greedy and AAT-GA (estimates) get half of the FFE each, guided by one fitness.
The best mask by that fitness is compared with the unchanged model on the test images, by mean recall. Prints a row a seed
as soon as it is done, then means with their standard errors and paired differences from mean recall.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from headwise.data.read import read
from headwise.data.splits import split
from headwise.demo import pairs_file
from headwise.edits.mask import Mask
from headwise.evaluation.evaluator import Evaluator
from headwise.jobs.steps.bench import Bench, prepare
from headwise.jobs.steps.starting import exact
from headwise.scoring.losses import loss_of
from headwise.scoring.objectives import Score
from headwise.search.anchors import Anchors, Guesses
from headwise.search.contract import best_of
from headwise.search.deltas import Collector, HeadDeltas
from headwise.search.estimated import estimated
from headwise.search.first_order import first_order
from headwise.search.genome import GeneticSettings
from headwise.search.greedy import greedy
from headwise.search.pairs import Pairs
from headwise.towers import load

SOFT = 4.0  # logits over which a rank of the soft one goes from below to above


def soft_rank(embeddings: torch.Tensor, texts: torch.Tensor, scale: float) -> float:
    """−mean log(1 + r), r = Σ_j σ((s_ij − s_ii)/4): of each image (N, E) and its one caption (N, E), both directions."""
    e, t = (torch.nn.functional.normalize(x.float(), dim=-1) for x in (embeddings, texts))
    logits = scale * e @ t.T  # (N, N)
    own = logits.diagonal()
    ranks = [torch.sigmoid((one - own[:, None]) / SOFT).sum(1) - 0.5 for one in (logits, logits.T)]
    return -float(sum(rank.log1p().mean() for rank in ranks) / 2)


FITNESS: dict[str, Callable[[Score], float]] = {
    "mean recall": lambda score: score.fitness,
    "contrastive loss": lambda score: -score.loss,
    "soft rank": lambda score: score.metrics["soft_rank"],
}


@dataclass
class Guided(Evaluator):
    """An evaluator whose scores have another fitness; ties are broken by the loss as ever."""

    by: str = "mean recall"

    def guided(self, score: Score) -> Score:
        return replace(score, fitness=FITNESS[self.by](score))

    def __call__(self, masks: Sequence[Mask]) -> list[Score]:
        return [self.guided(score) for score in super().__call__(masks)]


class Memory:
    """What an evaluator needs of a study: what two searches both ask for is run once."""

    def __init__(self):
        self.known: dict[str, Score] = {}

    def get(self, _split: str, masks: Sequence[Mask]) -> dict[str, Score]:
        return {mask.key: self.known[mask.key] for mask in masks if mask.key in self.known}

    def put(self, _split: str, scores: Sequence[tuple[Mask, Score]]) -> None:
        self.known.update({mask.key: score for mask, score in scores})


def evaluator(bench: Bench, memory: Memory, by: str) -> Guided:
    """A fresh one, with its own FFE."""
    objective, scale = bench.objective("search"), bench.model.logit_scale

    def scored(embeddings: torch.Tensor) -> Score:
        score = objective(embeddings)
        return replace(score, metrics={**score.metrics, "soft_rank": soft_rank(embeddings, objective.texts, scale)})  # type: ignore[attr-defined]

    plain = bench.evaluator("search")
    return Guided(plain.tower, plain.layout, plain.pixels, scored, study=memory, by=by)  # type: ignore[arg-type]


def found_by(bench: Bench, memory: Memory, by: str, deltas: HeadDeltas, ranking, operator: str, ffe: float, seed: int):
    """The best mask of greedy and AAT-GA by one fitness, its size and the FFE spent."""
    evaluate, grid = evaluator(bench, memory, by), bench.tower.grid
    evaluate([Mask.identity(grid), *(Mask.suppress(grid, [head], operator) for head in deltas.heads)])
    evaluate.spent = 0.0

    def objective(embeddings: torch.Tensor) -> Score:
        return evaluate.guided(evaluate.objective(embeddings))

    anchors = Anchors(deltas, evaluate.embeddings)
    evaluate.observe = anchors.observe
    pairs, guess = Pairs(deltas), Guesses(anchors, objective)
    known = [head for head in ranking if head in set(deltas.heads)]
    grown = greedy(evaluate, grid, operator, known, budget=ffe / 2, guess=guess, pairs=pairs)
    anchors = Anchors(deltas, evaluate.embeddings)
    evaluate.observe = anchors.observe
    seeds = [*(item.mask for item in grown.masks), *pairs(grown.best.mask.bare(), 4)]
    options = GeneticSettings(population=24, seed=seed, budget=ffe - evaluate.spent)
    bred = estimated(
        evaluate, grid, operator, anchors, objective, options, ranking=known, seeds=seeds, heads=deltas.heads
    )
    best = best_of([*grown.masks, *bred.by_size])
    return best.mask, evaluate.spent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--operator", default="uniform")
    parser.add_argument("--images", type=int, default=200, help="of the search split")
    parser.add_argument("--test", type=int, default=400, help="images to test on")
    parser.add_argument("--ffe", type=float, default=24.0, help="of greedy and AAT-GA together")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--fitness", default=",".join(FITNESS))
    args = parser.parse_args()
    pairs = read(str(pairs_file()))
    whole = prepare(load("demo"), pairs, split(pairs))
    names = [name.strip() for name in args.fitness.split(",")]
    gains: dict[str, list[float]] = {name: [] for name in names}
    print(f"| seed | {' | '.join(names)} | heads |\n|---|{'---:|' * len(names)}---|", flush=True)
    for seed in range(args.first, args.first + args.seeds):
        order = random.Random(seed).sample(range(len(pairs)), args.images + args.test)
        splits = replace(
            whole.splits, search=tuple(sorted(order[: args.images])), test=tuple(sorted(order[args.images :])), hash=""
        )
        bench, memory = replace(whole, splits=splits), Memory()
        start, tower = evaluator(bench, memory, "mean recall"), exact(whole)
        loss = loss_of(bench.objective("search"), tower.device)
        ranking = first_order(tower, start.pixels, loss, [args.operator]).ranking(args.operator)
        heads = ranking[: max(8, len(ranking) // 3)]
        start.observe = keep = Collector(tower.grid, args.operator, heads)
        start([Mask.identity(tower.grid), *(Mask.suppress(tower.grid, [head], args.operator) for head in heads)])
        deltas = keep.deltas
        assert deltas is not None
        judge = bench.evaluator("test")
        masks = {}
        for name in names:
            masks[name], _ = found_by(bench, memory, name, deltas, ranking, args.operator, args.ffe, seed)
        base, *after = judge([Mask.identity(tower.grid), *masks.values()])
        for name, score in zip(names, after, strict=True):
            gains[name].append(100 * (score.fitness - base.fitness))
        row = " | ".join(f"{gains[name][-1]:+.2f}" for name in names)
        print(f"| {seed} | {row} | {', '.join(str(mask.size) for mask in masks.values())} |", flush=True)
    if args.seeds < 2:
        return
    for name in names:
        mean, error = statistics.mean(gains[name]), statistics.stdev(gains[name]) / args.seeds**0.5
        change = [a - b for a, b in zip(gains[name], gains[names[0]], strict=True)]
        paired = f"{statistics.mean(change):+.2f} ± {statistics.stdev(change) / args.seeds**0.5:.2f}"
        print(f"{name}: {mean:+.2f} ± {error:.2f} points; against {names[0]}: {paired}", flush=True)


if __name__ == "__main__":
    main()

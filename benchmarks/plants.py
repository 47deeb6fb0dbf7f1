"""Do the searches find harm that was planted: one to six heads, a pair that compensates, a redundant pair?

    python benchmarks/plants.py --seeds 20,21,22 --budget 200 --out plants.jsonl

Each plant damages heads of a model and leaves the rest as it is; what suppressing exactly these heads gives is the
score that a search could have. `tower`: a random image tower whose captions lie near the embeddings without the
planted heads; `demo`: the packaged model on its own pairs. Every search gets the same budget of FFE, sweep and all.
Each run is a line in the file; the same command continues where it stopped.

    one … six         heads that write far too loudly into the residual stream, each what its own values say
    compensating      two heads that write almost the same, one with the opposite sign: they help only together, and
                      one alone does far worse than both
    redundant         two heads of which either is enough to drown the picture
    none              nothing is planted
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.evaluation.engine import embed
from headwise.evaluation.evaluator import Evaluator
from headwise.evaluation.layout import plan
from headwise.jobs.steps.settings import Settings
from headwise.scoring.objectives import Retrieval
from headwise.search.anchors import Anchors, Guesses
from headwise.search.contract import best_of, purse
from headwise.search.deltas import Collector
from headwise.search.estimated import estimated
from headwise.search.genetic import genetic
from headwise.search.greedy import greedy
from headwise.search.pairs import Pairs
from headwise.search.sweep import sweep
from headwise.towers import load, tower_of

KINDS = ("none", "one", "three", "four", "five", "six", "compensating", "redundant")
COUNTS = {"none": 0, "one": 1, "three": 3, "four": 4, "five": 5, "six": 6, "compensating": 2, "redundant": 2}


@dataclass(frozen=True)
class World:
    """What a search sees, what was planted, and what suppressing just that gives."""

    evaluate: Callable[[], Evaluator]
    planted: tuple[Head, ...]
    possible: float
    identity: float


def damage(layers: Sequence[nn.Module], kind: str, rng: random.Random, head_dim: int, loud: float) -> list[Head]:
    """Plant harm in attention layers with `q_proj`, `k_proj`, `v_proj` and `out_proj`; which heads."""
    heads = layers[0].out_proj.weight.shape[1] // head_dim  # type: ignore[union-attr, index, operator]
    g = torch.Generator().manual_seed(rng.randrange(2**31))

    def spoil(head: Head, like: Head | None = None, sign: float = 1.0) -> None:
        """A head that attends to few patches and writes what they are, loudly, in random directions."""
        attention, own = layers[head.layer], slice(head.index * head_dim, (head.index + 1) * head_dim)
        out: torch.Tensor = attention.out_proj.weight  # type: ignore[assignment, union-attr]  (D, D)
        if like is not None:
            other = slice(like.index * head_dim, (like.index + 1) * head_dim)
            for name in ("q_proj", "k_proj", "v_proj"):
                projection = getattr(attention, name)
                projection.weight[own], projection.bias[own] = projection.weight[other], projection.bias[other]
            rest = out[:, other].std() * torch.randn(out[:, own].shape, generator=g)
            out[:, own] = sign * (out[:, other] + (0.5 * rest if sign < 0 else 0.1 * rest))
            return
        attention.q_proj.weight[own] *= 4  # type: ignore[union-attr, operator, index]
        attention.v_proj.bias[own] = 0  # type: ignore[union-attr, operator, index]
        out[:, own] = loud * out.std() * torch.randn(out[:, own].shape, generator=g)

    with torch.no_grad():
        if kind in ("compensating", "redundant"):
            layer = rng.randrange(len(layers) - 1)
            first, second = (Head(layer, i) for i in rng.sample(range(heads), 2))
            spoil(first)
            spoil(second, like=first, sign=-1.0 if kind == "compensating" else 1.0)
            return [first, second]
        grid = [Head(layer, i) for layer in range(len(layers)) for i in range(heads)]
        chosen = sorted(rng.sample(grid, COUNTS[kind]))
        for head in chosen:
            spoil(head)
        return chosen


def attention(module: nn.Module) -> list[nn.Module]:
    """The attention of every layer of a Hugging Face image tower."""
    names = [name for name, _ in module.named_modules() if name.endswith("self_attn") and "vision_model" in name]
    return [module.get_submodule(name) for name in names]


def tower_world(kind: str, seed: int, operator: str, images: int) -> World:
    """A random tower of 6 × 6 heads; two captions near each image's embedding without the planted heads."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=96,
        num_hidden_layers=6,
        num_attention_heads=6,
        image_size=32,
        patch_size=8,
        projection_dim=24,
    )
    module = CLIPVisionModelWithProjection(config).eval()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            is_norm = "norm" in name and name.endswith("weight")
            p.copy_(1 + 0.1 * noise if is_norm else noise * (0.08 if p.dim() > 1 else 0.05))
    layers = attention(module)
    heads = damage(layers, kind, random.Random(seed), 16, 20.0)
    tower = tower_of(module)
    pixels = torch.randn(images, 3, 32, 32, generator=g)
    clean_mask = Mask.suppress(tower.grid, heads, operator) if heads else Mask.identity(tower.grid)
    ((_, clean),) = embed(tower, pixels, [clean_mask], plan(tower, dtype="float32"))
    texts = torch.nn.functional.normalize(clean).repeat_interleave(2, 0)  # (2·N, E)
    texts = texts + 0.2 * torch.randn(texts.shape, generator=g)
    target = Retrieval(texts, np.repeat(np.arange(images), 2), scale=20.0)

    def fresh() -> Evaluator:
        return Evaluator(tower, plan(tower, dtype="float32"), pixels, target)

    return _world(fresh, heads, clean_mask)


def demo_world(kind: str, seed: int, operator: str, images: int) -> World:
    """The packaged model with damaged heads, on its own pairs."""
    from headwise.data.read import read
    from headwise.data.splits import split
    from headwise.demo import pairs_file
    from headwise.jobs.steps.bench import prepare

    model = load("demo")
    layers = attention(model.module)
    heads = damage(layers, kind, random.Random(seed), 32, 10.0)
    tower = tower_of(model.module)
    model = replace(model, tower=tower)
    pairs = read(str(pairs_file()))
    splits = split(pairs)
    chosen = random.Random(seed).sample(splits.search, images)
    bench = prepare(model, pairs, replace(splits, search=tuple(chosen), hash=""), dtype="float32")
    clean = Mask.suppress(tower.grid, heads, operator) if heads else Mask.identity(tower.grid)
    return _world(lambda: bench.evaluator("search"), heads, clean)


def _world(fresh: Callable[[], Evaluator], heads: Sequence[Head], clean: Mask) -> World:
    evaluate = fresh()
    base, best = evaluate([Mask.identity(clean.grid), clean])
    return World(fresh, tuple(heads), best.fitness, base.fitness)


# ---- searches


def search_all(world: World, operator: str, budget: float, seed: int, only: Sequence[str]) -> dict[str, dict]:
    """Each search from a sweep of its own, all for the same FFE; what it found."""
    out = {}
    for name in only:
        evaluate = world.evaluate()
        grid = evaluate.tower.grid
        keep = Collector(grid, operator)
        evaluate.observe = keep
        swept = sweep(evaluate, grid, operator)
        changes = keep.deltas
        assert changes is not None
        anchors, pairs = Anchors(changes, evaluate.embeddings), Pairs(changes)
        evaluate.observe = anchors.observe
        left = purse(evaluate, budget - evaluate.spent, None)
        aware, share = name != "forward", (budget - evaluate.spent) / (2 if name.startswith("ga") else 1)
        grown = greedy(
            evaluate, grid, operator, swept.ranking, budget=share,
            guess=Guesses(anchors, evaluate.objective) if aware else None, pairs=pairs if aware else None,
            second=aware,
        )  # fmt: skip
        best, facts = best_of([swept.best, *grown.masks]), {"why": grown.why}
        if name.startswith("ga"):
            options = replace(Settings().genetic, budget=None, seed=seed)
            seeds = [*(f.mask for f in grown.masks), *pairs(Mask.identity(grid), 4), *pairs(best.mask, 4)]
            if name == "ga --exact":
                found = genetic(evaluate, grid, operator, options, ranking=swept.ranking, seeds=seeds, left=left)
                facts = {"why": found.why}
            else:
                found = estimated(
                    evaluate, grid, operator, anchors, evaluate.objective, options, ranking=swept.ranking, seeds=seeds,
                    left=left,
                )  # fmt: skip
                facts = {"why": found.why, "agreement": found.agreement, "exact_after": found.exact_after}
            best = best_of([best, found.best])
        hit = len(set(best.mask.heads) & set(world.planted))
        out[name] = {
            "score": best.score.fitness,
            "mask": str(best.mask),
            "size": best.mask.size,
            "hit": hit,
            "ffe": evaluate.spent,
            **facts,
        }
    return out


SEARCHES = ("forward", "greedy", "ga", "ga --exact")


def table(rows: list[dict]) -> list[str]:
    """For each plant the mean over seeds: score in %, and in brackets FFE."""
    lines = [
        "| model | plant | identity | possible | " + " | ".join(SEARCHES) + " |",
        "|---|---|---:|---:|" + "---:|" * 4,
    ]
    for model, kind in dict.fromkeys((row["model"], row["plant"]) for row in rows):
        mine = [row for row in rows if (row["model"], row["plant"]) == (model, kind)]

        def mean(*keys: str, mine: list[dict] = mine) -> float:
            values = []
            for row in mine:
                for key in keys:
                    row = row[key]
                values.append(row)
            return float(np.mean(values))

        cells = [f"{100 * mean('found', s, 'score'):.1f} ({mean('found', s, 'ffe'):.0f})" for s in SEARCHES]
        scores = [f"{100 * mean(key):.1f}" for key in ("identity", "possible")]
        lines.append("| " + " | ".join([model, kind, *scores, *cells]) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="tower,demo")
    parser.add_argument("--plants", default=",".join(KINDS))
    parser.add_argument("--operator", default="uniform")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--budget", type=float, default=200.0, help="FFE of each search, its sweep among them")
    parser.add_argument("--seeds", default="20,21,22")
    parser.add_argument("--out", type=Path, default=Path("plants.jsonl"))
    args = parser.parse_args()
    torch.set_num_threads(1)
    known = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    rows = []
    for model in args.models.split(","):
        for kind in args.plants.split(","):
            for seed in map(int, args.seeds.split(",")):
                facts: dict[str, Any] = {"model": model, "plant": kind, "seed": seed, "operator": args.operator}
                facts |= {"images": args.images, "budget": args.budget}
                row: dict[str, Any] | None = next((one for one in known if facts.items() <= one.items()), None)
                if row is None:
                    make = {"tower": tower_world, "demo": demo_world}[model]
                    world = make(kind, seed, args.operator, args.images)
                    row = facts | {"identity": world.identity, "possible": world.possible}
                    row["planted"] = list(map(str, world.planted))
                    row["found"] = search_all(world, args.operator, args.budget, seed, SEARCHES)
                    with args.out.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                rows.append(row)
                scores = {
                    s: f"{100 * f['score']:.1f} ({f['hit']} of {f['size']}, {f['ffe']:.0f})"
                    for s, f in row["found"].items()
                }
                print(
                    model, kind, seed, f"{100 * row['identity']:.1f} → {100 * row['possible']:.1f}", scores, flush=True
                )
    print("\n".join(table(rows)))


if __name__ == "__main__":
    main()

"""Which settings of AAT-BP do best on images that they were not learned on: where its defaults come from.

    python benchmarks/bp_defaults.py --images 120 --few --out bp.jsonl      the packaged model and pairs, minutes
    python benchmarks/bp_defaults.py --out bp.jsonl                         all settings, the whole search split
    python benchmarks/bp_defaults.py --pairs pairs-openmoji/pairs.parquet --operator zero --seeds 5
    python benchmarks/bp_defaults.py --damaged              random CLIPs, a third of whose heads were damaged

Gates are learned on the search split, each seed on --images other ones of it, and judged on the whole pick split;
the test split is not read. Each setting differs from the defaults in one thing. `soft`: gates as learned; `cut`: cut
at one half; `top`: the best on the search split of the ranking's first 1, 2, … heads. Numbers are mean recall on the
pick split minus identity's, in points, means over the seeds (in brackets the standard deviation over them). Every
finished run is a line of --out: the same command continues where it stopped.
"""

from __future__ import annotations

import argparse
import copy
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from headwise.edits.mask import Mask
from headwise.evaluation.engine import Pixels, embed, head_means
from headwise.evaluation.evaluator import Evaluator
from headwise.evaluation.layout import Plan, plan
from headwise.scoring.losses import captions
from headwise.scoring.objectives import Retrieval
from headwise.search.gradient import GradientSettings, learn_gates
from headwise.towers.base import Tower

CUTS = 12
MEASURES = ("soft", "cut", "top", "heads cut", "heads top", "epochs", "FFE", "seconds")


FEW = ("default", "learning_rate 0.1", "learning_rate 1.0", "penalty -0.3", "penalty 0.3", "hard_concrete, rate 0.3, "
       "penalty 0.0", "top_k 4")  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A tower with two splits: (pixels, captions' embeddings (T, E), owner (T,)); `facts` tell it from others."""

    tower: Tower
    search: tuple[Pixels, torch.Tensor, np.ndarray]
    pick: tuple[Pixels, torch.Tensor, np.ndarray]
    scale: float
    layout: Plan
    facts: dict[str, object]


def real(model: str, source: str, seeds: int, images: int) -> list[Case]:
    """A case per seed, with its own images of the search split (0: all of them)."""
    from headwise.data.read import read
    from headwise.data.splits import split
    from headwise.demo import pairs_file
    from headwise.jobs.steps.bench import prepare
    from headwise.towers import load

    pairs = read(str(pairs_file()) if source == "demo" else source)
    bench = prepare(load(model), pairs, split(pairs), dtype="float32")
    cases = []
    for seed in range(seeds):
        search = bench.splits.search
        if images:
            search = tuple(sorted(random.Random(seed).sample(search, min(images, len(search)))))
        parts = []
        for chosen in (search, bench.splits.pick):
            objective = bench.task.objective(bench.model, pairs, chosen, "cpu")
            assert isinstance(objective, Retrieval)
            parts.append((bench.cache.take(chosen), objective.texts, objective.owner))
        facts: dict[str, object] = {"weights": bench.tower.weights_hash, "data": pairs.hash, "images": len(search)}
        cases.append(Case(bench.tower, parts[0], parts[1], bench.model.logit_scale, bench.layout, facts))
    return cases


def damaged(seed: int, images: int = 600) -> Case:
    """A random CLIP whose embeddings, with noise, are the captions, and a copy of it with 12 of 36 heads damaged."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    from headwise.towers import tower_of

    generator = torch.Generator().manual_seed(seed)
    config = CLIPVisionConfig(
        hidden_size=48,
        intermediate_size=96,
        num_hidden_layers=6,
        num_attention_heads=6,
        image_size=32,
        patch_size=8,
        projection_dim=64,
    )
    module = CLIPVisionModelWithProjection(config).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = "norm" in name and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if is_norm else noise * (0.17 if parameter.dim() > 1 else 0.05))
    teacher, tower = tower_of(module), tower_of(copy.deepcopy(module))
    pixels = torch.randn(images, 3, 32, 32, generator=generator) + torch.randn(images, 3, 1, 1, generator=generator)
    layout = plan(teacher, dtype="float32")
    ((_, clean),) = embed(teacher, pixels, [Mask.identity(teacher.grid)], layout)  # (N, E)
    with torch.no_grad():
        for place in torch.randperm(36, generator=generator)[:12].tolist():
            row, head = divmod(place, 6)
            weight = tower.blocks[row].module.self_attn.v_proj.weight[8 * head : 8 * head + 8]  # (8, 48)
            weight += 0.2 * torch.randn(weight.shape, generator=generator)
    texts = clean + 0.5 * clean.std(0) * torch.randn(clean.shape, generator=generator) - clean.mean(0)  # (N, E)
    half, owner = images // 2, np.arange(images // 2)
    search, pick = (pixels[:half], texts[:half], owner), (pixels[half:], texts[half:], owner)
    return Case(tower, search, pick, 20.0, layout, {"damaged": seed, "images": half})


def trials() -> Iterator[tuple[str, GradientSettings]]:
    base = GradientSettings()
    yield "default", base
    for name, values in {
        "learning_rate": (0.1, 0.15, 0.3, 0.6, 1.0),
        "epochs": (8, 12, 40),
        "batch": (32, 64, 128),
        "penalty": (-1.0, -0.3, 0.3, 1.0),
        "temperature": ((1.0, 1.0), (1.0, 0.1)),
    }.items():
        for value in values:
            if value != getattr(base, name):
                yield f"{name} {value}", replace(base, **{name: value})
    for rate in (0.3, 0.6):
        for penalty in (-0.3, 0.0):
            name = f"hard_concrete, rate {rate}, penalty {penalty}"
            yield name, replace(base, form="hard_concrete", learning_rate=rate, penalty=penalty)
    for k in (2, 4, 8):
        yield f"top_k {k}", replace(base, form="top_k", k=k)


def measure(case: Case, operator: str, settings: GradientSettings) -> dict[str, float]:
    means = head_means(case.tower, case.search[0], case.layout) if operator == "mean" else None

    def evaluator(part: tuple[Pixels, torch.Tensor, np.ndarray]) -> Evaluator:
        pixels, texts, owner = part
        return Evaluator(case.tower, case.layout, pixels, Retrieval(texts, owner, scale=case.scale), means=means)

    began = time.perf_counter()
    pixels, texts, owner = case.search
    loss = captions(texts, owner, len(pixels), scale=case.scale, device=case.tower.device)
    found = learn_gates(case.tower, pixels, loss, operator, settings, means=means)
    seconds = time.perf_counter() - began
    cuts = found.cuts(CUTS)
    scores = evaluator(case.search)(cuts)
    top = cuts[max(range(len(cuts)), key=lambda i: scores[i].order)]
    identity, *judged = evaluator(case.pick)([Mask.identity(case.tower.grid), found.soft, found.binary, top])
    gains = {
        name: 100 * (score.fitness - identity.fitness)
        for name, score in zip(("soft", "cut", "top"), judged, strict=True)
    }
    sizes = {"heads cut": found.binary.size, "heads top": top.size}
    return {**gains, **sizes, "epochs": len(found.history), "FFE": found.spent, "seconds": seconds}


def row(name: str, runs: list[dict[str, float]]) -> str:
    """A line of the table."""
    cells = []
    for key in MEASURES:
        values = [run[key] for run in runs]
        spread = f" ({np.std(values):.2f})" if key in ("soft", "cut", "top") else ""
        cells.append(f"{np.mean(values):.2f}{spread}")
    return f"| {name} | " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damaged", action="store_true", help="random damaged CLIPs instead of a real model")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--pairs", default="demo")
    parser.add_argument("--images", type=int, default=0, help="of the search split; 0: all")
    parser.add_argument("--operator", default="uniform")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--few", action="store_true", help="a handful of settings")
    parser.add_argument("--only", help="settings whose name contains this text")
    parser.add_argument("--out", type=Path, help="JSON lines, one per run; the same command continues there")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.damaged:
        cases = [damaged(seed) for seed in range(options.seeds)]
    else:
        cases = real(options.model, options.pairs, options.seeds, options.images)
    lines = options.out.read_text().splitlines() if options.out and options.out.exists() else []
    known = [json.loads(line) for line in lines]
    print("| setting | " + " | ".join(MEASURES) + " |\n|---" + "|---:" * len(MEASURES) + "|", flush=True)
    for name, settings in trials():
        if (options.only and options.only not in name) or (options.few and name not in FEW):
            continue
        runs = []
        for seed, case in enumerate(cases):
            chosen = replace(settings, seed=seed)
            facts = json.loads(json.dumps({**case.facts, "operator": options.operator, "settings": asdict(chosen)}))
            found = next((run for run in known if facts.items() <= run.items()), None)
            if found is None:
                found = {"name": name, **facts, **measure(case, options.operator, chosen)}
                if options.out:
                    with options.out.open("a") as file:
                        file.write(json.dumps(found) + "\n")
            runs.append(found)
        print(row(name, runs), flush=True)


if __name__ == "__main__":
    main()

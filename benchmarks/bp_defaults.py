"""Which settings of AAT-BP do best on images that they were not learned on: where its defaults come from.

    python benchmarks/bp_defaults.py                        the packaged model on the packaged pairs
    python benchmarks/bp_defaults.py --damaged              random CLIPs, a third of whose heads were damaged
    python benchmarks/bp_defaults.py --operator zero --seeds 5 --out bp.json

Gates are learned on the search split and judged on the pick split; the test split is not read. Each setting differs
from the defaults in one thing. `soft`: gates as learned; `cut`: cut at one half; `top`: the best on the search split
of the ranking's first 1, 2, … heads. Numbers are mean recall on the pick split minus identity's, in points.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from headwise.engine import Pixels, Plan, embed, head_means, plan
from headwise.evaluator import Evaluator
from headwise.mask import Mask
from headwise.objectives import Retrieval
from headwise.search.gradient import GradientSettings, learn_gates
from headwise.towers.base import Tower

CUTS = 12


@dataclass(frozen=True)
class Case:
    """A tower with two splits: (pixels, captions' embeddings (T, E), owner (T,))."""

    tower: Tower
    search: tuple[Pixels, torch.Tensor, np.ndarray]
    pick: tuple[Pixels, torch.Tensor, np.ndarray]
    scale: float
    layout: Plan


def packaged() -> Case:
    from headwise.data.read import read
    from headwise.data.splits import split
    from headwise.demo import pairs_file
    from headwise.jobs.bench import prepare
    from headwise.towers import load

    pairs = read(str(pairs_file()))
    bench = prepare(load("demo"), pairs, split(pairs), dtype="float32")
    parts = []
    for name in ("search", "pick"):
        objective = bench.objective(name)
        assert isinstance(objective, Retrieval)
        parts.append((bench.cache.take(bench.indices(name)), objective.texts, objective.owner))
    return Case(bench.tower, parts[0], parts[1], bench.model.logit_scale, bench.layout)


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
    return Case(tower, (pixels[:half], texts[:half], owner), (pixels[half:], texts[half:], owner), 20.0, layout)


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
    found = learn_gates(case.tower, *case.search, operator, settings, means=means, scale=case.scale)
    seconds = time.perf_counter() - began
    cuts = found.cuts(CUTS)
    scores = evaluator(case.search)(cuts)
    top = cuts[max(range(len(cuts)), key=lambda i: scores[i].order)]
    identity, *judged = evaluator(case.pick)([Mask.identity(case.tower.grid), found.soft, found.binary, top])
    gains = {
        name: 100 * (score.fitness - identity.fitness)
        for name, score in zip(("soft", "cut", "top"), judged, strict=True)
    }
    return {**gains, "heads cut": found.binary.size, "heads top": top.size, "FFE": found.spent, "seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--damaged", action="store_true", help="random damaged CLIPs instead of the packaged model")
    parser.add_argument("--operator", default="uniform")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--only", help="settings whose name contains this text")
    parser.add_argument("--out", type=Path, help="also write the numbers of every run as JSON")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cases = [damaged(seed) for seed in range(options.seeds)] if options.damaged else [packaged()] * options.seeds
    results: dict[str, list[dict[str, float]]] = {}
    for name, settings in trials():
        if options.only and options.only not in name:
            continue
        runs = [measure(case, options.operator, replace(settings, seed=seed)) for seed, case in enumerate(cases)]
        if not results:
            print("| setting | " + " | ".join(runs[0]) + " |\n|---" + "|---" * len(runs[0]) + "|")
        results[name] = runs
        means = [np.mean([run[key] for run in runs]) for key in runs[0]]
        print(f"| {name} | " + " | ".join(f"{value:.2f}" for value in means) + " |", flush=True)
        if options.out:
            options.out.write_text(json.dumps(results, indent=1))


if __name__ == "__main__":
    main()

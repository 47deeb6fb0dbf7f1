"""The engine against the usual way of sweeping heads: a forward hook per head, the whole model run again.

    python benchmarks/sweep.py                       time, on this machine's CPU
    python benchmarks/sweep.py --device cuda --images 256
    python benchmarks/sweep.py --memory              peak memory for 256 and for 2,048 images

Random weights, ViT-B/32 by default; the same images for both ways, one after the other in one run. Both are
repeated and the fastest run counts. The hook loop runs in float32 and on the same batch size.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

import torch

from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.evaluation import engine
from headwise.evaluation.layout import Plan, plan
from headwise.towers import tower_of
from headwise.towers.base import Tower

SHAPES: dict[str, dict[str, Any]] = {
    "vit-b-32": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 32, "projection_dim": 512},
    "vit-b-16": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12, "patch_size": 16, "projection_dim": 512},
    "vit-l-14": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "patch_size": 14, "projection_dim": 768},
}  # fmt: skip


class Noise:
    """Random images made when they are asked for, so that they take no memory."""

    def __init__(self, images: int):
        self.images = images

    def __len__(self) -> int:
        return self.images

    def __getitem__(self, index: slice) -> torch.Tensor:
        start, stop, _ = index.indices(self.images)
        generator = torch.Generator().manual_seed(start)
        return torch.randn(stop - start, 3, 224, 224, generator=generator)  # (B, 3, 224, 224)


def build(shape: str) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    torch.manual_seed(0)
    return CLIPVisionModelWithProjection(CLIPVisionConfig(image_size=224, **SHAPES[shape])).eval()


@torch.inference_mode()
def hook_loop(module: Any, images: torch.Tensor, heads: list[Head], chunk: int) -> dict[Head, torch.Tensor]:
    """Zero one head at a time before the out-projection, with a hook, and run the whole model."""
    out = {}
    for head in heads:
        attention = module.vision_model.encoder.layers[head.layer].self_attn
        columns = slice(head.index * attention.head_dim, (head.index + 1) * attention.head_dim)

        def cut(_module: object, args: tuple[torch.Tensor, ...], columns: slice = columns) -> tuple[torch.Tensor]:
            z = args[0].clone()
            z[..., columns] = 0
            return (z,)

        handle = attention.out_proj.register_forward_pre_hook(cut)
        parts = [module(pixel_values=images[i : i + chunk]).image_embeds for i in range(0, len(images), chunk)]
        handle.remove()
        out[head] = torch.cat(parts).cpu()  # (N, E)
    return out


def seconds(call, device: str) -> tuple[float, object]:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    value = call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, value


def compare(args: argparse.Namespace) -> dict:
    module = build(args.model).to(args.device)
    tower = tower_of(module)
    images = Noise(args.images)[0 : args.images].to(args.device)
    masks = {head: Mask.suppress(tower.grid, [head]) for head in tower.grid}
    layouts = {"float32": plan(tower, dtype="float32", device=args.device)}
    layouts["bfloat16"] = plan(tower, dtype="bfloat16", device=args.device)
    hook_chunk = args.images if args.device != "cpu" else layouts["float32"].chunk
    best: dict[str, float] = {}
    found: dict[str, dict] = {}
    for _ in range(args.repeats):  # interleaved, so that a busy moment of the machine hits all of them
        for name, call in {
            "hook loop": lambda: hook_loop(module, images, list(masks), hook_chunk),
            "float32": lambda: sweep(tower, images, masks, layouts["float32"]),
            "bfloat16": lambda: sweep(tower, images, masks, layouts["bfloat16"]),
        }.items():
            took, value = seconds(call, args.device)
            best[name] = min(took, best.get(name, took))
            found[name] = value  # type: ignore[assignment]
    hooks = found["hook loop"]
    difference = max(float((found["float32"][h] - hooks[h]).abs().max()) for h in masks)
    cosine = min(float(torch.cosine_similarity(found["bfloat16"][h], hooks[h]).min()) for h in masks)
    return {
        "model": args.model,
        "machine": machine(args.device),
        "images": args.images,
        "masks": len(masks),
        "ffe": round(engine.ffe(tower, list(masks.values())), 2),
        "layout": {name: f"chunk {plan.chunk}, stack {plan.stack}" for name, plan in layouts.items()},
        "seconds": {name: round(value, 2) for name, value in best.items()},
        "times faster than the hook loop": {n: round(best["hook loop"] / best[n], 2) for n in ("float32", "bfloat16")},
        "largest difference, float32": difference,
        "smallest cosine, bfloat16": cosine,
        "auto precision here": plan(tower, device=args.device).dtype,
    }


def sweep(tower: Tower, images: torch.Tensor, masks: dict[Head, Mask], layout: Plan) -> dict[Head, torch.Tensor]:
    by_mask = dict(engine.embed(tower, images, list(masks.values()), layout))
    return {head: by_mask[mask] for head, mask in masks.items()}


def machine(device: str) -> str:
    if device != "cpu":
        return torch.cuda.get_device_name()
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    return f"{names[0] if names else 'CPU'}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def peak(args: argparse.Namespace) -> dict:
    """Peak memory of this process during a part of a sweep, above what it took before."""
    tower = tower_of(build(args.model))
    masks = [Mask.suppress(tower.grid, [head]) for head in tower.grid][-args.masks :]
    layout = replace(plan(tower, dtype="float32"))
    list(engine.embed(tower, Noise(layout.chunk), masks, layout))  # one chunk: what a walk needs at the least
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in engine.embed(tower, Noise(args.images), masks, layout):
        pass
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"images": args.images, "masks": len(masks), "one chunk MB": before // 1024, "peak MB": after // 1024}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="vit-b-32")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--masks", type=int, default=12, help="with --memory: how many of the sweep's masks")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        print(json.dumps(peak(args)))
    elif args.memory:
        for images in (256, 2048):  # a process each: the peak of a process never falls
            again = [sys.executable, __file__, "--one", "--model", args.model, "--masks", str(args.masks)]
            subprocess.run([*again, "--images", str(images)], check=True, env=os.environ)
    else:
        print(json.dumps(compare(args), indent=2))


if __name__ == "__main__":
    main()

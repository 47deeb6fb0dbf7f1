"""Every family at its real size: a sweep by the engine against running the model once per head.

    python benchmarks/families.py --rows 4 --heads 6              all families, float32, this machine's CPU
    python benchmarks/families.py "ViT-B-32" --repeats 3          those whose name contains "ViT-B-32", every head
    python benchmarks/families.py --device cuda --images 256

Random weights, built by each library itself. The loop is what users write: suppress one head (its out-projection
columns set to zero, which costs less than a hook), run the library's own forward, restore, next head. Both ways see
the same images in the same chunks, one after the other in one run; the fastest of --repeats counts.

What may be sampled, so that a giant takes a minute: --rows K sweeps all heads of K layers, evenly spread about the
middle one (a head's cost falls linearly with its depth), and as large a share of the pooling's heads. --heads K times
the loop on K of the heads swept and scales it: every head costs the loop the same. The output says how many of each
were run. Without --images there is one chunk of the engine's own plan. Half the loop runs before the sweep and half
after it. "cpu" is processor time of all threads, which other work on the machine disturbs less than wall clock.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.evaluation import engine
from headwise.evaluation.layout import plan
from headwise.towers import tower_of
from headwise.towers.base import Tower

SMALL_TEXT = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}


def transformers_model(name: str, patch: int, **text: int) -> nn.Module:
    """The base size of a transformers family; its text tower takes no part and is small."""
    import transformers

    vision = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12}
    config = getattr(transformers, f"{name}Config")(
        vision_config={**vision, "patch_size": patch}, text_config={**SMALL_TEXT, "vocab_size": 1000, **text}
    )
    return getattr(transformers, f"{name}Model")(config)


def open_clip_model(name: str) -> nn.Module:
    import open_clip

    text = {"context_length": 8, "vocab_size": 1000, "width": 64, "heads": 2, "layers": 1}
    options: dict[str, Any] = {"multimodal_cfg": {**text, "attn_pooler_heads": 2}} if name.startswith("coca") else {}
    return open_clip.create_model(name, text_cfg=text, **options)


def timm_model(name: str) -> nn.Module:
    import timm

    return timm.create_model(name)


FAMILIES: dict[str, Callable[[], nn.Module]] = {
    "hf CLIP ViT-B/32": partial(transformers_model, "CLIP", 32),
    "hf CLIP ViT-B/16": partial(transformers_model, "CLIP", 16),
    "hf SigLIP B/16": partial(transformers_model, "Siglip", 16, projection_size=768),
    "hf Chinese-CLIP ViT-B/16": partial(transformers_model, "ChineseCLIP", 16),
    "hf AltCLIP (base size)": partial(transformers_model, "AltCLIP", 14, project_dim=64),
    "hf MetaCLIP 2 (base size)": partial(transformers_model, "MetaClip2", 16, eos_token_id=2),
    "open_clip ViT-B-32": partial(open_clip_model, "ViT-B-32"),
    "open_clip ViT-L-14": partial(open_clip_model, "ViT-L-14"),
    "open_clip coca_ViT-B-32": partial(open_clip_model, "coca_ViT-B-32"),
    "open_clip ViT-B-16-SigLIP": partial(open_clip_model, "ViT-B-16-SigLIP"),
    "open_clip ViT-SO400M-14-SigLIP": partial(open_clip_model, "ViT-SO400M-14-SigLIP"),
    "open_clip EVA02-B-16": partial(open_clip_model, "EVA02-B-16"),
    "open_clip ViTamin-B": partial(open_clip_model, "ViTamin-B"),
    "open_clip MobileCLIP-B": partial(open_clip_model, "MobileCLIP-B"),
    "open_clip PE-Core-B-16": partial(open_clip_model, "PE-Core-B-16"),
    "open_clip RN50 (pooling heads)": partial(open_clip_model, "RN50"),
    "timm vit_base_patch16_clip_224": partial(timm_model, "vit_base_patch16_clip_224"),
}


def loop(tower: Tower, images: torch.Tensor, masks: list[Mask], chunk: int) -> list[torch.Tensor]:
    """One full forward per head, (N, E) each, and one without a mask."""
    out = []
    for mask in masks:
        (head,) = mask.heads
        block = tower.blocks[tower.grid.row_of(head)]
        weight, columns = block.weights().out, slice(head.index * block.head_dim, (head.index + 1) * block.head_dim)
        kept = weight[:, columns].clone()
        weight[:, columns] = 0
        out.append(torch.cat([tower.encode(part) for part in images.split(chunk)]).cpu())
        weight[:, columns] = kept
    return out


def timed(call: Callable[[], Any], device: str) -> tuple[dict[str, float], Any]:
    """Seconds of wall clock and of processor time that a call takes, and what it returns."""
    if device != "cpu":
        torch.cuda.synchronize()
    wall, cpu = time.perf_counter(), time.process_time()
    value = call()
    if device != "cpu":
        torch.cuda.synchronize()
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}, value


def spread(count: int, wanted: int) -> list[int]:
    """`wanted` of `count` places (0: all), evenly spread and symmetric about the middle."""
    if not 0 < wanted < count:
        return list(range(count))
    places = [int((i + 0.5) * count / wanted - 0.5) for i in range((wanted + 1) // 2)]
    return places + [count - 1 - place for place in places[: wanted // 2]][::-1]


def swept_heads(grid: Grid, layers: int) -> list[Head]:
    """All heads of so many layers (0: all), and as large a share of the pooling's."""
    chosen = spread(len(grid.layers), layers)
    pooling = round(grid.pool * len(chosen) / len(grid.layers)) if grid.layers else grid.pool
    heads = [grid.head(row, index) for row in chosen for index in range(grid.rows[row])]
    return heads + [grid.head(len(grid.layers), index) for index in range(pooling)]


@torch.inference_mode()
def compare(name: str, args: argparse.Namespace) -> dict:
    torch.manual_seed(0)
    tower = tower_of(FAMILIES[name]().eval().requires_grad_(False).to(args.device))
    size, grid = tower.resolution, tower.grid
    layout = plan(tower, dtype="float32", device=args.device)
    images = torch.randn(args.images or layout.chunk, 3, size, size, device=args.device)  # (N, 3, R, R)
    masks = [Mask.suppress(grid, [head]) for head in swept_heads(grid, args.rows)]
    sampled = [masks[i] for i in spread(len(masks), args.heads)]
    scale = len(masks) / len(sampled)
    best = {way: {"wall": float("inf"), "cpu": float("inf")} for way in ("sweep", "loop")}
    differences = []
    for _ in range(args.repeats):
        before, first = timed(lambda: loop(tower, images, sampled[::2], layout.chunk), args.device)
        swept, found = timed(lambda: dict(engine.embed(tower, images, masks, layout)), args.device)
        after, second = timed(lambda: loop(tower, images, sampled[1::2], layout.chunk), args.device)
        for clock in ("wall", "cpu"):
            best["sweep"][clock] = min(best["sweep"][clock], swept[clock])
            best["loop"][clock] = min(best["loop"][clock], (before[clock] + after[clock]) * scale)
        for mask, e in zip([*sampled[::2], *sampled[1::2]], [*first, *second], strict=True):
            differences.append((found[mask] - e).abs().max())
    return {
        "family": name,
        "grid": str(grid),
        "tokens": tower.tokens,
        "images": len(images),
        "heads swept": f"{len(masks)} of {grid.size}",
        "heads looped": len(sampled),
        "ffe": round(engine.ffe(tower, masks), 1),
        "sweep s": round(best["sweep"]["wall"], 2),
        "loop s": round(best["loop"]["wall"], 2),
        "times faster": round(best["loop"]["wall"] / best["sweep"]["wall"], 2),
        "times faster, cpu": round(best["loop"]["cpu"] / best["sweep"]["cpu"], 2),
        "largest difference": float(torch.stack(differences).max()),  # NaN where one is
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="*", help="parts of the names of the families to time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=0, help="0: one chunk of the engine's plan")
    parser.add_argument("--rows", type=int, default=0, help="sweep the heads of so many layers (0: all)")
    parser.add_argument("--heads", type=int, default=0, help="time the loop on so many heads and scale (0: all)")
    parser.add_argument("--repeats", type=int, default=1, help="the fastest counts")
    args = parser.parse_args()
    chosen = [name for name in FAMILIES if any(part.lower() in name.lower() for part in args.only or [""])]
    if not chosen:
        parser.error(f"no family's name contains {' or '.join(args.only)}; there are: {', '.join(FAMILIES)}")
    for name in chosen:
        print(json.dumps(compare(name, args)), flush=True)


if __name__ == "__main__":
    main()

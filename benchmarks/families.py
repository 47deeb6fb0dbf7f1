"""Every family at its real size: a sweep by the engine against running the model once per head.

    python benchmarks/families.py --images 8                       all families, float32, this machine's CPU
    python benchmarks/families.py --images 8 --heads 12 clip       those whose name contains "clip"; the loop timed on 12 heads
    python benchmarks/families.py --device cuda --images 256

Random weights, built by each library itself. The loop is what users write: suppress one head (its out-projection
columns set to zero, which costs less than a hook), run the library's own forward, restore, next head. Both ways see
the same images, one after the other in one run; the fastest of --repeats counts. With --heads the loop runs over so
many heads, evenly spread over the grid, and its time is scaled to all of them: every head costs it the same.
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

from headwise import engine
from headwise.mask import Mask
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


def timed(call: Callable[[], object], device: str) -> tuple[float, object]:
    if device != "cpu":
        torch.cuda.synchronize()
    start = time.perf_counter()
    value = call()
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter() - start, value


@torch.inference_mode()
def compare(name: str, args: argparse.Namespace) -> dict:
    torch.manual_seed(0)
    tower = tower_of(FAMILIES[name]().eval().requires_grad_(False).to(args.device))
    size = tower.resolution
    images = torch.randn(args.images, 3, size, size, device=args.device)  # (N, 3, R, R)
    masks = [Mask.suppress(tower.grid, [head]) for head in tower.grid]
    step = max(1, len(masks) // args.heads) if args.heads else 1
    sampled = masks[::step]
    layout = engine.plan(tower, dtype="float32", device=args.device)
    best = {"sweep": float("inf"), "loop": float("inf")}
    ours, theirs = {}, []
    for _ in range(args.repeats):  # interleaved: a busy moment of the machine hits both
        took, found = timed(lambda: dict(engine.embed(tower, images, masks, layout)), args.device)
        best["sweep"], ours = min(best["sweep"], took), found
        took, theirs = timed(lambda: loop(tower, images, sampled, layout.chunk), args.device)
        best["loop"] = min(best["loop"], took * len(masks) / len(sampled))
    difference = max(float((ours[m] - e).abs().max()) for m, e in zip(sampled, theirs, strict=True))  # type: ignore[call-overload]
    return {
        "family": name,
        "grid": str(tower.grid),
        "tokens": tower.tokens,
        "images": args.images,
        "heads": len(masks),
        "heads the loop was timed on": len(sampled),
        "ffe": round(engine.ffe(tower, masks), 1),
        "sweep s": round(best["sweep"], 2),
        "loop s": round(best["loop"], 2),
        "times faster": round(best["loop"] / best["sweep"], 2),
        "largest difference": difference,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("only", nargs="?", default="", help="part of the names of the families to time")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--heads", type=int, default=0, help="time the loop on so many heads and scale (0: all)")
    parser.add_argument("--repeats", type=int, default=2)
    args = parser.parse_args()
    chosen = [name for name in FAMILIES if args.only.lower() in name.lower()]
    if not chosen:
        parser.error(f"no family's name contains {args.only!r}; there are: {', '.join(FAMILIES)}")
    for name in chosen:
        print(json.dumps(compare(name, args)), flush=True)


if __name__ == "__main__":
    main()

"""How fast the refined model is in each form: live, folded, pruned, ONNX, pruned ONNX, int8; ratios of interleaved rounds.

    python benchmarks/inference.py --size B/32 --size B/16 --threads 1

Random weights of ViT-B/32, B/16 and L/14 (transformers' CLIP), a quarter of the heads removed, evenly over the blocks. In every
round each form embeds the same images once, in another order each round; what is reported is the median over rounds of
(time of the original in that round) / (time of the form in that round), with its quartiles: above 1 is faster. What else
runs on the machine hits all forms of a round alike. `--clock process` counts processor time, for a machine that is not idle.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from headwise.applied.live import apply
from headwise.edits.mask import Mask
from headwise.shipping.edited import folded_copy, plain_copy
from headwise.shipping.graphs import ImageGraph
from headwise.shipping.onnx_graph import lower, write_graph
from headwise.shipping.prune import pruned
from headwise.staging import temporary
from headwise.towers import tower_of
from headwise.towers.base import Tower
from headwise.towers.sessions import session

SIZES = {  # width, layers, heads, MLP, patch
    "B/32": (768, 12, 12, 3072, 32),
    "B/16": (768, 12, 12, 3072, 16),
    "L/14": (1024, 24, 16, 4096, 14),
}
CALIBRATED = 16
Run = Callable[[torch.Tensor], Any]


def build(size: str) -> Tower:
    """A CLIP image tower of transformers with random weights."""
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    width, layers, heads, mlp, patch = SIZES[size]
    config = CLIPVisionConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=mlp,
        patch_size=patch,
        projection_dim=512,
    )
    torch.manual_seed(0)
    return tower_of(CLIPVisionModelWithProjection(config).eval())


def quarter(tower: Tower) -> Mask:
    """A mask that removes a quarter of every block's heads."""
    return Mask.suppress(tower.grid, [head for head in tower.grid if head.index % 4 == 0])


def forms(tower: Tower, mask: Mask, work: Path, int8: bool) -> dict[str, tuple[Run, str]]:
    """Name → (images → embeddings, the form that it is compared with)."""
    folded, cut = folded_copy(tower, mask), pruned(tower, mask).tower
    original, live = plain_copy(tower), plain_copy(tower)  # copies as the others are: where weights lie counts, too

    def run_live(images: torch.Tensor) -> torch.Tensor:
        with apply(live, mask, check_weights=False, probe=False):
            return live.encode(images)

    found: dict[str, tuple[Run, str]] = {
        "original": (original.encode, "original"),
        "live": (run_live, "original"),
        "folded": (folded.encode, "original"),
        "pruned": (cut.encode, "original"),
    }
    example = {"images": torch.randn(2, 3, tower.resolution, tower.resolution)}
    graphs = {"ONNX": plain_copy(tower), "ONNX pruned": cut}
    for name, one in graphs.items():
        path = work / f"{name}.onnx"
        write_graph(ImageGraph(one), example, path, keywords=False)
        found[name] = (_onnx(path), "ONNX" if name != "ONNX" else "original")
        if int8:
            small = work / f"{name} int8.onnx"
            small.write_bytes(path.read_bytes())
            lower(
                small,
                "int8",
                [{"images": torch.randn(4, *example["images"].shape[1:])} for _ in range(CALIBRATED // 4)],
            )
            found[f"{name} int8"] = (_onnx(small), "ONNX")
    return found


def _onnx(path: Path) -> Run:
    opened = session(path)
    return lambda images: opened.answer({"images": images.numpy()})


def measure(found: dict[str, tuple[Run, str]], images: torch.Tensor, rounds: int, clock: Callable[[], float]) -> dict:
    """Form → its ratio to what it is compared with: quartiles over rounds, and its median seconds."""
    times: dict[str, list[float]] = {name: [] for name in found}
    order = list(found)
    shuffle = random.Random(0).shuffle
    with torch.inference_mode():
        for number in range(rounds + 1):  # the first one warms up
            shuffle(order)
            for name in order:
                start = clock()
                found[name][0](images)
                if number:
                    times[name].append(clock() - start)
    rows = {}
    for name, (_, beside) in found.items():
        ratios = [b / a for a, b in zip(times[name], times[beside], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows[name] = {
            "beside": beside,
            "faster": round(middle, 3),
            "quartiles": [round(low, 3), round(high, 3)],
            "seconds": round(statistics.median(times[name]), 4),
        }
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", action="append", choices=list(SIZES), help="one or more; all by default")
    parser.add_argument("--batch", action="append", type=int, help="1 and 32 by default")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--no-int8", action="store_true", help="leave int8 out: calibrating takes a while")
    parser.add_argument("--clock", choices=("wall", "process"), default="wall")
    parser.add_argument("--out", type=Path, help="a JSON file for the numbers")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    clock = time.perf_counter if options.clock == "wall" else time.process_time
    results: dict[str, dict] = {}
    for size in options.size or list(SIZES):
        tower = build(size)
        with temporary() as work:
            found = forms(tower, quarter(tower), work, not options.no_int8)
            for batch in options.batch or [1, 32]:
                images = torch.randn(batch, 3, tower.resolution, tower.resolution)
                rows = measure(found, images, options.rounds, clock)
                results[f"{size}, batch {batch}"] = rows
                print(
                    f"\n{size}, batch {batch}, {options.threads} thread(s), {options.rounds} rounds, {options.clock} clock"
                )
                for name, row in rows.items():
                    low, high = row["quartiles"]
                    print(
                        f"  {name:18} {row['faster']:6.3f} × {row['beside']} ({low}–{high})  {row['seconds']} s",
                        flush=True,
                    )
    if options.out:
        options.out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

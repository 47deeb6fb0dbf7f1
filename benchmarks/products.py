"""How fast this processor multiplies matrices in each precision: what decides whether bfloat16 pays.

    python benchmarks/products.py
    python benchmarks/products.py --device cuda

The product of one MLP layer of ViT-B/32 (16 images of 50 tokens) and a square one; the fastest of 20 turns, in each of
which every precision has its turn. On a CPU processor time counts, so that other work on the machine does not: the rate
is that of one core. One JSON object a line.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

from headwise.processor import machine

SHAPES = {"16 images × 50 tokens, 768 → 3072": (800, 768, 3072), "2048 × 2048 × 2048": (2048, 2048, 2048)}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    clock = time.process_time if device == "cpu" else time.perf_counter
    print(json.dumps({"machine": machine(device)}))
    for name, (rows, width, out) in SHAPES.items():
        dtypes = (torch.float32, torch.bfloat16, torch.float16)
        layers = {dtype: torch.nn.Linear(width, out).to(device, dtype) for dtype in dtypes}
        best = dict.fromkeys(dtypes, float("inf"))
        for _ in range(20):
            for dtype, layer in layers.items():
                x = torch.randn(rows, width).to(device, dtype)  # (rows, width)
                _finish(device)
                began = clock()
                layer(x)
                _finish(device)
                best[dtype] = min(best[dtype], clock() - began)
        speed = {str(dtype).removeprefix("torch."): round(2e-9 * rows * width * out / best[dtype]) for dtype in dtypes}
        print(json.dumps({"product": name, "GFLOP/s": speed}, ensure_ascii=False))


def _finish(device: str) -> None:
    if device != "cpu":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()

"""How fast this processor multiplies matrices in each precision: what decides whether bfloat16 pays.

    python benchmarks/products.py
    python benchmarks/products.py --device cuda

The product of one MLP layer of ViT-B/32 (16 images of 50 tokens) and a square one; the fastest of 20. One JSON object
a line.
"""

from __future__ import annotations

import argparse
import json
import time

import torch

SHAPES = {"16 images × 50 tokens, 768 → 3072": (800, 768, 3072), "2048 × 2048 × 2048": (2048, 2048, 2048)}


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    device = parser.parse_args().device
    for name, (rows, width, out) in SHAPES.items():
        speed = {}
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            layer = torch.nn.Linear(width, out).to(device, dtype)
            x = torch.randn(rows, width).to(device, dtype)  # (rows, width)
            best = float("inf")
            for _ in range(20):
                began = time.perf_counter()
                layer(x)
                if device != "cpu":
                    torch.cuda.synchronize()
                best = min(best, time.perf_counter() - began)
            speed[str(dtype).removeprefix("torch.")] = round(2 * rows * width * out / best / 1e9)
        print(json.dumps({"product": name, "GFLOP/s": speed}, ensure_ascii=False))


if __name__ == "__main__":
    main()

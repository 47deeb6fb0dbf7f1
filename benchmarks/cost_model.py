"""What a sweep of ViT-L/14 would take on many GPUs, by part, from stated rates: which part is the bottleneck?

    python benchmarks/cost_model.py
    python benchmarks/cost_model.py --images 5000 --gpus 1 --captions 5
    python benchmarks/cost_model.py --captions 0

A calculation, not a measurement: every rate is an argument, and all parts divide evenly by the workers but for the shared
folder. 0 captions an image: zero-shot classification with --classes. One JSON object.
"""

from __future__ import annotations

import argparse
import json

MASKS_PER_SET = 48
FORWARD = 162e9  # floating-point operations of ViT-L/14 at 224 pixels, one image
HEADS, WIDTH, PIXELS = 384, 768, 3 * 224 * 224
SHARED = 1.99  # times fewer passes than masks, by FFE (benchmarks/families.py)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=float, default=1e7)
    parser.add_argument("--gpus", type=int, default=100)
    parser.add_argument("--captions", type=float, default=5, help="of an image")
    parser.add_argument("--classes", type=float, default=1000)
    parser.add_argument("--rate", type=float, default=400e12, help="FLOP/s of a GPU on the tower, bfloat16")
    parser.add_argument("--exact-rate", type=float, default=30e12, help="FLOP/s of a GPU on float64 products")
    parser.add_argument("--decode", type=float, default=0.005, help="seconds of a core for an image")
    parser.add_argument("--cores", type=int, default=16, help="of a GPU's machine")
    parser.add_argument("--folder", type=float, default=10e9, help="bytes a second of the shared folder, all together")
    args = parser.parse_args()
    images, gpus, masks = args.images, args.gpus, HEADS + 1
    sets = -(-masks // MASKS_PER_SET)
    texts = images * args.captions if args.captions else args.classes
    products = 2 * images * texts * WIDTH * masks
    by_images = sets < 4 * gpus  # few sets: they are cut by images, and their embeddings pass through the folder
    seconds = {
        "decoding, once": images * args.decode / args.cores / gpus,
        "tower": images * masks / SHARED * FORWARD / args.rate / gpus,
        "pixels from the folder": images * PIXELS * sets / args.folder,
        "embeddings through the folder": 2 * images * WIDTH * 4 * masks / args.folder if by_images else 0.0,
        "scores": products / args.exact_rate / gpus,
    }
    print(
        json.dumps(
            {
                "given": vars(args),
                "masks": masks,
                "sets": sets,
                "seconds": {name: round(value, 1) for name, value in seconds.items()},
                "embeddings of a set, GB": round(images * WIDTH * 4 * MASKS_PER_SET / 1e9, 1),
                "bottleneck": max(seconds, key=lambda name: seconds[name]),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()

"""Retrieval metrics over a gallery whose similarity matrix would never fit: time and peak memory.

    python benchmarks/scale_metrics.py                              100,000 images × 500,000 captions
    python benchmarks/scale_metrics.py --images 1000000 --device cuda

Embeddings are synthetic (a caption is its image plus noise), kept in files and memory-mapped, as a user with
millions of them would. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

from headwise.scoring.ranking import retrieve
from headwise.scoring.recall import recalls

ROWS = 20_000  # written at once


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--captions-per-image", type=int, default=5)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--noise", type=float, default=6.0, help="length of a caption's noise over its image's")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--tile", type=int, default=None, help="similarities held at once")
    parser.add_argument("--loss", choices=["softmax", "sigmoid", "none"], default="softmax")
    parser.add_argument("--folder", type=Path, default=None, help="where the embeddings go (default: temporary)")
    print(json.dumps(measure(parser.parse_args()), indent=1))


def measure(args: argparse.Namespace) -> dict:
    owner = np.repeat(np.arange(args.images), args.captions_per_image)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        images, texts = embeddings(Path(folder), args, owner)
        # the first product of a thread or a GPU allocates its workspace: not what is measured
        retrieve(
            images[:256],
            texts[: 256 * args.captions_per_image],
            owner[: 256 * args.captions_per_image],
            device=args.device,
        )
        before = memory()["RssAnon"]
        with Peak() as peak:
            start, cpu = time.perf_counter(), time.process_time()
            loss = None if args.loss == "none" else args.loss
            found = retrieve(images, texts, owner, loss=loss, scale=20, device=args.device, tile=args.tile)
            seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    work = 2 * args.images * len(owner) * args.width
    on_gpu = args.device.startswith("cuda")
    return {
        "images": args.images,
        "captions": len(owner),
        "width": args.width,
        "device": torch.cuda.get_device_name() if on_gpu else f"cpu, {torch.get_num_threads()} threads",
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),  # the fair number where other processes share the cores
        "gflop_per_second": round(work / seconds / 1e9, 1),
        "peak_gb_above_start": round((peak.anonymous - before) / 1e9, 2),
        "peak_gb_process": round(peak.anonymous / 1e9, 2),
        "embeddings_gb_mapped": round((args.images + len(owner)) * args.width * 4 / 1e9, 2),
        "peak_gb_gpu": round(torch.cuda.max_memory_allocated() / 1e9, 2) if on_gpu else None,
        "full_matrix_float32_gb": round(args.images * len(owner) * 4 / 1e9, 1),
        "metrics": {name: round(value, 4) for name, value in recalls(found.ranks).items()},
        "loss": None if loss is None else round(found.loss, 6),
    }


def embeddings(folder: Path, args: argparse.Namespace, owner: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Memory-mapped image (N, E) and caption (T, E) embeddings, float32."""
    rng = np.random.default_rng(0)
    images = np.memmap(folder / "images", np.float32, "w+", shape=(args.images, args.width))
    for start in range(0, len(images), ROWS):
        part = images[start : start + ROWS]
        part[:] = rng.standard_normal(part.shape, dtype=np.float32)
    texts = np.memmap(folder / "texts", np.float32, "w+", shape=(len(owner), args.width))
    for start in range(0, len(texts), ROWS):
        part = texts[start : start + ROWS]
        noise = rng.standard_normal(part.shape, dtype=np.float32)
        part[:] = images[owner[start : start + ROWS]] + args.noise * noise
    return torch.from_numpy(images), torch.from_numpy(texts)


def memory() -> dict[str, int]:
    """This process's memory in bytes, as Linux counts it; RssAnon leaves out pages of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return {name: int(rest.split()[0]) * 1024 for name, rest in (line.split(":", 1) for line in lines) if "kB" in rest}


class Peak:
    """The largest anonymous memory while the block runs, sampled 50 times a second."""

    def __enter__(self) -> Peak:
        self.anonymous = memory()["RssAnon"]
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self.anonymous = max(self.anonymous, memory()["RssAnon"])

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


if __name__ == "__main__":
    main()

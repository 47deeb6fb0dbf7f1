"""Which precision this machine multiplies faster in: what `--dtype auto` takes.

In: a tower, a device. Out: `float32` or `bfloat16`, and the rates that decided. On a CPU a product of the shape that the
tower's blocks spend most time in is timed for about 50 ms in both, turn by turn, and the result is kept in the cache:
what a processor says of itself does not tell (docs/performance.md). It does not know what is evaluated.
"""

from __future__ import annotations

import hashlib
import json
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from headwise.checked import Damaged, dump_json, load_json
from headwise.data.files import cache_folder
from headwise.files import OTHER_CACHE, write_files
from headwise.processor import machine
from headwise.towers.base import Tower

SECONDS = 0.05  # of products, both precisions together
PRODUCT = 1e9  # floating-point operations of one product, about
GAIN = 1.2  # bfloat16 has to be so many times as fast: it keeps eight bits of every number


@dataclass(frozen=True)
class Rates:
    """How fast a product is here, in GFLOP/s.

    Arguments:
        float32, bfloat16: of the fastest product in each.
    """

    float32: float
    bfloat16: float

    @property
    def dtype(self) -> str:
        """The precision that pays."""
        return "bfloat16" if self.bfloat16 >= GAIN * self.float32 else "float32"


@dataclass(frozen=True)
class Choice:
    """A precision and why, as a clause for people."""

    dtype: str
    why: str


def faster(tower: Tower, device: str, cache_dir: Path | None = None) -> Choice:
    """The faster precision for a tower on a device.

    Raises:
        HeadwiseError: the cache cannot be written.
    """
    if device.startswith("cuda"):
        has = torch.cuda.is_bf16_supported(including_emulation=False)
        return Choice("bfloat16" if has else "float32", f"the GPU {'has' if has else 'lacks'} bfloat16")
    if device != "cpu" or not tower.blocks:
        return Choice("float32", "nothing was timed")
    rates = measured(tower, cache_dir)
    return Choice(
        rates.dtype, f"products make {rates.float32:.0f} GFLOP/s in float32, {rates.bfloat16:.0f} in bfloat16"
    )


def measured(tower: Tower, cache_dir: Path | None = None) -> Rates:
    """The rates of this machine's CPU for a tower's blocks, with the present number of threads; timed once and kept.

    Raises:
        HeadwiseError: the cache cannot be written.
    """
    width = max(block.width for block in tower.blocks)
    shape = (max(1, round(PRODUCT / (8 * width * width))), width, 4 * width)  # (rows, in, out)
    key = hashlib.sha256(json.dumps([1, machine(), shape, SECONDS]).encode()).hexdigest()[:32]
    path = cache_folder(cache_dir) / "precision" / f"{key}.json"
    with suppress(OSError, Damaged, TypeError, ValueError):
        rates = Rates(*map(float, load_json(path.read_bytes())))
        if min(rates.float32, rates.bfloat16) > 0:
            return rates
    rates = timed(*shape)
    write_files(path.parent, {path.name: dump_json([rates.float32, rates.bfloat16])}, advice=OTHER_CACHE)
    return rates


@torch.inference_mode()
def timed(rows: int, width: int, out: int, seconds: float = SECONDS) -> Rates:
    """A linear layer on the CPU in both precisions, one product of each in turn; the fastest of each counts.

    Arguments:
        rows, width, out: the product is (rows, width) × (width, out).
        seconds: to spend, about; at least one product of each is timed after one that is not.
    """
    best = {torch.float32: float("inf"), torch.bfloat16: float("inf")}
    # no random numbers: whoever called may have seeded them
    weights = {dtype: torch.linspace(-1, 1, out * width).view(out, width).to(dtype) for dtype in best}
    inputs = {dtype: torch.linspace(-1, 1, rows * width).view(rows, width).to(dtype) for dtype in best}
    for dtype, x in inputs.items():
        torch.nn.functional.linear(x, weights[dtype])  # the first product is slower
    ends, turns = time.perf_counter() + seconds, 0
    while turns < 1 or time.perf_counter() < ends:
        for dtype, x in inputs.items():
            began = time.perf_counter()
            torch.nn.functional.linear(x, weights[dtype])  # (rows, out)
            best[dtype] = min(best[dtype], time.perf_counter() - began)
        turns += 1
    rates = [2e-9 * rows * width * out / value for value in best.values()]
    return Rates(rates[0], rates[1])

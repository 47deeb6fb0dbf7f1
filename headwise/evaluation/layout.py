"""How a walk is laid out on this machine: precision, images a chunk, nodes a stack, device.

In: a tower, and what the user asks for. Out: a `Plan`, which the engine obeys and a study records.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from headwise.errors import HeadwiseError
from headwise.evaluation.precision import faster
from headwise.towers.base import Tower

DTYPES = ("auto", "float32", "bfloat16")


@dataclass(frozen=True)
class Plan:
    """How a walk is laid out. All of it is part of a study's key: results depend on the last bits of it.

    Arguments:
        dtype: `float32` or `bfloat16`.
        chunk: images per chunk.
        stack: most nodes that run as one batch.
        device: where the walk runs.
    """

    dtype: str = "float32"
    chunk: int = 16
    stack: int = 1
    device: str = "cpu"

    @property
    def torch_dtype(self) -> torch.dtype:
        """The precision as torch names it."""
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[self.dtype]


def plan(
    tower: Tower,
    *,
    dtype: str = "auto",
    device: str = "cpu",
    chunk: int | None = None,
    budget: float | None = None,
    cache_dir: Path | None = None,
) -> Plan:
    """A plan for this tower on this machine.

    Arguments:
        dtype: `auto`, `float32` or `bfloat16`; auto takes what is faster here (`precision.py`).
        chunk: images per chunk, instead of what the budget allows.
        budget: bytes for the activations of one stack; the walk holds about one stack per layer. By default
            24 MB on a CPU (larger stacks fall out of its caches and are slower), 2 GB on a GPU.
        cache_dir: where it is kept how fast this machine multiplies.

    Raises:
        HeadwiseError: an unknown dtype, a chunk of no image, or a device that this machine does not have.
    """
    check_plan(dtype, chunk)
    check_device(device)
    on_gpu = device.startswith("cuda")
    if dtype == "auto":
        dtype = faster(tower, device, cache_dir).dtype
    size = 2 if dtype == "bfloat16" else 4
    # one image at one node: residual stream in and out, q, k, v, z and the MLP's hidden layer
    image = tower.tokens * max(block.width for block in tower.blocks) * 9 * size
    budget = budget or (2e9 if on_gpu else 24e6)
    chunk = chunk or _power_of_two(budget / image, most=64 if on_gpu else 32)
    return Plan(dtype, chunk, _power_of_two(budget / (image * chunk), most=64), device)


def check_plan(dtype: str, chunk: int | None) -> None:
    """
    Raises:
        HeadwiseError: an unknown precision, or a chunk of no image.
    """
    if dtype not in DTYPES:
        raise HeadwiseError(f"{dtype!r} is not a precision. Use auto, float32 or bfloat16.")
    if chunk is not None and chunk < 1:
        raise HeadwiseError(f"{chunk} images a chunk: it must be at least 1.")


def check_device(device: str) -> None:
    """
    Raises:
        HeadwiseError: torch does not know the device, or this machine does not have it.
    """
    try:
        kind, index = torch.device(device).type, torch.device(device).index or 0
    except RuntimeError as error:
        raise HeadwiseError(f"{device!r} is not a device. Use cpu, cuda or cuda:1.") from error
    if kind == "cuda" and index >= (torch.cuda.device_count() if torch.cuda.is_available() else 0):
        raise HeadwiseError(f"Device {device!r} was asked for but torch finds no such CUDA GPU. Use --device cpu.")
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError) as error:  # torch knows kinds that this build or machine cannot compute on
        raise HeadwiseError(f"torch cannot compute on device {device!r} here. Use --device cpu.") from error


def _power_of_two(value: float, most: int) -> int:
    return max(1, min(most, 1 << max(0, int(value).bit_length() - 1)))

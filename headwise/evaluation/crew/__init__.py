"""Workers: sets of masks run by other processes, here or on a cluster, with the bytes of one process.

In: how many workers, and where. Out: a `Crew`, which an evaluator takes as its launcher. One crew serves all evaluators
that need workers of the same kind; it ends with the last of them.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from headwise.data.workers import usable_cores
from headwise.errors import HeadwiseError
from headwise.evaluation.crew.crew import Crew
from headwise.evaluation.crew.processes import Processes
from headwise.evaluation.crew.team import Launcher
from headwise.evaluation.crew.work import Spec, spec_of
from headwise.evaluation.layout import Plan
from headwise.towers.base import Model

MOST = 4096
_running: weakref.WeakValueDictionary[tuple, Crew] = weakref.WeakValueDictionary()


@dataclass(frozen=True)
class Staff:
    """Who does the work.

    Arguments:
        workers: how many; 0: this process itself; None: one for each GPU where device `cuda` has several, else 0.
        ray: address of a Ray cluster, or `auto` for the one that is there or a new one here; None: processes here.
        mixed: workers on machines of another kind will do.

    Raises:
        HeadwiseError: a number that is none, or a cluster without the extra.
    """

    workers: int | None = None
    ray: str | None = None
    mixed: bool = False

    def __post_init__(self) -> None:
        if self.workers is not None and not 0 <= self.workers <= MOST:
            raise HeadwiseError(f"{self.workers} workers: give a number from 0 (this process itself) to {MOST}.")
        if self.ray is not None:
            if self.workers == 0:
                raise HeadwiseError("0 workers are this process itself; leave --ray out, or give it workers.")
            check_extra()
        elif self.mixed:
            raise HeadwiseError("--mixed-workers is about the machines of a cluster; give one with --ray.")

    def count(self, device: str) -> int:
        """How many workers a device gets; 0: none, this process works. Of a cluster 0 is as many as it has.

        Raises:
            HeadwiseError: more workers than GPUs.
        """
        gpus = torch.cuda.device_count() if device == "cuda" else 0
        if self.ray is not None:
            return self.workers or 0
        if self.workers is None:
            return gpus if gpus > 1 else 0
        if device.startswith("cuda") and self.workers > max(1, gpus):
            has = f"this machine has {gpus} GPUs" if device == "cuda" else f"{device} is one GPU"
            raise HeadwiseError(f"{self.workers} workers were asked for, one for each GPU, and {has}.")
        return self.workers

    def threads(self, device: str) -> int | None:
        """With how many threads each worker computes where the user has not said it; None: as torch does."""
        workers = self.count(device)
        if not workers or device != "cpu" or "OMP_NUM_THREADS" in os.environ:
            return None
        return max(1, usable_cores() // workers)


def check_extra() -> None:
    """
    Raises:
        HeadwiseError: Ray is not installed.
    """
    from importlib.util import find_spec

    if find_spec("ray") is None:
        raise HeadwiseError("Workers on a cluster need Ray: pip install 'headwise[ray]'")


def hired(
    staff: Staff,
    model: Model,
    layout: Plan,
    cache_dir: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Crew | None:
    """Workers for a model and a layout, running already or started now; None where this process works.

    Raises:
        HeadwiseError: a model that workers cannot load, a cluster that is not there, a worker that cannot start.
    """
    count = staff.count(layout.device)
    if not count and staff.ray is None:
        return None
    spec = spec_of(model, layout, mixed=staff.mixed)
    key = (staff, repr(spec), layout.device, str(cache_dir))
    if (crew := _running.get(key)) is None:
        crew = Crew(_launcher(staff, count, spec, layout.device), spec, cache_dir, say)
        _running[key] = crew
        say(f"{crew.count} workers, {spec.machine['threads']} threads each.")
    return crew


def _launcher(staff: Staff, count: int, spec: Spec, device: str) -> Launcher:
    if staff.ray is not None:
        from headwise.evaluation.crew.rays import Rays

        return Rays(staff.ray, count, device, int(str(spec.machine["threads"])))
    devices = [f"cuda:{number}" for number in range(count)] if device == "cuda" else [device]
    return Processes(count, devices)

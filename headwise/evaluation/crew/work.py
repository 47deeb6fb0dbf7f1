"""What a worker does: the one function that runs a task, wherever the worker is.

In: a `Spec` once (a model by name, what the machine has to be), then tasks: masks, and the path of a job's file, or a function's
file and an argument. Out: scores, embeddings in a file beside it, or what the function returns. Workers get paths and never arrays; what they compute has the bits of the driver's own
walk: the same sets, chunks, stacks and threads. They know nothing of the study.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError, cause
from headwise.evaluation.engine import Means, Pixels, embed
from headwise.evaluation.layout import Plan, check_device
from headwise.memory import keep_memory
from headwise.processor import machine, use_threads
from headwise.scoring.objectives import Score
from headwise.towers import NAMES, Model, load
from headwise.towers.base import Tower
from headwise.version import __version__

TOKEN = "token"  # a file in the work folder: who can read it sees what the driver sees
KEPT = 4  # jobs that a worker keeps open: a search's, pick's, test's


@dataclass(frozen=True)
class Spec:
    """What a worker has to be.

    Arguments:
        version: of headwise.
        model, overrides: as `load` takes them.
        weights: hash of the tower that comes out.
        dtype: precision of the tower.
        machine: `processor.machine()` of the driver, threads included.
        folder, token: the work folder, and what its token file holds.
        mixed: other machines will do; scores are then equal within a tolerance alone.
    """

    version: str
    model: str
    overrides: Mapping[str, object]
    weights: str
    dtype: str
    machine: Mapping[str, object]
    folder: str = ""
    token: str = ""
    mixed: bool = False


@dataclass(frozen=True)
class Job:
    """What the tasks of an evaluator share; it goes through a file.

    Arguments:
        pixels: the split's images: paths of shards and rows.
        objective: embeddings (N, E) → score.
        means: constants of operator `mean`.
        layout: of every walk; the device is the worker's own.
    """

    pixels: Pixels
    objective: Callable[[torch.Tensor], Score]
    means: Means | None
    layout: Plan


@dataclass(frozen=True)
class Task:
    """A piece of work.

    Arguments:
        job, digest: the job's file and its SHA-256.
        masks: a set, as `engine.walks` cuts it.
        first, last: with `file` and no `score`, images [first, last) of all masks: their embeddings go into the file.
            With `score`, masks [first, last) of the set: embeddings of all images are read from the file.
        file: embeddings (masks, N, E) float32; none: the whole set is run and scored at once.
        score: whether the file is complete.
    """

    job: str
    digest: str
    masks: tuple[Mask, ...]
    first: int = 0
    last: int = 0
    file: str = ""
    score: bool = False


@dataclass(frozen=True)
class Call:
    """A function called with the tower and an argument.

    Arguments:
        job, digest: the function's file and its SHA-256.
        argument: what it gets.
    """

    job: str
    digest: str
    argument: object


def named(model: Model) -> str:
    """The name by which another process loads this model.

    Raises:
        HeadwiseError: it was given as an object.
    """
    library, _, reference = model.source.partition(":")
    if not reference:
        raise HeadwiseError(
            f"Workers load the model themselves, and {model.name or 'this model'} was given as an object. Give its name or "
            "folder, or leave the workers out."
        )
    if model.name == "demo":
        return "demo"
    return model.source if library in NAMES else reference


def spec_of(model: Model, layout: Plan, *, mixed: bool = False) -> Spec:
    """What workers for this model and layout have to be."""
    given = dict(model.overrides.given)
    where = machine(layout.device)
    return Spec(__version__, named(model), given, model.tower.weights_hash, layout.dtype, where, mixed=mixed)


class Worker:
    """A model, loaded and checked, that runs tasks.

    Arguments:
        spec: what it has to be.
        device: where it computes.

    Raises:
        HeadwiseError: it is not what the spec asks for; the message says on which machine.
    """

    def __init__(self, spec: Spec, device: str):
        self.device, where = device, f"The worker on {platform.node() or 'this machine'}"
        if spec.version != __version__:
            raise HeadwiseError(
                f"{where} has headwise {__version__}, the driver {spec.version}. Install the same version everywhere."
            )
        try:
            seen = (Path(spec.folder) / TOKEN).read_text(encoding="utf-8")
        except OSError as error:
            seen = error.strerror
        if seen != spec.token:
            raise HeadwiseError(
                f"{where} cannot see {spec.folder} ({seen}). Set HEADWISE_CACHE to a folder that the driver and all "
                "workers share."
            )
        check_device(device)
        keep_memory()
        threads = spec.machine.get("threads")
        use_threads(threads)
        here = machine(device)
        if here != dict(spec.machine) and not spec.mixed:
            differ = ", ".join(f"{k} {here.get(k)}, not {v}" for k, v in spec.machine.items() if here.get(k) != v)
            raise HeadwiseError(
                f"{where} differs from the driver ({differ}), so that sums round differently. Use machines of one kind, or "
                "allow it with --mixed-workers: scores then agree within a tolerance."
            )
        self._spec, self._exact = spec, None
        tower = self._loaded()
        if tower.weights_hash != spec.weights:
            raise HeadwiseError(
                f"{where} finds other weights under {spec.model} than the driver. Give both the same files."
            )
        self.tower = tower.cast(device, Plan(spec.dtype).torch_dtype)
        self._jobs: dict[str, Any] = {}

    def run(self, task: Task | Call) -> object:
        """What comes of a task: `score`'s of masks, or what a call returns.

        Raises:
            HeadwiseError, OSError: as `score`; whatever the function raises.
        """
        if isinstance(task, Task):
            return self.score(task)
        if self._exact is None:
            exact = self.tower if self.tower.dtype == torch.float32 else self._loaded()
            self._exact = exact.cast(self.device, torch.float32)
        return self._job(task)(self._exact, task.argument)

    def score(self, task: Task) -> list[Score]:
        """The scores of a task, in the order of its masks; none where it fills a part of a file.

        Raises:
            HeadwiseError: embeddings that are not finite, paths that cannot be read.
            OSError: the disk is full.
        """
        job: Job = self._job(task)
        if task.score:
            found = read_embeddings(task.file, len(task.masks), len(job.pixels), task.first, task.last)
            return [_bare(job.objective(e)) for e in found]
        layout = replace(job.layout, device=self.device)
        if not task.file:
            run = embed(self.tower, job.pixels, task.masks, layout, means=job.means)
            return [_bare(job.objective(e)) for _, e in run]
        part, total = Part(job.pixels, task.first, task.last), len(job.pixels)
        place = {mask: i for i, mask in enumerate(task.masks)}
        with open(task.file, "r+b") as file:
            for mask, e in embed(self.tower, part, task.masks, layout, means=job.means):
                if not torch.isfinite(e).all():
                    raise HeadwiseError(f"Embeddings under {mask} are not finite numbers.")
                write_embeddings(file.fileno(), e, place[mask] * total + task.first)
        return []

    def _loaded(self) -> Tower:
        return load(self._spec.model, device=self.device, **dict(self._spec.overrides)).tower  # type: ignore[arg-type]

    def _job(self, task: Task | Call) -> Any:
        if task.digest not in self._jobs:
            try:
                content = Path(task.job).read_bytes()
                if hashlib.sha256(content).hexdigest() != task.digest:
                    raise HeadwiseError(f"{task.job} is damaged.")
                job = pickle.loads(content)
            except OSError as error:
                raise HeadwiseError(f"A worker cannot read {error.filename or task.job}: {error.strerror}.") from error
            self._jobs[task.digest] = job
            while len(self._jobs) > KEPT:
                del self._jobs[next(iter(self._jobs))]
        return self._jobs[task.digest]


class Part:
    """Images [first, last) of others, read when they are asked for."""

    def __init__(self, pixels: Pixels, first: int, last: int):
        self.pixels, self.rows = pixels, range(first, last)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: slice) -> torch.Tensor:
        rows = self.rows[index]
        return self.pixels[rows.start : rows.stop]


def write_embeddings(file: int, e: torch.Tensor, row: int) -> None:
    """Embeddings (B, E) float32 at row `row` of an open file."""
    data = memoryview(e.contiguous().numpy().data).cast("B")
    at = row * e.shape[-1] * 4
    while data:
        done = os.pwrite(file, data, at)
        data, at = data[done:], at + done


def read_embeddings(path: str, masks: int, images: int, first: int, last: int) -> Iterator[torch.Tensor]:
    """Embeddings (N, E) float32 of masks [first, last) of a file that holds those of so many masks and images."""
    size = os.path.getsize(path) // masks  # bytes a mask
    with open(path, "rb") as file:
        for i in range(first, last):
            file.seek(i * size)
            yield torch.frombuffer(bytearray(file.read(size)), dtype=torch.float32).view(images, -1)


def _bare(score: Score) -> Score:
    """Without how hits make the fitness, which the driver's own objective knows."""
    return replace(score, design=None)


def reason(error: BaseException) -> str:
    """What to tell the driver of an error."""
    if isinstance(error, HeadwiseError):
        return str(error)
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror}{f': {error.filename}' if error.filename else ''}"
    return f"{type(error).__name__}: {cause(error)}"

"""Workers as actors of a Ray cluster, one that is there or one that is started here.

In: an address, how many. Out: hands (`team.Hand`). Ray only starts actors and carries messages: it restarts and retries
nothing, so that there is one place that decides what is done again (`team.py`). Every actor says what it takes: one GPU, or
so many cores and none.
"""

from __future__ import annotations

import os
import pickle
import socket
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import ray

from headwise.errors import HeadwiseError, cause
from headwise.evaluation.crew.team import WAIT, Hand
from headwise.evaluation.crew.work import Spec, Worker, reason

ANSWER = 10.0  # seconds that a cluster has to answer
BEAT = 1.0  # seconds between questions after a sign of life


class Actor:
    """A worker inside Ray; whatever goes wrong comes back as words."""

    def ready(self, spec: bytes, device: str) -> tuple[str, object]:
        """Load the model."""
        try:
            self.worker = Worker(pickle.loads(spec), device)
        except Exception as error:
            return "refused", reason(error)
        return "ready", None

    def run(self, task: bytes) -> tuple[str, object]:
        """What comes of a task."""
        try:
            return "done", self.worker.run(pickle.loads(task))
        except Exception as error:
            return "failed", reason(error)

    def beat(self) -> None:
        """A sign of life, from another thread than the work."""

    def process(self) -> int:
        """The number of its process."""
        return os.getpid()


class Rays:
    """Starts actors.

    Arguments:
        address: of a cluster, or `auto`.
        count: how many workers; 0: as many as the cluster has room for.
        device: `cpu` or `cuda`.
        threads: cores that a worker on a CPU takes.

    Raises:
        HeadwiseError: a cluster that is not there, or fewer GPUs or cores than workers.
    """

    def __init__(self, address: str, count: int, device: str, threads: int):
        self._device = "cuda" if device.startswith("cuda") else device
        self._takes: dict[str, float] = (
            {"num_gpus": 1, "num_cpus": 1} if self._device == "cuda" else {"num_gpus": 0, "num_cpus": threads}
        )
        _reachable(address)
        _connect(address)
        has = ray.cluster_resources()
        room = int(has.get("GPU", 0)) if self._device == "cuda" else int(has.get("CPU", 0)) // threads
        self.count, self._hired = count or room, 0
        if not 0 < self.count <= room:
            what = "one GPU each" if self._device == "cuda" else f"{threads} cores each"
            raise HeadwiseError(
                f"{self.count or 'No'} workers with {what} were asked for; this Ray cluster has "
                f"{int(has.get('GPU', 0))} GPUs and {int(has.get('CPU', 0))} cores."
            )

    def hire(self, spec: Spec, place: int) -> Hand:
        """An actor, wherever there is room."""
        self._hired += 1
        return _Remote(spec, self._device, self._hired, self._takes)

    def wait(self, hands: Sequence[Hand], seconds: float) -> None:
        """See `Launcher.wait`."""
        waiting = [hand.work for hand in hands if isinstance(hand, _Remote) and hand.work is not None]
        if waiting:
            ray.wait(waiting, num_returns=1, timeout=seconds)
        else:
            time.sleep(WAIT / 10)


def _reachable(address: str) -> None:
    """Ray itself waits for minutes for a cluster that is not there.

    Raises:
        HeadwiseError: nobody answers at this address.
    """
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if address in ("auto", "local"):
        return
    try:
        socket.create_connection((host, int(port)), ANSWER).close()
    except (OSError, ValueError) as error:
        raise HeadwiseError(_absent(address, error)) from error


def _absent(address: str, error: Exception) -> str:
    said = cause(error)
    return f"There is no Ray cluster at {address}: {said}. Start one with `ray start --head`, or write --ray auto."


def _connect(address: str) -> None:
    if ray.is_initialized():
        return
    options: dict[str, Any] = {"logging_level": "error", "log_to_driver": False}
    try:
        ray.init(address=address, **options)
    except Exception as error:
        if address != "auto" or not isinstance(error, ConnectionError):
            raise HeadwiseError(_absent(address, error)) from error
        ray.init(include_dashboard=False, **options)


class _Remote:
    def __init__(self, spec: Spec, device: str, number: int, takes: dict[str, float]):
        self.name, self.gone = f"Worker {number}", False
        options = {"max_restarts": 0, "max_task_retries": 0, "max_concurrency": 2, **takes}
        self._actor: Any = ray.remote(Actor).options(**options).remote()
        self.work: Any = self._actor.ready.remote(pickle.dumps(spec), device)
        self._beat, self._asked = self._actor.beat.remote(), time.monotonic()

    def give(self, task: bytes) -> None:
        """See `Hand.give`."""
        self.work = self._actor.run.remote(task)

    def hear(self) -> list[tuple[str, object]]:
        """See `Hand.hear`."""
        if self.gone:
            return [("gone", "was ended")]
        found: list[tuple[str, object]] = []
        try:
            if _done(self._beat) and time.monotonic() - self._asked > BEAT:
                ray.get(self._beat)
                found.append(("beat", None))
                self._beat, self._asked = self._actor.beat.remote(), time.monotonic()
            if self.work is not None and _done(self.work):
                work, self.work = self.work, None
                found.append(ray.get(work))
        except Exception as error:  # Ray's own: the actor is not there any more, or never was
            self.gone = True
            found.append(("gone", f"is lost ({cause(error)[:300]})"))
        return found

    def end(self) -> None:
        """See `Hand.end`."""
        self.gone, self.work = True, None
        with suppress(Exception):  # it may be gone, and Ray with it
            ray.kill(self._actor, no_restart=True)


def _done(reference: Any) -> bool:
    return bool(ray.wait([reference], timeout=0)[0])

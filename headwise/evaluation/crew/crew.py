"""The driver's side of workers: who does what, in which order results come back, and what happens when a worker fails.

In: an evaluator and its sets of masks. Out: their scores, set after set, as one process would give them: only the driver
writes the study, in the order of the sets, so that its bytes do not depend on the workers. A worker that dies, freezes or
fails gets its task taken away; the task goes to another, three times at most. How a worker is started and spoken to is its
launcher's matter (`processes.py`, `rays.py`).
"""

from __future__ import annotations

import hashlib
import os
import pickle
import secrets
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Protocol

import numpy as np

from headwise.data.files import cache_folder
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.crew.work import TOKEN, Job, Spec, Task, read_embeddings
from headwise.evaluation.engine import ffe
from headwise.evaluation.evaluator import Evaluator
from headwise.files import OTHER_CACHE, cannot_write, write_files
from headwise.scoring.objectives import Score
from headwise.staging import scratch

TRIES = 3  # of a task
PATIENCE = 30.0  # seconds without a sign of life, after which a worker that has a task is given up
STARTING = 300.0  # seconds that a worker may take to load
WAIT = 0.5  # seconds between looks at the clock
Scored = list[tuple[Mask, Score]]


class Hand(Protocol):
    """A worker, as the driver sees it."""

    name: str

    def give(self, task: bytes) -> None:
        """Hand it a pickled task; it has none."""
        ...

    def hear(self) -> list[tuple[str, object]]:
        """What came since: `ready`, `beat`, `done` with scores, `failed` with a reason, `refused` with one (it cannot
        start), `gone` with one. It never waits."""
        ...

    def end(self) -> None:
        """End it, whatever it does."""
        ...


class Launcher(Protocol):
    """Starts workers."""

    count: int

    def hire(self, spec: Spec, place: int) -> Hand:
        """Start a worker; it says `ready` later."""
        ...

    def wait(self, hands: Sequence[Hand], seconds: float) -> None:
        """Until one of them has something to say, or so long."""
        ...


@dataclass
class _Order:
    """A task on its way: of which set, what it costs, and how often it was tried."""

    number: int
    task: Task
    cost: float
    tries: int = 0


@dataclass
class _Set:
    """A set of masks while it is worked on."""

    masks: list[Mask]
    waiting: int = 0  # tasks that are not done
    file: Path | None = None  # its embeddings
    scores: dict[int, Score] = field(default_factory=dict)


@dataclass
class _Place:
    """A worker and what it is at."""

    hand: Hand
    heard: float
    ready: bool = False
    starts: int = 1  # of this place in a row, none of which came to be ready
    order: _Order | None = None


class Crew:
    """Workers that run an evaluator's sets; see `Evaluator.launcher`.

    Arguments:
        launcher: how workers are started.
        spec: what they have to be.
        cache_dir: the cache, where the work folder is made; workers have to see it.
        say: gets a sentence when a worker is replaced.
        patience: seconds without a sign of life.

    Raises:
        HeadwiseError: a worker that cannot start; nothing was run.
    """

    def __init__(
        self,
        launcher: Launcher,
        spec: Spec,
        cache_dir: Path | None = None,
        say: Callable[[str], None] = lambda text: None,
        patience: float = PATIENCE,
    ):
        self._launcher, self._say, self._patience = launcher, say, patience
        self._stack, self._places, self._jobs, self._files = ExitStack(), list[_Place](), dict[str, str](), 0
        self._vacant: list[int] = []
        self._last: tuple[tuple, tuple[str, str]] | None = None  # the parts of a job, and its file
        self._end = weakref.finalize(self, _end, self._places, self._stack)
        place = cache_folder(cache_dir).absolute() / "work"
        try:
            self.folder = self._stack.enter_context(scratch(place))
        except OSError as error:
            raise cannot_write(place, error, OTHER_CACHE) from error
        token = secrets.token_hex(16)
        write_files(self.folder, {TOKEN: token}, advice=OTHER_CACHE)
        self._spec = replace(spec, folder=str(self.folder), token=token)
        try:
            for number in range(launcher.count):
                self._places.append(self._hired(number))
            self.muster()
        except BaseException:
            self.close()
            raise

    @property
    def count(self) -> int:
        """How many workers there are."""
        return self._launcher.count

    @property
    def hands(self) -> list[Hand]:
        """The workers of the moment."""
        return [place.hand for place in self._places]

    def muster(self) -> None:
        """Wait until all workers are ready.

        Raises:
            HeadwiseError: one cannot start.
        """
        while not all(place.ready for place in self._places):
            self._listen({}, deque())

    def close(self) -> None:
        """End all workers and remove the work folder."""
        self._end()

    def __call__(self, evaluate: Evaluator, sets: Sequence[list[Mask]]) -> Iterator[Scored]:
        """Scores of every set, in the order of the sets; `evaluate.observe` is called in that order, too.

        Raises:
            HeadwiseError: a task that failed three times, with the reason of the last; no room in the work folder.
        """
        if not sets:
            return
        while self._vacant:
            number = self._vacant.pop()
            self._places[number] = self._hired(number)
        open_sets = {number: _Set(masks) for number, masks in enumerate(sets)}
        queue, turn = deque(self._orders(evaluate, open_sets)), 0
        try:
            while turn < len(sets):
                self._hand_out(queue)
                self._listen(open_sets, queue, evaluate)
                while turn in open_sets and not open_sets[turn].waiting:
                    yield self._finished(evaluate, open_sets.pop(turn))
                    turn += 1
        finally:
            for number, place in enumerate(self._places):  # of a caller that does not go on
                if place.order is not None:
                    place.hand.end()
                    place.order = None
                    self._vacant.append(number)
            for one in open_sets.values():
                _remove(one)

    # ---- what is to be done

    def _orders(self, evaluate: Evaluator, sets: dict[int, _Set]) -> Iterator[_Order]:
        """Whole sets as long as there are plenty, which costs the least traffic; the last ones by images, so that all
        workers finish together. Sets that are observed leave their embeddings in files."""
        job, digest = self._job(evaluate)
        total, chunk = len(evaluate.pixels), evaluate.layout.chunk
        edges = _cut(-(-total // chunk), self.count)
        for number, one in sets.items():
            cost, masks = ffe(evaluate.tower, one.masks), tuple(one.masks)
            parted = number >= len(sets) - 2 * self.count and len(edges) > 2
            if not parted and not evaluate.observe:
                one.waiting = 1
                yield _Order(number, Task(job, digest, masks), cost)
                continue
            self._files += 1
            one.file = self.folder / f"{self._files}.embeddings"
            one.waiting = len(edges) - 1
            for a, b in pairwise(edges):
                first, last = a * chunk, min(b * chunk, total)
                yield _Order(
                    number, Task(job, digest, masks, first, last, str(one.file)), cost * (last - first) / total
                )

    def _scoring(self, order: _Order, one: _Set) -> list[_Order]:
        """What is left of a set whose embeddings are all in its file."""
        edges = _cut(len(one.masks), self.count)
        one.waiting = len(edges) - 1
        return [_Order(order.number, replace(order.task, first=a, last=b, score=True), 0.0) for a, b in pairwise(edges)]

    def _job(self, evaluate: Evaluator) -> tuple[str, str]:
        """The file of what an evaluator's tasks share, written where it is not there yet, and its SHA-256."""
        parts = (evaluate.pixels, evaluate.objective, evaluate.means, evaluate.layout)
        if self._last and all(a is b for a, b in zip(self._last[0], parts, strict=True)):
            return self._last[1]
        pixels = getattr(evaluate.pixels, "shared", lambda: evaluate.pixels)()
        content = pickle.dumps(Job(pixels, evaluate.objective, evaluate.means, evaluate.layout))
        digest = hashlib.sha256(content).hexdigest()
        if digest not in self._jobs:
            write_files(self.folder, {f"{digest}.job": content}, advice=OTHER_CACHE)
            self._jobs[digest] = str(self.folder / f"{digest}.job")
        self._last = (parts, (self._jobs[digest], digest))
        return self._last[1]

    # ---- who does it

    def _hired(self, number: int) -> _Place:
        return _Place(self._launcher.hire(self._spec, number), time.monotonic())

    def _hand_out(self, queue: deque[_Order]) -> None:
        for place in self._places:
            if queue and place.ready and place.order is None:
                place.order = queue.popleft()
                file = place.order.task.file
                if file and not os.path.exists(file):
                    Path(file).touch()
                place.heard = time.monotonic()
                with suppress(OSError):  # a worker that is gone says so
                    place.hand.give(pickle.dumps(place.order.task))

    def _listen(self, sets: dict[int, _Set], queue: deque[_Order], evaluate: Evaluator | None = None) -> None:
        """Wait for news, take in what is done, take away from those who failed."""
        self._launcher.wait(self.hands, min(WAIT, self._patience / 4))
        for number, place in enumerate(self._places):
            for kind, what in place.hand.hear():
                place.heard = time.monotonic()
                order = place.order
                if kind == "ready":
                    place.ready = True
                elif kind == "refused":
                    raise HeadwiseError(what)
                elif kind == "done" and order is not None:
                    place.order = None
                    self._done(order, what, sets[order.number], queue)  # type: ignore[arg-type]
                    if evaluate is not None and evaluate.progress and order.cost:
                        evaluate.progress(order.cost)
                elif kind == "failed" and order is not None:
                    place.order = None
                    self._again(order, f"{place.hand.name} failed: {what}", queue)
                elif kind == "gone":
                    self._replace(number, str(what), queue)
                    break
            else:
                silent = time.monotonic() - place.heard
                if silent > (self._patience if place.ready else STARTING) and (place.order or not place.ready):
                    self._replace(number, f"gave no sign of life for {silent:.0f} seconds", queue)

    def _done(self, order: _Order, scores: list[Score], one: _Set, queue: deque[_Order]) -> None:
        task = order.task
        one.waiting -= 1
        for i, score in enumerate(scores):
            one.scores[(task.first if task.score else 0) + i] = score
        if one.file and not task.score and not one.waiting:
            queue.extendleft(reversed(self._scoring(order, one)))

    def _replace(self, number: int, why: str, queue: deque[_Order]) -> None:
        place = self._places[number]
        place.hand.end()
        starts = 1 if place.ready else place.starts + 1
        if starts > TRIES:
            raise HeadwiseError(f"Workers cannot start; {place.hand.name} {why}.")
        order, place.order = place.order, None
        if order is not None:
            self._again(order, f"{place.hand.name} {why}", queue)
        self._say(f"{place.hand.name} {why}; another takes its place.")
        self._places[number] = self._hired(number)
        self._places[number].starts = starts

    def _again(self, order: _Order, why: str, queue: deque[_Order]) -> None:
        """Another try, before anything else.

        Raises:
            HeadwiseError: there were enough.
        """
        order.tries += 1
        if order.tries >= TRIES:
            raise HeadwiseError(
                f"A set of {len(order.task.masks)} masks failed {TRIES} times on workers, the last time: {why}. What was "
                "evaluated before is kept; the same command goes on from there."
            )
        queue.appendleft(order)

    def _finished(self, evaluate: Evaluator, one: _Set) -> Scored:
        design = getattr(evaluate.objective, "design", None)
        if evaluate.observe and one.file:
            count = len(one.masks)
            found = read_embeddings(str(one.file), count, len(evaluate.pixels), 0, count)
            for mask, embeddings in zip(one.masks, found, strict=True):
                evaluate.observe(mask, embeddings)
        _remove(one)
        return [(mask, replace(one.scores[i], design=design)) for i, mask in enumerate(one.masks)]


def _cut(length: int, parts: int) -> list[int]:
    """Edges of at most so many parts of about equal length."""
    return sorted({round(edge) for edge in np.linspace(0, length, min(parts, length) + 1)})


def _remove(one: _Set) -> None:
    if one.file:
        with suppress(OSError):
            one.file.unlink()


def _end(places: list[_Place], stack: ExitStack) -> None:
    for place in places:
        place.hand.end()
    places.clear()
    stack.close()

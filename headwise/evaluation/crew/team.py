"""Workers and the tasks that they are given: who does what, and what happens when one fails.

In: a launcher, what workers have to be, orders. Out: results, as they come. A worker that dies, freezes or fails gets its
task taken away; the task goes to another, three times at most. How a worker is started and spoken to is its launcher's
matter (`processes.py`, `rays.py`); what tasks there are is that of `crew.py`.
"""

from __future__ import annotations

import pickle
import secrets
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

from headwise.data.files import cache_folder
from headwise.errors import HeadwiseError
from headwise.evaluation.crew.work import TOKEN, Call, Spec, Task
from headwise.files import OTHER_CACHE, cannot_write, write_files
from headwise.staging import scratch

TRIES = 3  # of a task
PATIENCE = 30.0  # seconds without a sign of life, after which a worker that has a task is given up
STARTING = 300.0  # seconds that a worker may take to load
WAIT = 0.5  # seconds between looks at the clock


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


@dataclass(eq=False)
class Order:
    """A task on its way.

    Arguments:
        number: the caller's, of what it belongs to.
        task: what a worker gets.
        what: in words, for messages.
        cost: the caller's measure of it.
        place: the worker that should have it; None: whoever is free.
        tries: how often it failed.
    """

    number: int
    task: Task | Call
    what: str
    cost: float = 0.0
    place: int | None = None
    tries: int = 0


Done = Callable[[Order, object], None]  # takes in what an order brought


@dataclass
class _Place:
    """A worker and what it is at."""

    hand: Hand
    heard: float
    ready: bool = False
    starts: int = 1  # of this place in a row, none of which came to be ready
    order: Order | None = None


class Team:
    """Workers.

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
        self._stack, self._places = ExitStack(), list[_Place]()
        self._vacant: list[int] = []
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
            self._listen(deque(), lambda order, what: None)

    def close(self) -> None:
        """End all workers and remove the work folder."""
        self._end()

    def work(self, queue: deque[Order], done: Done) -> Generator[None, None, None]:
        """Hand out and listen, once each time it is asked; a caller that stops before all is done ends who is at work.

        Arguments:
            queue: what is to be done; `done` may add to it.
            done: takes in a result.

        Raises:
            HeadwiseError: a task that failed three times, with the reason of the last.
        """
        while self._vacant:
            number = self._vacant.pop()
            self._places[number] = self._hired(number)
        try:
            while True:
                self._hand_out(queue)
                self._listen(queue, done)
                yield
        finally:
            for number, place in enumerate(self._places):
                if place.order is not None:
                    place.hand.end()
                    place.order = None
                    self._vacant.append(number)

    def _hired(self, number: int) -> _Place:
        return _Place(self._launcher.hire(self._spec, number), time.monotonic())

    def _hand_out(self, queue: deque[Order]) -> None:
        for number, place in enumerate(self._places):
            if not place.ready or place.order is not None:
                continue
            order = next((one for one in queue if one.place in (None, number)), None)
            if order is None:
                continue
            queue.remove(order)
            place.order, place.heard = order, time.monotonic()
            with suppress(OSError):  # a worker that is gone says so
                place.hand.give(pickle.dumps(order.task))

    def _listen(self, queue: deque[Order], done: Done) -> None:
        """Wait for news, take in what is done, take away from those who failed."""
        self._launcher.wait(self.hands, min(WAIT, self._patience / 4))
        for number, place in enumerate(self._places):
            for kind, what in place.hand.hear():
                place.heard = time.monotonic()
                order = place.order
                if kind == "ready":
                    place.ready = True
                elif kind == "refused":
                    raise HeadwiseError(str(what))
                elif kind == "done" and order is not None:
                    place.order = None
                    done(order, what)
                elif kind == "failed" and order is not None:
                    place.order = None
                    _again(order, f"{place.hand.name} failed: {what}", queue)
                elif kind == "gone":
                    self._replace(number, str(what), queue)
                    break
            else:
                silent = time.monotonic() - place.heard
                if silent > (self._patience if place.ready else STARTING) and (place.order or not place.ready):
                    self._replace(number, f"gave no sign of life for {silent:.0f} seconds", queue)

    def _replace(self, number: int, why: str, queue: deque[Order]) -> None:
        place = self._places[number]
        place.hand.end()
        starts = 1 if place.ready else place.starts + 1
        if starts > TRIES:
            raise HeadwiseError(f"Workers cannot start; {place.hand.name} {why}.")
        order, place.order = place.order, None
        if order is not None:
            _again(order, f"{place.hand.name} {why}", queue)
        self._say(f"{place.hand.name} {why}; another takes its place.")
        self._places[number] = self._hired(number)
        self._places[number].starts = starts


def _again(order: Order, why: str, queue: deque[Order]) -> None:
    """Another try, before anything else and by anybody.

    Raises:
        HeadwiseError: there were enough.
    """
    order.tries += 1
    if order.tries >= TRIES:
        raise HeadwiseError(
            f"{order.what} failed {TRIES} times on workers, the last time: {why}. What was evaluated before is kept; the "
            "same command goes on from there."
        )
    order.place = None
    queue.appendleft(order)


def _end(places: list[_Place], stack: ExitStack) -> None:
    for place in places:
        place.hand.end()
    places.clear()
    stack.close()

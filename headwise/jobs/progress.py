"""How long work reports on itself; the command line draws it, a library stays silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol


class Advance(Protocol):
    """Called with the units of work done since the last call."""

    def __call__(self, amount: float, /) -> None: ...


class Reporter(Protocol):
    """Where progress and short sentences go."""

    def stage(self, title: str, total: float | None, unit: str):
        """A context manager that gives an `Advance`; total None: not known before."""
        ...

    def say(self, text: str) -> None: ...


class Silent:
    """Says nothing."""

    @contextmanager
    def stage(self, title: str, total: float | None, unit: str) -> Iterator[Advance]:
        yield lambda amount: None

    def say(self, text: str) -> None:
        pass


def since_last(advance: Callable[[float], None]) -> Callable[[int, int], None]:
    """A (done, total) callback from one that counts what was done since the last call."""
    before = 0

    def tell(done: int, _total: int) -> None:
        nonlocal before
        advance(done - before)
        before = done

    return tell

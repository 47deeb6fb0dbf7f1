"""How long work reports on itself; the command line draws it, a library stays silent.

In: a title, how much there is to do, in which unit. Out: a function to call with what was done. Where it is drawn is
the `Reporter`'s matter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Protocol

from headwise.evaluation.evaluator import Evaluator


class Reporter(Protocol):
    """Where progress and short sentences go."""

    def stage(self, title: str, total: float | None, unit: str) -> AbstractContextManager[Callable[[float], None]]:
        """A context manager that gives a function to call with the work done since the last
        call; total None: not known before."""
        ...

    def say(self, text: str) -> None:
        """A short sentence beside the progress."""
        ...


class Silent:
    """Says nothing."""

    @contextmanager
    def stage(self, title: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
        """A stage that nobody sees."""
        yield lambda amount: None

    def say(self, text: str) -> None:
        """Drops the sentence."""


def usual() -> Reporter:
    """Where progress goes when nobody says: into the cell of a notebook, else nowhere."""
    from headwise.jobs.steps.notebook import Notebook, in_notebook

    return Notebook() if in_notebook() else Silent()


@contextmanager
def counted(reporter: Reporter, title: str, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A stage for work that reports (done, total); it appears with the first report."""
    with ExitStack() as stack:
        advance: Callable[[float], None] | None = None
        before = 0

        def tell(done: int, total: int) -> None:
            nonlocal advance, before
            if advance is None:
                advance = stack.enter_context(reporter.stage(title, total, unit))
            advance(done - before)
            before = done

        yield tell


@contextmanager
def metered(reporter: Reporter, evaluate: Evaluator, title: str, total: float | None) -> Iterator[None]:
    """Shows the evaluator's work as one stage of so many FFE."""
    with reporter.stage(title, total, "FFE") as advance:
        evaluate.progress, evaluate.stage = advance, title
        try:
            yield
        finally:
            evaluate.progress, evaluate.stage = None, ""

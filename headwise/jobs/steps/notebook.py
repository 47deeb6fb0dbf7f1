"""Progress in a notebook: a bar a stage that fills in its place, with nothing but IPython, and stays in what is exported.

In: stages and sentences of jobs. Out: HTML in the cell's output, made anew a few times a second.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape

from headwise.plain import line, terminal

EVERY = 0.25  # seconds


def in_notebook() -> bool:
    """Whether this is the kernel of a notebook."""
    if "ipykernel" not in sys.modules or "IPython" not in sys.modules:
        return False
    shell = sys.modules["IPython"].get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


class Notebook:
    """A `Reporter` for notebooks."""

    @contextmanager
    def stage(self, title: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
        """A bar; see `Reporter.stage`."""
        from IPython.display import HTML, DisplayHandle  # type: ignore[import-not-found]

        done, began = 0.0, time.monotonic()
        shown = began
        handle = DisplayHandle()
        handle.display(HTML(_bar(title, 0.0, total, unit, 0.0)))

        def advance(amount: float) -> None:
            nonlocal done, shown
            done += amount
            if (now := time.monotonic()) - shown >= EVERY:
                shown = now
                handle.update(HTML(_bar(title, done, total, unit, now - began)))

        try:
            yield advance
        finally:
            handle.update(HTML(_bar(title, done, total, unit, time.monotonic() - began, ended=True)))

    def say(self, text: str) -> None:
        """A line beneath the bars."""
        print(terminal(text))


def _bar(title: str, done: float, total: float | None, unit: str, seconds: float, ended: bool = False) -> str:
    name, of = escape(line(title)), "" if not total else f" of {total:,.0f}"
    value = "" if total is None and not ended else f' value="{1.0 if ended else min(1.0, done / (total or 1)):.3f}"'
    left = ""
    if total and not ended and done > 0:
        left = f", {seconds * (total - done) / done:,.0f} s left"
    return f'<div>{name} <progress aria-label="{name}"{value}></progress> {done:,.0f}{of} {escape(unit)}, {seconds:,.1f} s{left}</div>'

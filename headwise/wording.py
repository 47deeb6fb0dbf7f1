"""How a message names options.

In: the name of an option. Out: the option as the user's interface writes it, `--split-column` or `split=`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_COMMAND_LINE: ContextVar[bool] = ContextVar("command_line", default=False)
_OPTIONS = {"split": "split-column"}  # Python's name → the command line's, where they differ


@contextmanager
def command_line() -> Iterator[None]:
    """Inside, messages name options as the command line does."""
    token = _COMMAND_LINE.set(True)
    try:
        yield
    finally:
        _COMMAND_LINE.reset(token)


def option(name: str, value: str = "") -> str:
    """An option as the user's interface writes it: `--split-column NAME` on the command line, `split=NAME` in Python.

    Arguments:
        name: as Python calls it.
        value: what to give it; for a switch `True`, which the command line leaves out.
    """
    if not _COMMAND_LINE.get():
        return f"{name}={value}" if value else f"{name}="
    flag = "--" + _OPTIONS.get(name, name).replace("_", "-")
    return f"{flag} {value}" if value and value != "True" else flag

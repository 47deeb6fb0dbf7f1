"""The one exception of the package, an interrupt on its way out, and what a library's own exception says.

`HeadwiseError` is everything that a user can put right; its message says what was wrong, where, and what to do, and
its cause is kept. What reaches the command line as another exception is an error in headwise (`cli/guard.py`).
"""

from __future__ import annotations

from headwise.plain import terminal

CAUSE_LINES = 6
CAUSE_WIDTH = 240


class HeadwiseError(Exception):
    """Anything a user can put right: bad input, a wrong model, a full disk.

    The message says what was wrong, where (path, row, shape) and what to do. The command line prints it
    without a traceback and exits with 1. Whatever it quotes can be printed.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(terminal(message))


class Stopped(Exception):
    """An interrupt inside a command, on its way through the parser of the command line, which would say nothing of it;
    its cause is the interrupt."""


def cause(error: BaseException) -> str:
    """What a library's exception says, for a message: its first lines, long ones shortened, without terminal escapes.

    Libraries put the cause below a headline ("Error(s) in loading state_dict for CLIP:"), so one line is not enough.
    """
    lines = [" ".join(line.split()) for line in terminal(str(error).replace("\r", "\n")).splitlines()]
    lines = [line if len(line) <= CAUSE_WIDTH else f"{line[:CAUSE_WIDTH]}…" for line in lines if line]
    return " ".join(lines[:CAUSE_LINES]) + (" …" if len(lines) > CAUSE_LINES else "") or type(error).__name__

"""The one exception of the package, an interrupt on its way out, and what a library's own exception says.

`HeadwiseError` is everything that a user can put right; its message says what was wrong, where, and what to do, and
its cause is kept. Any other exception that reaches the user is an error in headwise, and is written down (`explained`).
"""

from __future__ import annotations

import os

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


def explained(error: Exception, then: str = "") -> str:
    """What to tell a user of an exception; of an unexpected one the traceback goes to a file that is named.

    Arguments:
        then: what to do after that, with a space before it.
    """
    if isinstance(error, HeadwiseError):
        return str(error)
    name, said = type(error).__name__, " ".join(str(error).split())[:300]
    if isinstance(error, MemoryError) or name == "OutOfMemoryError" or "allocate memory" in said:
        return f"There is not enough memory ({said or name}). Give a smaller --chunk, or a machine with more."
    if isinstance(error, RecursionError):
        return "A file that was given is nested too deeply to be read. Give a simpler one."
    if isinstance(error, OSError) and error.strerror:
        files = ", ".join(str(file) for file in (error.filename, error.filename2) if file is not None)
        return f"{files or 'A file or a stream'}: {error.strerror}. Check the path, its rights and the space there."
    where = _written_down(error)
    return (
        f"Unexpected {name}: {said or 'no message'}. This is an error in headwise or in a library; the traceback is "
        f"in {where}.{then}"
    )


def _written_down(error: Exception) -> str:
    import tempfile
    import traceback

    try:
        file, path = tempfile.mkstemp(prefix="headwise-", suffix=".log")
        with os.fdopen(file, "w", encoding="utf-8", errors="backslashreplace") as log:
            log.writelines(traceback.format_exception(error))
    except OSError as refused:
        return f"no file, because none can be written ({refused.strerror})"
    return path

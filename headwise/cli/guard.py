"""The entry point: whatever happens, a sentence on standard error and an exit code, never a traceback.

It imports little, so that an interrupt is understood from the first moment on.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

from headwise.errors import Stopped, explained
from headwise.memory import keep_memory

CONTINUES = "the same command continues where it stopped."


class Terminated(KeyboardInterrupt):
    """SIGTERM: everything is put in order as after Ctrl-C."""


def main() -> None:
    """Ends with 0 when all is well, 1 for bad input, 2 for wrong usage, 130 after Ctrl-C, 143 after SIGTERM."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # read when torch is imported, which no module of the command line does before its command runs: threads that wait
    # sleep instead of spinning, so that a shared machine is not several times slower (docs/performance.md)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    keep_memory()
    former = None
    with suppress(ValueError):  # not in the main thread: whoever called there handles signals
        former = signal.signal(signal.SIGTERM, _terminated)
    try:
        try:
            _open_streams()
            from headwise.cli.app import app

            code = _run(app)
        except (KeyboardInterrupt, Stopped) as stop:
            cause = stop.__cause__ if isinstance(stop, Stopped) else stop
            _say(f"interrupted; {CONTINUES}")
            code = 143 if isinstance(cause, Terminated) else 130
        except Exception as error:
            _say(explained(error, f" After an update, {CONTINUES}"))
            code = 1
        code = _flushed(code)
    finally:
        if former is not None:
            signal.signal(signal.SIGTERM, former)
    sys.exit(code)


def _run(app) -> int:
    from headwise.cli.options import refuse_former

    try:
        refuse_former(sys.argv[1:])
        app()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0


def _terminated(number: int, frame: object) -> None:
    raise Terminated


def _open_streams() -> None:
    """Streams that are closed lead nowhere (a file opened later would take their number), and no character is too
    much for a terminal."""
    import headwise.plain  # noqa: F401 (it registers the handler of what an encoding lacks)

    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the smallest free number: this one
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        with suppress(AttributeError, ValueError, OSError):
            getattr(sys, name).reconfigure(errors="headwise")


def _say(text: str) -> None:
    from headwise.plain import terminal

    with suppress(OSError, ValueError):
        print(f"headwise: {terminal(text)}", file=sys.stderr)


def _flushed(code: int) -> int:
    """The exit code once everything is printed; a reader who has gone away (`| head`) needs no message."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            if not isinstance(error, BrokenPipeError) and stream is sys.stdout:
                _say(f"The results cannot be printed: {getattr(error, 'strerror', None) or error}.")
            code = code or 1 if stream is sys.stdout else code
            with suppress(OSError, ValueError):  # what is left in it would fail again at the end of the process
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return code

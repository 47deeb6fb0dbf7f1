"""Runs Python with a fault at the n-th file operation below a folder: a kill, a full disk, an interrupt.

    python benchmarks/faults.py --below DIR --at 7 --how kill -- -m headwise merge demo L0.H1=zero -o DIR/m

The faults come from Python's audit events (open for writing, rename, remove, mkdir, rmdir, truncate) and from fsync
and pwrite, just before each is carried out: nothing of headwise is replaced. `--at 0` counts only; the number of
operations goes to the file named by `--count`. `--no-exchange` makes the system one without renameat2.
"""

from __future__ import annotations

import argparse
import atexit
import errno
import os
import runpy
import signal
import sys
from collections.abc import Callable
from pathlib import Path

NAMES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.link", "os.symlink"}
HOW = ("kill", "full", "interrupt", "terminate")


def arm(
    below: Path, at: int, how: str = "kill", *, exchange: bool = True, count: Path | None = None
) -> Callable[[], int]:
    """From now on every file operation of this process below a folder is counted; the one with the number fails.

    Arguments:
        below: the folder.
        at: counted from 1; 0: none fails.
        how: `kill` (SIGKILL), `full` (this and every later write finds the disk full), `interrupt` (SIGINT) or `terminate` (SIGTERM).
        exchange: False: no renameat2, as on other systems.
        count: a file for the number of operations, written when the process ends.

    Returns:
        How many operations there were so far.
    """
    root, done, busy = str(below.resolve()), 0, False

    def happen(path: object) -> None:
        nonlocal done, busy
        if busy:
            return
        busy = True
        try:
            name = f"/proc/self/fd/{path}" if isinstance(path, int) else os.fsdecode(path)  # type: ignore[arg-type]
            if isinstance(path, int):
                name = os.readlink(name)
            if not (os.path.abspath(name) + os.sep).startswith(root + os.sep):
                return
            done += 1
            if how == "full" and 0 < at <= done:
                raise OSError(errno.ENOSPC, "No space left on device")
            if done == at:
                os.kill(os.getpid(), {"kill": signal.SIGKILL, "terminate": signal.SIGTERM}.get(how, signal.SIGINT))
        finally:
            busy = False

    def hook(event: str, found: tuple) -> None:
        if event == "ctypes.dlsym" and found[1] == "renameat2":
            if not exchange:
                raise OSError(errno.ENOSYS, "no renameat2")
            happen(root)
        elif event in NAMES and isinstance(found[0], (str, bytes, os.PathLike, int)):
            writes = event != "open" or bool((found[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
            frees = event in ("os.remove", "os.rmdir") and how == "full"  # a full disk lets go
            if writes and not frees:
                happen(found[0])

    def before(name: str) -> None:
        real = getattr(os, name)

        def call(file: int, *rest: object):
            happen(file)
            return real(file, *rest)

        setattr(os, name, call)

    for name in ("fsync", "pwrite"):
        before(name)
    sys.addaudithook(hook)
    if count is not None:
        atexit.register(lambda: count.write_text(str(done)))
    return lambda: done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--below", type=Path, required=True)
    parser.add_argument("--at", type=int, default=0)
    parser.add_argument("--how", choices=HOW, default="kill")
    parser.add_argument("--count", type=Path)
    parser.add_argument("--no-exchange", action="store_true")
    parser.add_argument("rest", nargs="+", help="-m MODULE ARGUMENTS or -c CODE")
    asked = parser.parse_args()
    arm(asked.below, asked.at, asked.how, exchange=not asked.no_exchange, count=asked.count)
    sys.argv = [asked.rest[0], *asked.rest[2:]]
    if asked.rest[0] == "-m":
        runpy.run_module(asked.rest[1], run_name="__main__", alter_sys=True)
    else:
        exec(compile(asked.rest[1], "<code>", "exec"), {"__name__": "__main__"})


if __name__ == "__main__":
    main()

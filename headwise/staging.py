"""Stages: folders for what is being written, recorded by name, so that what a killed run left is found and removed.

What is being written lies in a folder of its own beside its place, the stage: its name is random, and it is recorded
in `JOURNAL` before it is made. While it is written its owner holds a lock inside it; so whoever writes there next
knows the stages of runs that were killed, by name, and removes them. What is written, and how it takes its place, is
`files.py`.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

try:
    import fcntl
except ImportError:  # no locks on this system: what a killed run leaves is not removed
    fcntl = None

JOURNAL = f".headwise-writing-{os.getuid() if hasattr(os, 'getuid') else 0}"  # while something is written; a user's own
STAGE = re.compile(r"\.headwise-[0-9a-f]{32}")  # nothing of another form is ever removed, whatever a journal says
OWNER, AWAITED = "owner", "awaited"  # in a stage: its lock; the name that is free while a folder is replaced
NEW, FORMER = "new", "former"  # in a stage: the folder that is being made; the one that it replaces
OPEN = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


@contextmanager
def scratch(folder: Path) -> Iterator[Path]:
    """An empty folder in `folder`, which is made where it is missing; gone afterwards, whatever happens: after a kill
    with the next run that writes there.

    Raises:
        OSError: it cannot be made.
    """
    stage, owner = folder / f".headwise-{uuid4().hex}", -1
    made: list[Path] = []
    done = False
    try:
        made = [path for path in (folder, *folder.parents) if not path.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        with _journal(folder) as journal:
            journal.names.append(stage.name)
            journal.record()
            stage.mkdir(mode=0o700)  # fails where anything is, a link too
            owner = os.open(stage / OWNER, os.O_RDWR | os.O_CREAT | os.O_EXCL | OPEN, 0o600)
            _lock(owner, wait=True)
        yield stage
        done = True
    finally:
        with suppress(OSError):
            _end(folder, stage)
        if owner >= 0:
            os.close(owner)
        clean(folder)
        if not done:
            for path in made:
                with suppress(OSError):
                    path.rmdir()


@contextmanager
def temporary() -> Iterator[Path]:
    """`scratch` among the system's temporary files."""
    with scratch(Path(tempfile.gettempdir())) as stage:
        yield stage


def clean(folder: str | Path) -> None:
    """Remove what runs that were killed left in this folder, and end the replacement that one of them had begun."""
    with suppress(OSError), _journal(Path(folder), make=False):
        pass


def tidy(folder: Path) -> None:
    """`clean` a folder and those below it, two levels deep: a cache, whose next run may have nothing to write there."""
    with suppress(OSError):  # a place that cannot be a cache is said by whoever wants to write there
        for pattern in (JOURNAL, f"*/{JOURNAL}", f"*/*/{JOURNAL}"):
            for journal in list(folder.glob(pattern)):
                clean(journal.parent)


@dataclass(frozen=True)
class _Journal:
    """The names of the stages in a folder, and the open file that records them, a line of equal length for each."""

    file: int
    names: list[str]

    def record(self) -> None:
        """One write of all names, then the cut: a kill between them leaves a name twice, never less than a name."""
        text = "".join(f"{name}\n" for name in self.names).encode()
        if os.pread(self.file, len(text) + 1, 0) != text:
            os.pwrite(self.file, text, 0)
            os.ftruncate(self.file, len(text))


@contextmanager
def _journal(folder: Path, *, make: bool = True) -> Iterator[_Journal]:
    """The journal of a folder for this process alone, without the stages of the dead, which are ended; without any
    name at the end it is removed.

    Arguments:
        make: where there is none; otherwise one without names is given.

    Raises:
        OSError: it cannot be opened.
    """
    path = folder / JOURNAL
    while True:
        try:
            file = os.open(path, os.O_RDWR | (os.O_CREAT if make else 0) | OPEN, 0o666)
        except FileNotFoundError:
            if make:
                raise
            yield _Journal(-1, [])
            return
        _lock(file, wait=True)
        with suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file), os.lstat(path)):
                break
        os.close(file)  # who had it has removed it meanwhile
    try:
        lines = os.pread(file, os.fstat(file).st_size, 0).decode("ascii", "replace").splitlines()
        names = dict.fromkeys(name for name in lines if STAGE.fullmatch(name))
        journal = _Journal(file, [name for name in names if not _ended(folder, folder / name)])
        try:
            yield journal
        finally:
            if journal.names:
                journal.record()
            else:
                os.unlink(path)
    finally:
        os.close(file)


def _ended(folder: Path, stage: Path) -> bool:
    """Whether a recorded stage is gone, or its owner is, in which case it is ended here."""
    if not stage.is_dir() or stage.is_symlink():
        return True
    owner = -1
    try:
        with suppress(FileNotFoundError):  # killed before it had anything to write
            owner = os.open(stage / OWNER, os.O_RDWR | OPEN)
        if fcntl is None or (owner >= 0 and not _lock(owner, wait=False)):
            return False
        _end(folder, stage)
    except OSError:
        return False
    finally:
        if owner >= 0:
            os.close(owner)
    return not stage.exists()


def _end(folder: Path, stage: Path) -> None:
    """Remove a stage; before that, a folder whose place has become free gets there, the new one or the former.

    Raises:
        OSError: it does not get there; then nothing is removed.
    """
    try:
        name = json.loads((stage / AWAITED).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # no folder is being replaced, or not yet
        name = None
    if isinstance(name, str):
        place = folder / os.path.basename(name)
        for found in (stage / NEW, stage / FORMER):
            if found.is_dir() and not os.path.lexists(place):
                os.rename(found, place)
    shutil.rmtree(stage, ignore_errors=True)


def _lock(file: int, *, wait: bool) -> bool:
    """Take a file's lock, which ends with its process. False: another has it, or this file system has no locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True

"""The one way in which headwise writes files and folders: whole or not at all, and nothing left behind.

What is being written lies in a stage beside its place (`staging.py`). A finished file takes its place by one rename; a
finished folder by one rename, or, where there was another, by one exchange of the two names.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from headwise.errors import HeadwiseError
from headwise.staging import AWAITED, FORMER, NEW, OPEN, scratch

_OS_ERROR = re.compile(r"\(os error \d+\)")  # in the words of libraries in Rust: safetensors, tokenizers

Content = str | bytes | Callable[[Path], object]
RUN_AGAIN = "Free some space there or give another output folder, then run the same command again."
OTHER_CACHE = "Free some space there, or set HEADWISE_CACHE to another folder."


def write_files(folder: str | Path, files: Mapping[str, Content], *, advice: str = RUN_AGAIN) -> None:
    """Write files into a folder so that a full disk, an interrupt or a kill never leaves half a file.

    Each is written beside its place, flushed to the disk, and renamed when all are there.

    Arguments:
        folder: made where it is missing.
        files: name → content, in the order in which they are to appear; text becomes UTF-8. A function writes
            the content itself, to the path that it is called with.
        advice: what a user can do when the file system refuses.

    Raises:
        HeadwiseError: anything the file system refuses; what was there before is unchanged.
    """
    folder = Path(folder)
    with _stage(folder, folder, advice) as stage:
        made = stage / NEW
        made.mkdir()
        for name, content in files.items():
            if callable(content):
                content(made / name)
                _flush(made / name)
                continue
            with os.fdopen(os.open(made / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | OPEN, 0o666), "wb") as file:
                # a file's name that is not UTF-8 gives characters that have none; JSON reads \udcff as such a one
                file.write(content.encode("utf-8", "backslashreplace") if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
        for name in files:
            os.replace(made / name, folder / name)


@contextmanager
def new_folder(place: str | Path, *, advice: str = RUN_AGAIN) -> Iterator[Path]:
    """Inside the context, an empty folder to fill. It takes its place when the context ends well, in one step; else
    what was there stays, and nothing else is left.

    Arguments:
        place: where it is to be; a folder that is there is replaced.
        advice: as for `write_files`.

    Raises:
        HeadwiseError: anything the file system refuses, inside the context too.
    """
    place = Path(place)
    with _stage(place.parent, place, advice) as stage:
        made = stage / NEW
        made.mkdir()
        yield made
        for path in filter(Path.is_file, made.rglob("*")):
            _flush(path)
        _put(stage, place)


def put_aside(place: Path) -> str:
    """Move a folder that a former run wrote, perhaps with files of the user's own in it, out of the way.

    Returns:
        The sentence that says where it is now; empty where there was none.

    Raises:
        HeadwiseError: the file system refuses.
    """
    if not place.is_dir():
        return ""
    number = 1
    while os.path.lexists(to := place.with_name(f"former-{place.name}-{number}")):
        number += 1
    try:
        os.rename(place, to)
    except OSError as error:
        raise cannot_write(place.parent, error) from error
    return f"{place.name}/ of a former choice is now {to.name}/."


def _put(stage: Path, place: Path) -> None:
    """The new folder of a stage in its place, which others may take or leave at the same time.

    Raises:
        OSError: it does not get there.
    """
    made = stage / NEW
    while True:
        try:
            os.rename(made, place)  # succeeds where nothing is, or an empty folder
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        if _exchange(made, place):
            return
        if not os.path.lexists(place):
            continue  # it was there a moment ago
        (stage / AWAITED).write_text(json.dumps(place.name), encoding="utf-8")
        os.rename(place, stage / FORMER)
        os.rename(made, place)  # between the two only `_end` knows where the folder is
        os.unlink(stage / AWAITED)
        return


def cannot_write(folder: Path, error: BaseException, advice: str = RUN_AGAIN) -> HeadwiseError:
    """What to tell a user whose file system refuses a write."""
    if isinstance(error, IsADirectoryError | NotADirectoryError | FileExistsError) and (there := _in_the_way(error)):
        kind = "a folder" if os.path.isdir(there) else "a file"
        return HeadwiseError(
            f"Cannot write to {folder}: {kind} is in the place of {there.name}. Nothing was left half-written. Move it away"
            + (", and repeat the command." if advice == RUN_AGAIN else f". {advice}")
        )
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    if "No space left" in reason or "quota" in reason:
        reason = f"the disk is full ({reason})"
    return HeadwiseError(f"Cannot write to {folder}: {reason}. Nothing was left half-written. {advice}")


def _in_the_way(error: OSError) -> Path | None:
    """What is where something is to be written: the deepest part of the path that is there."""
    path = error.filename2 or error.filename
    if path is None:
        return None
    wanted = Path(os.fsdecode(path))
    return next((part for part in (wanted, *wanted.parents) if part.name and os.path.lexists(part)), None)


@contextmanager
def _stage(folder: Path, named: Path, advice: str) -> Iterator[Path]:
    """`scratch` for what is to appear in `folder`; what the file system refuses is said.

    Arguments:
        named: what to say that it cannot be written.
    """
    try:
        with scratch(folder) as stage:
            yield stage
    except Exception as error:
        if isinstance(error, OSError) or (_OS_ERROR.search(str(error)) and not isinstance(error, HeadwiseError)):
            raise cannot_write(named, error, advice) from error
        raise


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names in one step; False where the system or this file system has no such step."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        rename = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _flush(path: Path) -> None:
    """A file's content reaches the disk before its name does.

    Raises:
        OSError: it cannot.
    """
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)

"""The one way in which headwise writes files: whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from headwise.errors import HeadwiseError


def write_files(folder: str | Path, files: Mapping[str, str | bytes]) -> None:
    """Write files into a folder so that a full disk or an interrupt never leaves half a file.

    Each is written beside its place, flushed to the disk, and renamed when all are there.

    Arguments:
        folder: made where it is missing.
        files: name → content, in the order in which they are to appear.

    Raises:
        HeadwiseError: anything the file system refuses; what was there before is unchanged.
    """
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    written: dict[Path, Path] = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            partial = folder / f".{name}.{os.getpid()}.partial"
            written[partial] = folder / name
            with partial.open("wb") as file:
                file.write(content.encode() if isinstance(content, str) else content)
                file.flush()
                os.fsync(file.fileno())
        for partial, path in written.items():
            os.replace(partial, path)
    except BaseException as error:
        for leftover in written:
            with suppress(OSError):
                leftover.unlink(missing_ok=True)
        for path in made:
            with suppress(OSError):
                path.rmdir()
        if isinstance(error, OSError):
            raise cannot_write(folder, error) from error
        raise


def cannot_write(folder: Path, error: BaseException) -> HeadwiseError:
    """What to tell a user whose file system refuses a write."""
    reason = (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
    return HeadwiseError(
        f"Cannot write to {folder}: {reason}. Nothing was left half-written. "
        "Free some space there or give another output folder, then run the same command again."
    )

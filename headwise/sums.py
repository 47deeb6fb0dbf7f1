"""The list of files that a shipped folder has, with their SHA-256: `SHA256SUMS`, as `sha256sum -c` reads it.

In: a folder. Out: the list, written, or compared with what is there. It says what was written, not who wrote it.
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath

from headwise.errors import HeadwiseError
from headwise.reading import check_regular

SUMS_FILE = "SHA256SUMS"


def write_sums(folder: Path) -> dict[str, str]:
    """List every file below a folder; file → SHA-256."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != SUMS_FILE)
    found = {path.relative_to(folder).as_posix(): sha256(path) for path in paths}
    text = "".join(f"{digest}  {name}\n" for name, digest in found.items())
    (folder / SUMS_FILE).write_text(text, encoding="utf-8")
    return found


def check_sums(folder: Path) -> dict[str, str]:
    """Compare a folder's files with its list.

    Returns:
        File → SHA-256, of every file in the list.

    Raises:
        HeadwiseError: no list, a broken one, a file that is missing or is not what was written, or one that the list
            does not name.
    """
    path = folder / SUMS_FILE
    try:
        check_regular(path)
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise HeadwiseError(
            f"{folder} has no readable {SUMS_FILE}. Get the folder anew, or export it again."
        ) from error
    found: dict[str, str] = {}
    for line in lines:
        digest, _, name = line.partition("  ")
        inside = PurePosixPath(name)
        if len(digest) != 64 or not name or inside.is_absolute() or ".." in inside.parts:
            raise HeadwiseError(f"{path} is not a list that headwise writes: {line[:80]!r}. Get the folder anew.")
        if not (folder / inside).resolve().is_relative_to(folder.resolve()) or not (folder / inside).is_file():
            raise HeadwiseError(f"{folder} lacks {name}. Get the folder anew, or export it again.")
        if sha256(folder / inside) != digest:
            raise HeadwiseError(
                f"{folder / inside} is not what was written: its SHA-256 differs from the one in {SUMS_FILE}. Get the "
                "folder anew, or export it again."
            )
        found[name] = digest
    there = {one.relative_to(folder).as_posix() for one in folder.rglob("*") if one.is_file()} - {SUMS_FILE}
    if extra := sorted(there - set(found)):
        raise HeadwiseError(f"{folder} holds {extra[0]}, which {SUMS_FILE} does not name. Remove it, or export again.")
    return found


def sha256(path: Path) -> str:
    """A file's SHA-256, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

"""Names of files, local and remote: what they are, where they lie.

In: paths and URLs. Out: the same joined, split and judged; the cache folder. Nothing is opened here.
"""

from __future__ import annotations

import os
from pathlib import Path

from headwise.errors import HeadwiseError


def is_remote(location: str) -> bool:
    """Whether this is a URL."""
    return "://" in location


def join(base: str, name: str) -> str:
    """`name` seen from the folder `base`; absolute and remote names stay as they are."""
    if is_remote(name) or os.path.isabs(name):
        return name
    if not is_remote(base):
        return os.path.join(base, name)
    if base.lower().startswith("http"):
        name = name.replace("#", "%23").replace("?", "%3F")  # marks of a URL, letters in a file's name
    return f"{base.rstrip('/')}/{name}"


def parent(location: str) -> str:
    """The folder of a file."""
    return location.rsplit("/", 1)[0] if is_remote(location) else (os.path.dirname(location) or ".")


def require_file(location: str, what: str) -> None:
    """
    Raises:
        HeadwiseError: a local file that is not there, not a file, or empty. Remote files are tried when read.
    """
    if is_remote(location):
        return
    if os.path.isdir(location):
        raise HeadwiseError(f"{location} is a folder, not {what}.")
    if not os.path.exists(location):
        raise HeadwiseError(f"{location} does not exist; {what} was expected there.")
    if os.path.getsize(location) == 0:
        raise HeadwiseError(f"{location} is empty; {what} was expected there.")


def outside(path: str, folder: str) -> bool:
    """Whether a path, with its symbolic links followed, leaves the folder."""
    root = os.path.realpath(folder)
    return "\0" in path or os.path.commonpath([root, os.path.realpath(path)]) != root


def cache_folder(cache_dir: str | os.PathLike | None = None) -> Path:
    """The folder for decoded images: the argument, else $HEADWISE_CACHE, else ~/.cache/headwise.

    Raises:
        HeadwiseError: no home is known, or that of a user who is unknown was asked for.
    """
    named = cache_dir or os.environ.get("HEADWISE_CACHE") or "~/.cache/headwise"
    try:
        return Path(named).expanduser()
    except RuntimeError as error:
        raise HeadwiseError(
            f"There is no home folder for {named}: {error} Set HEADWISE_CACHE to the folder for decoded images."
        ) from error

"""Bytes from local paths and remote locations (`s3://`, `gs://`, `https://`, through fsspec)."""

from __future__ import annotations

import hashlib
import os
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from headwise.errors import HeadwiseError

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem


def is_remote(location: str) -> bool:
    return "://" in location


def join(base: str, name: str) -> str:
    """`name` seen from the folder `base`; absolute and remote names stay as they are."""
    if is_remote(name) or os.path.isabs(name):
        return name
    return f"{base.rstrip('/')}/{name}" if is_remote(base) else os.path.join(base, name)


def parent(location: str) -> str:
    return location.rsplit("/", 1)[0] if is_remote(location) else (os.path.dirname(location) or ".")


def read_bytes(location: str) -> bytes:
    """The whole file.

    Raises:
        OSError: it cannot be read.
    """
    with open_binary(location) as file:
        return file.read()


def open_binary(location: str) -> BinaryIO:
    """An open file, local or remote.

    Raises:
        OSError: it cannot be opened.
    """
    path = local_copy(location) if is_remote(location) else location
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"{path} is not a file")  # a device or a pipe may have no end
    return open(path, "rb")


@lru_cache(maxsize=1 << 20)
def local_copy(location: str) -> str:
    """A remote file's copy in the cache, fetched unless it is there and unchanged; looked at once in a process.

    Raises:
        HeadwiseError: what this kind of location needs is not installed, or there is no such kind.
        OSError: it cannot be fetched; fsspec's back ends each raise their own kinds, all become this one.
    """
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise HeadwiseError(
            f"{location} cannot be opened: {error}. Remote files (https, s3, gs) need: pip install 'headwise[remote]'"
        ) from None
    storage = cache_folder() / "remote"
    name = _digest(location)
    try:
        copy = storage / f"{name}-{_digest(_version(system, path))}"
        if not copy.exists():
            storage.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=storage) as folder:
                fetched = os.path.join(folder, name)
                system.get_file(path, fetched)
                os.replace(fetched, copy)  # whole or not at all, also when several processes fetch it
            for old in storage.glob(f"{name}-*"):
                if old != copy:
                    old.unlink(missing_ok=True)
    except OSError as error:
        # fsspec says "not found" of whatever a web server answers, and of no answer at all
        cause = error.__cause__
        if isinstance(error, FileNotFoundError) and cause and getattr(cause, "status", None) not in (404, 410):
            raise OSError(str(cause)) from error
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    return str(copy)


def _version(system: AbstractFileSystem, path: str) -> str:
    """What changes when a remote file changes."""
    if "http" not in system.protocol:
        return str(system.ukey(path))
    info = system.info(path)  # fsspec's own key of a web page is its URL
    return repr([info.get(key) for key in ("ETag", "Last-Modified", "Content-MD5", "Digest", "size")])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


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
    """The folder for decoded images: the argument, else $HEADWISE_CACHE, else ~/.cache/headwise."""
    return Path(cache_dir or os.environ.get("HEADWISE_CACHE") or Path.home() / ".cache" / "headwise").expanduser()

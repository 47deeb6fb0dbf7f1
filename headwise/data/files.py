"""Bytes from local paths and remote locations (`https://`, `s3://`, `gs://`, …)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from headwise.errors import HeadwiseError

LARGEST_IMAGE = (
    512 * 2**20
)  # bytes of one encoded image: Pillow's limit of 89 million pixels in 16-bit RGB, and no more


def is_remote(location: str) -> bool:
    """Whether this is a URL."""
    return "://" in location


def join(base: str, name: str) -> str:
    """`name` seen from the folder `base`; absolute and remote names stay as they are."""
    if is_remote(name) or os.path.isabs(name):
        return name
    return f"{base.rstrip('/')}/{name}" if is_remote(base) else os.path.join(base, name)


def parent(location: str) -> str:
    """The folder of a file."""
    return location.rsplit("/", 1)[0] if is_remote(location) else (os.path.dirname(location) or ".")


def read_bytes(location: str) -> bytes:
    """The whole of a file that the user named.

    Raises:
        OSError: it cannot be read.
    """
    with open_binary(location) as file:
        return file.read()


def open_binary(location: str) -> BinaryIO:
    """An open file that the user named, local or remote.

    Raises:
        OSError: it cannot be opened.
    """
    if is_remote(location):
        from headwise.data.remote import local_copy

        location = local_copy(location)
    return _open(location)


def read_image(location: str, hosts: frozenset[str] = frozenset()) -> bytes:
    """An encoded image that a source names.

    Arguments:
        hosts: `host:port` that the user typed.

    Raises:
        OSError: it cannot be read, is too large, or is on a private address that nobody allowed.
    """
    if is_remote(location):
        from headwise.data.remote import local_copy

        location = local_copy(location, limit=LARGEST_IMAGE, hosts=hosts)
    with _open(location) as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_IMAGE:
            raise OSError(f"it has {size:,} bytes, an image may have {LARGEST_IMAGE:,}")
        return file.read()


def _open(path: str) -> BinaryIO:
    if os.path.exists(path) and not os.path.isfile(path):
        raise OSError(f"{path} is not a file")  # a device or a pipe may have no end
    return open(path, "rb")


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

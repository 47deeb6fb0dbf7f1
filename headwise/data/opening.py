"""The bytes of files: those that the user named, and images that a source names.

In: a path or a URL; for a source's images also which private hosts are allowed. Out: bytes, or an open file. Whether
a source may name a file at all was decided before, in `images.py`.
"""

from __future__ import annotations

import os
from typing import BinaryIO

from headwise.data.files import is_remote
from headwise.data.remote import local_copy
from headwise.reading import check_regular

# bytes of one encoded image: Pillow's limit of 89 million pixels in 16-bit RGB, and no more
LARGEST_IMAGE = 512 * 2**20


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
        location = local_copy(location, limit=LARGEST_IMAGE, hosts=hosts)
    with _open(location) as file:
        size = os.fstat(file.fileno()).st_size
        if size > LARGEST_IMAGE:
            raise OSError(f"it has {size:,} bytes, an image may have {LARGEST_IMAGE:,}")
        return file.read()


def _open(path: str) -> BinaryIO:
    check_regular(path)
    return open(path, "rb")

"""The names of images in a source → files that it may name.

Whoever wrote a source is not always who runs it: a cell may say `/etc/passwd`, `../../private.png` or
`http://169.254.169.254/`. A source names files in its own folder or in the folder given for its images; it names
remote files only if it is remote itself, or if that was allowed.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from headwise.data.files import is_remote, join
from headwise.data.place import Place
from headwise.data.web import netloc
from headwise.errors import HeadwiseError
from headwise.wording import option

PROTOCOLS = ("https", "http", "s3", "gs", "gcs", "hf")
FILE_URL = re.compile(r"(?:file|local):(?://(?:localhost(?=/))?)?(?=.)", re.IGNORECASE)


@dataclass(frozen=True)
class Images:
    """Where the images of a source are.

    Arguments:
        folder: relative names start here.
        roots: real paths of the folders in which local files must lie; None: anywhere, the names are a program's own.
        protocols: those of remote files that may be named.
        hosts: `host:port` that the user typed, which may have private addresses.
    """

    folder: str = ""
    roots: tuple[str, ...] | None = None
    protocols: frozenset[str] = frozenset()
    hosts: frozenset[str] = frozenset()
    _real: dict[str, str] = field(default_factory=dict, compare=False, repr=False)  # folder → its real path

    def find(self, names: Sequence[str]) -> str:
        """The path or URL of the first of these names that is there; of the first at all where none is.

        Raises:
            HeadwiseError: a name that this source may not use (a reason, without a place).
        """
        first = refused = None
        for name in names:
            try:
                path = self._allowed(name)
            except HeadwiseError as error:
                refused = refused or error
                continue
            if is_remote(path) or len(names) == 1 or os.path.isfile(path):
                return path
            first = first or path
        if refused is not None or first is None:
            raise refused or HeadwiseError("there is no image")
        return first

    def _allowed(self, name: str) -> str:
        name = local_name(name)
        if "\0" in name:
            raise HeadwiseError(f"the image {name!r}: no file can have this name")
        path = join(self.folder, name)
        if not is_remote(path):
            return self._inside(path)
        if is_remote(name):
            self._check_protocol(name)
        elif os.path.isabs(name) or posixpath.normpath(name).startswith(".."):
            raise HeadwiseError(f"the image {name} is outside the folder {self.folder}")
        return path

    def _check_protocol(self, name: str) -> None:
        protocol = name.partition("://")[0].lower()
        chained = "::" in name and protocol not in ("https", "http")  # fsspec would go on to another protocol
        if protocol in self.protocols and not chained:
            return
        if protocol not in PROTOCOLS or chained:
            raise HeadwiseError(f"the image {name}: a remote image must be one of {', '.join(PROTOCOLS)}")
        raise HeadwiseError(
            f"the image {name} is not on this machine, and the source is; allow it to fetch images with "
            f"{option('remote', 'True')}"
        )

    def _inside(self, path: str) -> str:
        if self.roots is None:
            return path
        folder, base = os.path.split(path)
        real = self._real.get(folder)
        if real is None:
            real = self._real[folder] = os.path.realpath(folder)
        full = os.path.join(real, base)
        if base in ("", ".", "..") or os.path.islink(full):
            full = os.path.realpath(full)
        if not any(full.startswith(root.rstrip(os.sep) + os.sep) for root in self.roots):
            where = " or ".join(self.roots) or self.folder
            raise HeadwiseError(
                f"the image {path} is outside the folder {where}; name the folder that holds the images with "
                f"{option('images', 'DIR')}"
            )
        return path


ANYWHERE = Images()


def local_name(name: str) -> str:
    """A `file:` URL as a path; other names stay as they are."""
    return FILE_URL.sub("", name, count=1) if FILE_URL.match(name) else name


def images_of(place: Place, roots: Sequence[str] = ()) -> Images:
    """Where the images of a source may be; `roots`: further folders that its reader vouches for."""
    typed = [where for where in (place.location, place.images or "") if is_remote(where)]
    local = [where for where in (place.own_folder, place.images) if where is not None and not is_remote(where)]
    protocols = {where.partition("://")[0].lower() for where in typed}
    if place.remote or typed:
        protocols.update(PROTOCOLS)
    return Images(
        folder=place.folder,
        roots=tuple(dict.fromkeys(os.path.realpath(where) for where in [*local, *roots])),
        protocols=frozenset(protocols),
        hosts=frozenset(netloc(where) for where in typed if where.lower().startswith("http")),
    )


def images_in_memory(folder: str, remote: bool) -> Images:
    """Of objects in a program's memory: any file, since the program chose it; remote ones if they are allowed."""
    return Images(folder, protocols=frozenset(PROTOCOLS if remote else ()))

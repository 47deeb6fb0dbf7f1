"""Remote files, each copied once into the cache: from the web by `web.py`, from stores through fsspec.

In: a URL, most bytes, hosts that may be private. Out: the path of a local copy, looked at once in a process. What the
file is, and whether a source may name it, is not known here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, lru_cache
from pathlib import Path

from headwise.data.files import cache_folder
from headwise.data.web import download, keep, netloc
from headwise.errors import HeadwiseError
from headwise.hub import reachable
from headwise.staging import scratch, temporary

_STORAGE: ContextVar[Path | None] = ContextVar("storage", default=None)


@contextmanager
def nothing_kept() -> Iterator[Path]:
    """Inside, what is fetched or converted goes into a folder that is removed at the end, not into the cache."""
    with temporary() as folder:
        token = _STORAGE.set(folder)
        try:
            yield folder
        finally:
            _STORAGE.reset(token)


def storage() -> Path | None:
    """The folder of `nothing_kept`; None outside it."""
    return _STORAGE.get()


def local_copy(location: str, *, limit: int | None = None, hosts: frozenset[str] | None = None) -> str:
    """A remote file's copy, fetched unless it is there and unchanged; looked at once in a process.

    Arguments:
        limit: most bytes; None: as many as there are.
        hosts: `host:port` that may have a private address; None: that of the location, which the user typed.

    Raises:
        HeadwiseError: what this kind of location needs is not installed, or there is no such kind.
        OSError: it cannot be fetched; fsspec's back ends each raise their own kinds, all become this one.
    """
    folder = storage() or cache_folder() / "remote"
    web = location.lower().startswith(("http://", "https://"))
    if web and hosts is None:
        hosts = frozenset((netloc(location),))
    return _copy(location, folder, limit, hosts or frozenset(), web)


@lru_cache(maxsize=1 << 20)
def _copy(location: str, folder: Path, limit: int | None, hosts: frozenset[str], web: bool) -> str:
    name = digest(location)
    place = folder / name[:3]  # a folder of a million files is slow to look through
    former = list(place.glob(f"{name}-*"))
    with scratch(folder) as part:
        copy = (
            download(location, place, name, part, limit, hosts)
            if web
            else _from_store(location, place, name, part, limit)
        )
    for old in former:
        if old != copy:
            old.unlink(missing_ok=True)
    return str(copy)


@cache
def _hub() -> bool:
    """Whether the hub answers; asked once, since its client waits half a minute for each file where it does not."""
    return reachable()


def forget() -> None:
    """Look at every remote file anew, as a new process would."""
    _copy.cache_clear()
    _hub.cache_clear()


def _from_store(location: str, folder: Path, name: str, part: Path, limit: int | None) -> Path:
    from fsspec.core import url_to_fs

    try:
        system, path = url_to_fs(location)
    except (ImportError, ValueError) as error:
        raise HeadwiseError(
            f"{location} cannot be opened: {error}. Stores (s3, gs) need: pip install 'headwise[remote]'"
        ) from error
    if system.protocol == "hf" and not _hub():
        raise OSError("the Hugging Face hub does not answer")
    try:
        size = system.size(path)
        if limit is not None and size is not None and size > limit:
            raise OSError(f"it has {size:,} bytes, an image may have {limit:,}")
        copy = folder / f"{name}-{digest(str(system.ukey(path)))}"
        if not copy.exists():
            system.get_file(path, str(part / name))
            keep(part / name, copy)
        return copy
    except OSError:
        raise
    except Exception as error:
        raise OSError(f"{type(error).__name__}: {error}") from error


def digest(text: str) -> str:
    """A file name for any text."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]

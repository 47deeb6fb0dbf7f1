"""cache: what lies in the cache folder, and room made there.

In: perhaps how much may stay. Out: plain JSON values: parts, entries, bytes. All that goes is made or fetched again by
the next run that needs it; what says how often test images were read is no such thing, and stays, as does what chose
this machine's precision.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from headwise.data.files import cache_folder
from headwise.data.shards import INDEX, remove_shard
from headwise.errors import HeadwiseError
from headwise.files import OTHER_CACHE, cannot_write
from headwise.staging import tidy

PARTS = {
    "pixels": "decoded images",
    "checked": "which images decode",
    "texts": "embeddings of captions",
    "remote": "copies of remote files",
    "precision": "how fast this machine multiplies; never pruned",
    "reads": "how often test images were read; never pruned",
}
KEPT = ("precision", "reads")


@dataclass(frozen=True)
class _Entry:
    part: str
    path: Path
    size: int
    used: float


def cache(*, keep: int | None = None, cache_dir: Path | None = None) -> dict:
    """What the cache holds, by part; with `keep`, what was used least recently goes first.

    Arguments:
        keep: most bytes that may stay (0: nothing does); None: nothing is removed.
        cache_dir: by default $HEADWISE_CACHE, else ~/.cache/headwise.

    Returns:
        {folder, parts: [{name, what, entries, bytes, days}], bytes, removed: {entries, bytes}}; `days` since the last use.

    Raises:
        HeadwiseError: a negative size, or a folder that cannot be looked at or written to.
    """
    if keep is not None and keep < 0:
        raise HeadwiseError(f"{keep} bytes cannot stay in the cache; give 0 or more.")
    folder = cache_folder(cache_dir)
    try:
        tidy(folder)
        found = list(_entries(folder))
        gone = _prune(folder, found, keep) if keep is not None else []
    except OSError as error:
        raise cannot_write(folder, error, OTHER_CACHE) from error
    left = [entry for entry in found if entry not in gone]
    return {
        "folder": str(folder),
        "parts": [{"name": name, "what": what, **_sum(left, name)} for name, what in PARTS.items()],
        "bytes": sum(entry.size for entry in left),
        "removed": {"entries": len(gone), "bytes": sum(entry.size for entry in gone)},
    }


def _entries(folder: Path) -> Iterator[_Entry]:
    """Everything that a run would look for, each with its size and when it was last used."""
    for shard in (folder / "pixels").glob(f"*/{INDEX}"):
        size = sum(file.stat().st_size for file in shard.parent.iterdir())
        yield _Entry("pixels", shard.parent, size, shard.stat().st_mtime)
    parts = {"checked": "*", "texts": "*.safetensors", "remote": "*/*", "precision": "*.json", "reads": "*/*.json"}
    for part, pattern in parts.items():
        for path in (folder / part).glob(pattern):
            if path.is_file() and not path.name.startswith("."):
                about = path.stat()
                yield _Entry(part, path, about.st_size, max(about.st_mtime, about.st_atime))


def _prune(folder: Path, found: list[_Entry], keep: int) -> list[_Entry]:
    """Remove until at most so many bytes are left; what was removed."""
    may = sorted((entry for entry in found if entry.part not in KEPT), key=lambda entry: entry.used)
    left, gone = sum(entry.size for entry in found), []
    for entry in may:
        if left <= keep:
            break
        if entry.part == "pixels":
            if not remove_shard(folder / "pixels", entry.path.name):
                continue  # another process has it
        else:
            entry.path.unlink(missing_ok=True)
        gone.append(entry)
        left -= entry.size
    return gone


def _sum(entries: list[_Entry], part: str) -> dict[str, float | int | None]:
    own = [entry for entry in entries if entry.part == part]
    last = max((entry.used for entry in own), default=None)
    return {
        "entries": len(own),
        "bytes": sum(entry.size for entry in own),
        "days": None if last is None else max(0.0, round((time.time() - last) / 86400, 1)),
    }

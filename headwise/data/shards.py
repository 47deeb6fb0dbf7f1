"""One shard of the pixel cache: written under a temporary name, checksummed, renamed; read memory-mapped.

In: up to 1,024 images, the model's preprocessing, a key. Out: pixels (n, 3, R, R), as bytes with the table that turns
them back where that is exact, else float32. Which images make a shard, and its key, is decided in `cache.py`.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock, Timeout
from PIL import Image

from headwise.checked import dump_json, file_checksum, load_json
from headwise.data.decode import decode, pillow_warnings
from headwise.data.pairs import ImageRef
from headwise.data.workers import Progress, each
from headwise.errors import HeadwiseError
from headwise.files import OTHER_CACHE, cannot_write, new_folder

SHARD = 1024  # images: a run that is killed loses at most one shard's work
PROBE = 32  # side of the one-coloured pictures that show what the processor makes of a byte
DATA, INDEX = "pixels", "shard.json"
LARGEST_INDEX = 1 << 20  # bytes: a shape, and at most 768 numbers
Preprocess = Callable[[Image.Image], torch.Tensor]


def reopened(path: str, dtype: str, shape: tuple[int, ...], table: np.ndarray | None) -> Shard:
    """A finished shard, mapped in another process than the one that checked it."""
    return Shard(np.memmap(path, dtype, "r", shape=shape), table)


@dataclass(frozen=True)
class Probe:
    """What a processor does: the shape of its output (3, R, R), and its value for each byte, (3, 256) float32,
    None where a byte cannot be told from its value."""

    shape: tuple[int, ...]
    table: np.ndarray | None


@dataclass(frozen=True)
class Shard:
    """Images (n, 3, R, R), as bytes with their table, or as float32."""

    data: np.ndarray
    table: np.ndarray | None

    def __reduce__(self) -> tuple:
        """Another process maps the same file; pixels of no file go as they are."""
        if isinstance(self.data, np.memmap) and self.data.filename is not None:
            return reopened, (os.path.abspath(self.data.filename), self.data.dtype.str, self.shape, self.table)
        return Shard, (np.asarray(self.data), self.table)

    @property
    def shape(self) -> tuple[int, ...]:
        """(images, 3, height, width)."""
        return self.data.shape

    def read(self, rows: np.ndarray) -> np.ndarray:
        """(b) indices → (b, 3, R, R) float32"""
        return to_values(self.data[rows], self.table)


def probe(preprocess: Preprocess) -> Probe:
    """The processor's answer to 256 one-coloured pictures."""
    answers = [_run(preprocess, Image.new("RGB", (PROBE, PROBE), (b, b, b))) for b in range(256)]
    shape = answers[0].shape
    table = np.stack([a[:, shape[1] // 2, shape[2] // 2] for a in answers], 1)  # (3, 256)
    return Probe(shape, table if (np.diff(table) > 0).all() else None)


def _run(preprocess: Preprocess, image: Image.Image) -> np.ndarray:
    x = preprocess(image).numpy()  # (3, R, R)
    if x.ndim != 3 or x.shape[0] != 3:
        raise HeadwiseError(f"The model's processor gives pixels of shape {x.shape}; (3, height, width) is needed.")
    return np.ascontiguousarray(x, np.float32)


def to_bytes(x: np.ndarray, table: np.ndarray | None) -> np.ndarray | None:
    """Pixels (3, R, R) as bytes, None unless the table gives every value back bit for bit."""
    if table is None:
        return None
    zero, one = table[:, 0, None, None], (table[:, 255] - table[:, 0])[:, None, None] / 255
    data = np.rint((x - zero) / one).clip(0, 255).astype(np.uint8)  # (3, R, R)
    return data if np.array_equal(to_values(data[None], table)[0], x) else None


def to_values(data: np.ndarray, table: np.ndarray | None) -> np.ndarray:
    """(b, 3, R, R) bytes → float32"""
    if table is None:
        return np.asarray(data, np.float32)
    out = np.empty(data.shape, np.float32)
    for channel in range(3):
        out[:, channel] = table[channel][data[:, channel]]
    return out


# ---- reading


def open_shard(folder: Path, key: str, count: int, say: Callable[[str], None]) -> Shard | None:
    """A finished shard, None if there is none. A corrupt one is removed, and that is said."""
    with _lock(folder, key):
        return _open(folder / key, count, say)


def _open(path: Path, count: int, say: Callable[[str], None]) -> Shard | None:
    if not path.exists():
        return None
    try:
        with (path / INDEX).open("rb") as file:
            index = load_json(file.read(LARGEST_INDEX))
        shape, table = tuple(index["shape"]), index["table"]
        dtype = np.dtype({"uint8": np.uint8, "float32": np.float32}[index["dtype"]])
        size = (path / DATA).stat().st_size
        if not all(type(side) is int and side > 0 for side in shape) or len(shape) != 4 or shape[0] != count:
            raise ValueError("shape")
        if size != math.prod(shape) * dtype.itemsize or file_checksum(path / DATA) != index["crc32"]:
            raise ValueError("size or checksum")
        if table is not None:
            table = np.array(table, np.float32)
        if (table is None) != (dtype == np.float32) or (table is not None and table.shape != (3, 256)):
            raise ValueError("table")
        os.utime(path / INDEX)  # the least recently used goes first
        return Shard(np.memmap(path / DATA, dtype, "r", shape=shape), table)
    except (OSError, ValueError, KeyError, TypeError):
        say(f"The decoded images in {path} are corrupt; they are made again.")
        shutil.rmtree(path, ignore_errors=True)
        return None


# ---- writing


def write_shard(
    folder: Path,
    key: str,
    images: Sequence[ImageRef],
    preprocess: Preprocess,
    known: Probe,
    workers: int | None,
    progress: Progress,
    say: Callable[[str], None],
) -> tuple[Shard, bool]:
    """Make a shard, unless another process has made it meanwhile.

    Returns:
        The shard, and whether it was made here.

    Raises:
        HeadwiseError: images that do not decode, or no room to write.
    """
    path = folder / key
    with _lock(folder, key):
        if (shard := _open(path, len(images), say)) is not None:
            return shard, False
        with new_folder(path, advice=OTHER_CACHE) as part:
            index = _write(part / DATA, images, preprocess, known, workers, progress)
            index["crc32"] = file_checksum(part / DATA)
            (part / INDEX).write_bytes(dump_json(index))
        shard = _open(path, len(images), say)
    if shard is None:
        raise HeadwiseError(f"{path}: what was just written cannot be read back. Check this disk.")
    return shard, True


def _write(
    path: Path,
    images: Sequence[ImageRef],
    preprocess: Preprocess,
    known: Probe,
    workers: int | None,
    progress: Progress,
) -> dict:
    """Preprocess and write image after image; the index without its checksum."""

    def prepare(image: ImageRef) -> tuple[np.ndarray, bool] | str:
        try:
            x = _run(preprocess, decode(image.read()))
        except HeadwiseError as error:
            return f"{image.origin}: {error}"
        data = to_bytes(x, known.table)
        return (x, False) if data is None else (data, True)

    table, bad = known.table, []
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # one image per core, not all cores per image
    try:
        with pillow_warnings(), path.open("w+b") as file:
            for i, found in enumerate(each(prepare, images, workers, progress)):
                if isinstance(found, str):
                    bad.append(found)
                    continue
                data, packed = found
                if data.shape != known.shape:
                    raise HeadwiseError(
                        f"{images[i].origin}: the processor gives {data.shape}, not {known.shape} as for others."
                    )
                if table is not None and not packed:
                    _widen(file, (i - len(bad), *known.shape), table)
                    table = None
                file.write((to_values(data[None], known.table) if packed and table is None else data).tobytes())
    finally:
        torch.set_num_threads(threads)
    if bad:
        more = [f"  and {len(bad) - 20:,} more"] if len(bad) > 20 else []
        listed = "\n".join([*(f"  {line}" for line in bad[:20]), *more])
        raise HeadwiseError(f"{len(bad):,} images cannot be decoded:\n{listed}")
    dtype = "float32" if table is None else "uint8"
    return {"shape": [len(images), *known.shape], "dtype": dtype, "table": None if table is None else table.tolist()}


def _widen(file, shape: tuple[int, ...], table: np.ndarray) -> None:
    """Rewrite the bytes so far as float32, last image first so that nothing is overwritten before it is read."""
    size = int(np.prod(shape[1:]))
    for i in reversed(range(shape[0])):
        file.seek(i * size)
        data = np.frombuffer(file.read(size), np.uint8).reshape(1, *shape[1:])
        file.seek(i * size * 4)
        file.write(to_values(data, table).tobytes())
    file.seek(shape[0] * size * 4)


def _lock(folder: Path, key: str) -> FileLock:
    locks = folder / "locks"
    try:
        locks.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error, OTHER_CACHE) from error
    return FileLock(locks / key)


# ---- the bound


def trim(folder: Path, most: int, keep: Collection[str]) -> None:
    """Remove shards until the cache takes at most `most` bytes: least recently used first, never one of `keep`,
    never one that another process is opening."""
    found = []
    for path in folder.iterdir():
        with suppress(OSError):  # no shard, or another process removes it at this moment
            used = (path / INDEX).stat().st_mtime_ns
            found.append((used, path, sum(file.stat().st_size for file in path.iterdir())))
    total = sum(size for _, _, size in found)
    for _, path, size in sorted(found):
        if total <= most:
            return
        if path.name not in keep and remove_shard(folder, path.name):
            total -= size


def remove_shard(folder: Path, key: str) -> bool:
    """Remove a shard; False where another process is opening it."""
    try:
        with _lock(folder, key).acquire(timeout=0):
            shutil.rmtree(folder / key, ignore_errors=True)
            return True
    except Timeout:
        return False

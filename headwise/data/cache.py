"""Pixels as the model takes them, computed once, on disk, memory-mapped.

A shard holds up to 1,024 images. It is named by its content: what the preprocessing makes of the probe pictures
(`towers/probes.py`) and the images' hashes. So a
finished shard is found again by any later run, whatever happened in between; an unfinished one has another
name and is thrown away. Where every value of a shard is exactly what the processor makes of some byte, the
bytes are kept, with the 3 × 256 table that turns them back, bit for bit.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from headwise.data import decode
from headwise.data.ahead import Ahead
from headwise.data.files import cache_folder
from headwise.data.pairs import ImageRef, Pairs
from headwise.data.shards import SHARD, Probe, Shard, open_shard, probe, trim, write_shard
from headwise.data.workers import Progress
from headwise.errors import HeadwiseError
from headwise.towers.base import Model
from headwise.towers.probes import pixels_key

FORMAT = 2


@dataclass(frozen=True)
class PixelCache:
    """Preprocessed images; a slice gives float32 (B, 3, R, R), exactly what `model.preprocess` gave.

    Arguments:
        shards: in order, each but the last with 1,024 images.
        rows: the images to show, indices into the shards laid end to end.
        made: counts what was decoded for this.
    """

    shards: Sequence[Shard]
    rows: np.ndarray
    made: _Counter

    @property
    def decoded(self) -> int:
        """How many images had to be decoded for this, so far; the others were in the cache."""
        return self.made.decoded

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        """(3, R, R)"""
        return self.shards[0].shape[1:]

    def __getitem__(self, index: slice) -> torch.Tensor:
        rows = self.rows[index]
        out = np.empty((len(rows), *self.shape), np.float32)  # (B, 3, R, R)
        for number in np.unique(rows // SHARD):
            here = rows // SHARD == number
            out[here] = self.shards[number].read(rows[here] % SHARD)
        return torch.from_numpy(out)

    def shared(self) -> PixelCache:
        """For another process: paths and rows alone, once all images are decoded."""
        return PixelCache(tuple(self.shards), self.rows, _Counter(None, len(self)))

    def take(self, indices: Sequence[int]) -> PixelCache:
        """These images only, in this order; nothing is copied."""
        return PixelCache(self.shards, self.rows[np.asarray(indices, dtype=np.int64)], self.made)


def pixels(
    pairs: Pairs,
    model: Model,
    *,
    cache_dir: str | os.PathLike | None = None,
    cache_size: int | None = None,
    workers: int | None = None,
    ahead: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> PixelCache:
    """Every image decoded and preprocessed by the model's own processor; read from the cache where it is there.

    Arguments:
        pairs: the images.
        model: its `preprocess` is used.
        cache_dir: by default $HEADWISE_CACHE or ~/.cache/headwise.
        cache_size: most bytes that the cache may take; what was used least recently goes first. None:
            $HEADWISE_CACHE_SIZE (such as 20GB), or no bound.
        workers: threads; one per core by default.
        ahead: return at once and decode in the background, ahead of who reads; what goes wrong is raised there.
        progress: called with (done, total) images.
        say: gets a sentence when a corrupt shard is rebuilt; by default it goes to stderr.

    Raises:
        HeadwiseError: an image that does not decode or has changed, a processor that gives different shapes, the
            disk is full, or the images do not fit into `cache_size`.
    """
    if not len(pairs):
        raise HeadwiseError(f"{pairs.name} has no images.")
    if cache_size is None and (said := os.environ.get("HEADWISE_CACHE_SIZE")):
        cache_size = parse_size(said)
    folder = cache_folder(cache_dir) / "pixels"
    say = say or (lambda text: print(text, file=sys.stderr))
    spec = json.dumps([FORMAT, decode.VERSION, pixels_key(model.preprocess)])
    groups = [pairs.images[i : i + SHARD] for i in range(0, len(pairs), SHARD)]
    keys = [shard_key(spec, group) for group in groups]
    made = _Counter(progress, len(pairs))
    shards: list[Shard | None] = []
    for key, group in zip(keys, groups, strict=True):
        shards.append(open_shard(folder, key, len(group), say))
        made.found += 0 if shards[-1] is None else len(group)
    made.tell()

    def finish(found: Sequence[Shard]) -> None:
        if len({shard.shape[1:] for shard in found}) > 1:
            raise HeadwiseError(f"{model.name}: its processor gives pictures of different sizes; one size is needed.")
        if cache_size is not None:
            used = sum(shard.data.nbytes for shard in dict(zip(keys, found, strict=True)).values())
            if used > cache_size:
                raise _too_small(len(pairs), used, cache_size)
            trim(folder, cache_size, keep=set(keys))

    found: Sequence[Shard] = [shard for shard in shards if shard is not None]
    if len(found) == len(shards):
        finish(found)
    else:
        known = probe(model.preprocess)
        _check_room(folder, len(pairs), len(pairs) - made.found, known, cache_size)

        def make(number: int) -> Shard:
            shard, fresh = write_shard(
                folder, keys[number], groups[number], model.preprocess, known, workers, made.step, say
            )
            made.finish(len(groups[number]), fresh)
            return shard

        if ahead:
            say(f"{len(pairs) - made.found:,} images are decoded in the background, ahead of the model.")
            found = Ahead(shards, make, finish)
        else:
            found = [make(number) if shard is None else shard for number, shard in enumerate(shards)]
            finish(found)
    return PixelCache(found, np.arange(len(pairs)), made)


@dataclass
class _Counter:
    """Images that are ready: found in the cache, decoded, or made by another process meanwhile."""

    progress: Progress | None
    total: int
    found: int = 0
    decoded: int = 0

    def step(self, count: int, _total: int) -> None:
        """So many images of the present shard are decoded."""
        self.tell(count)

    def finish(self, count: int, fresh: bool) -> None:
        self.decoded += count if fresh else 0
        self.found += 0 if fresh else count
        self.tell()

    def tell(self, more: int = 0) -> None:
        if self.progress:
            self.progress(self.found + self.decoded + more, self.total)


def parse_size(text: str) -> int:
    """`20GB`, `500 MB`, `1.5TiB` or a plain number → bytes; GB are 10⁹ bytes, GiB 2³⁰.

    Raises:
        HeadwiseError: none of these, or less than one byte.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)b?|b)?", text.strip().lower(), re.ASCII)
    power = " kmgt".index(found[2] or " ") if found else 0
    size = int(float(found[1]) * (1024 if found[3] else 1000) ** power) if found and len(found[1]) <= 30 else 0
    if size < 1:
        raise HeadwiseError(
            f"{text[:60]!r} is not a cache size. Give a number with a unit, such as 20GB, 500MB or 1.5TiB."
        )
    return size


def _check_room(folder: Path, images: int, missing: int, known: Probe, cache_size: int | None) -> None:
    """Refuse before the work starts what could not be kept."""
    each_takes = math.prod(known.shape) * (4 if known.table is None else 1)
    if cache_size is not None and images * each_takes > cache_size:
        raise _too_small(images, images * each_takes, cache_size)
    free = shutil.disk_usage(folder).free
    if missing * each_takes > free:
        raise HeadwiseError(
            f"Up to {missing * each_takes / 1e9:.1f} GB of decoded images would go to {folder}, which has "
            f"{free / 1e9:.1f} GB free. Free some space, or set HEADWISE_CACHE to another folder."
        )


def _too_small(images: int, needed: int, cache_size: int) -> HeadwiseError:
    return HeadwiseError(
        f"{images:,} decoded images take {needed / 1e9:.3g} GB, more than the cache size of {cache_size / 1e9:.3g} GB. "
        "Raise it (--cache-size)."
    )


def shard_key(spec: str, images: Sequence[ImageRef]) -> str:
    """The name of a shard: what the preprocessing does, and the hashes of its images in order."""
    digest = hashlib.sha256(spec.encode())
    for image in images:
        digest.update(image.hash.encode())
    return digest.hexdigest()[:32]

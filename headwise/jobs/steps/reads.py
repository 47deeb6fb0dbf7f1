"""How often test images were read with a model: remembered in the cache, whatever folder a run writes to."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from headwise.data.files import cache_folder
from headwise.edits.mask import Mask
from headwise.files import write_files
from headwise.jobs.steps.bench import Bench


def remember_reads(bench: Bench, split: str, masks: Sequence[Mask]) -> int:
    """Note that these masks' scores on a split were shown; how many different masks' were, by any run on this cache.

    A file for every mask, so that runs side by side lose nothing. The model is known by its weights, the images by
    their bytes, in any order.

    Raises:
        HeadwiseError: the cache cannot be written.
    """
    digest = hashlib.sha256(bench.model.tower.weights_hash.encode())
    for image in sorted(bench.pairs.images[i].hash for i in bench.indices(split)):
        digest.update(image.encode())
    folder = cache_folder(bench.cache_dir) / "reads" / digest.hexdigest()[:32]
    for mask in masks:
        name = f"{mask.bare().key}.txt"
        if not (folder / name).exists():
            write_files(folder, {name: f"{mask}\n"})
    return sum(1 for _ in folder.glob("*.txt")) if folder.is_dir() else 0

"""How often test images were read with a model: remembered in the cache, whatever folder a run writes to.

In: a bench, a split, masks whose scores are shown. Out: how many different masks' had been by then. Other machines
and other caches are not known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

from headwise.checked import dump_json, load_json
from headwise.data.files import cache_folder
from headwise.edits.mask import Mask
from headwise.files import OTHER_CACHE, write_files
from headwise.jobs.steps.bench import Bench


def remember_reads(bench: Bench, split: str, masks: Sequence[Mask], beside: str = "") -> int:
    """Note that these masks' scores on a split were shown; how many different masks' had been by then, on this cache.

    A mask that was read before keeps its number, whatever was read since: the same run again says the same. There is a
    file for every mask, so that runs side by side lose nothing. The model is known by its weights, the images by their
    bytes, in any order.

    Arguments:
        beside: the key of trained weights that were shown together with each of the masks.

    Returns:
        The largest number among the masks; 0 without any but the unchanged model.

    Raises:
        HeadwiseError: the cache cannot be written.
    """
    digest = hashlib.sha256(bench.model.tower.weights_hash.encode())
    for image in sorted(bench.pairs.images[i].hash for i in bench.indices(split)):
        digest.update(image.encode())
    folder = cache_folder(bench.cache_dir) / "reads" / digest.hexdigest()[:32]
    numbers = [0]
    for mask in masks:
        if mask.is_identity and not beside:  # nothing was chosen by looking at it
            continue
        path = folder / f"{mask.bare().key}{beside}.json"
        number = _number(path, bench.reporter.say)
        if number is None:
            number = 1 + sum(1 for other in folder.glob("*.json") if other != path)
            write_files(folder, {path.name: dump_json([number, str(mask)])}, advice=OTHER_CACHE)
        numbers.append(number)
    return max(numbers)


def _number(path: Path, say: Callable[[str], None]) -> int | None:
    """What a former read wrote; None where there is none, or it is damaged, which is said."""
    try:
        number, _ = load_json(path.read_bytes())
        return int(number)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError):
        say(f"The note in {path} that a mask was read on the test split is damaged; it is made again, as the last one.")
        return None

"""What an explanation in a run's folder adds to its page: a card for every head, and their pictures.

In: the folder of a run, its results, its pairs. Out: cards and thumbnails, or why there are none. Nothing is computed:
an explanation of another model or of other data is said and left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headwise.checked import MISSHAPEN, array_checksum, read_results
from headwise.data.decode import pillow_warnings
from headwise.data.pairs import Pairs
from headwise.errors import HeadwiseError
from headwise.reports.gallery import thumbnail
from headwise.reports.head_cards import NONE, Heads, head_cards, pictures_of

FOLDER = "explanation"  # where `refine --explain` writes; `explain` may have been given the run's own folder
JSON_FILE = "explanation.json"
SIDE = 80  # pixels of a card's thumbnails
AGAIN = "Run headwise explain again, into the folder explanation/ of this run."


def explained_heads(folder: Path, results: Mapping[str, Any], pairs: Pairs | None) -> Heads:
    """The cards of a run whose folder holds an explanation; none, and nothing to say, where it holds none.

    Arguments:
        folder: of the run.
        results: of the run.
        pairs: its images; None: they cannot be read any more, so there are no thumbnails.
    """
    path = explanation_in(folder)
    if path is None:
        return NONE
    try:
        found = read_results(path)
        if (found["model"]["weights_hash"], found["data"]["hash"]) != (
            results["model"]["weights_hash"],
            results["data"]["hash"],
        ):
            return Heads(
                why=f"{path.name} is of another model or of other pairs than this run; it was left out. {AGAIN}"
            )
        maps, no_maps = _attention(path, found)
        cards = head_cards(found, maps)
        wanted = pictures_of(cards, results["chosen"]["heads"])
    except (OSError, *MISSHAPEN) as error:
        return Heads(why=f"{path.name} cannot be read ({error}); it was left out. {AGAIN}")
    if pairs is None:
        return Heads(cards, why=f"The pictures of the heads' cards cannot be read any more. {no_maps}".strip())
    pictures, missing = _pictures(pairs, wanted)
    why = f"{missing:,} pictures of the heads' cards cannot be read any more." if missing else ""
    return Heads(cards, pictures, f"{no_maps} {why}".strip())


def explanation_in(folder: Path) -> Path | None:
    """The explanation that belongs to a folder; None where there is none."""
    return next((path for path in (folder / FOLDER / JSON_FILE, folder / JSON_FILE) if path.is_file()), None)


def _pictures(pairs: Pairs, names: list[str]) -> tuple[dict[str, str], int]:
    """Thumbnails by name, and how many could not be made."""
    places = {name: i for i, name in enumerate(pairs.ids)}
    found: dict[str, str] = {}
    with pillow_warnings():
        for name in names:
            if name in places:
                try:
                    found[name] = thumbnail(pairs.images[places[name]], SIDE)
                except HeadwiseError:
                    continue
    return found, len(names) - len(found)


def _attention(path: Path, found: Mapping[str, Any]) -> tuple[np.ndarray | None, str]:
    """Maps of attention (heads, pictures, side, side); None where there are none or their file is gone, and where it is
    damaged, which is said."""
    from safetensors import SafetensorError, safe_open

    arrays = path.with_name(str(found["arrays"]["file"]))
    if "attention" not in found["arrays"] or arrays.parent != path.parent or not arrays.is_file():
        return None, ""
    damaged = f"The maps of attention in {arrays.name} are damaged; they were left out. {AGAIN}"
    try:
        with safe_open(arrays, framework="numpy") as file:
            maps = file.get_tensor("attention")
    except (OSError, SafetensorError):
        return None, damaged
    fits = maps.ndim == 4 and len(maps) == len(found["heads"]) and list(maps.shape) == found["arrays"]["attention"]
    intact = found["arrays"].get("crc32") in (None, array_checksum(maps))  # an older version wrote none
    return (maps, "") if fits and intact else (None, damaged)

"""Data sets of the Hugging Face hub, and folders that `save_to_disk` wrote.

In: a hub id or a folder. Out: records of all wanted splits, each with the split's name. `datasets` finds and fetches;
what its cells mean is known in `arrow.py` and further on.
"""

from __future__ import annotations

import os
from collections import ChainMap
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from headwise.data.columns import SPLIT
from headwise.data.place import Place
from headwise.data.readers.arrow import dataset_records, quiet_datasets, root_cause
from headwise.data.records import Record, Records
from headwise.data.remote import storage
from headwise.errors import HeadwiseError
from headwise.hub import offline_unless_reachable


def is_saved(folder: str) -> bool:
    """Whether a folder was saved by `datasets`."""
    return any((Path(folder) / name).is_file() for name in ("dataset_dict.json", "state.json"))


def read_hub(place: Place) -> Records:
    """A data set by its hub id (or a local folder of the same layout), from the local cache when offline.

    Raises:
        HeadwiseError: it cannot be had, an unknown split, or a missing column.
    """
    from datasets import load_dataset

    kept = storage() if os.path.isdir(place.location) else None  # what the hub gives belongs into its own cache
    cache = None if kept is None else str(kept)
    load = partial(load_dataset, place.location, place.config, cache_dir=cache)
    if os.path.isdir(place.location):
        return _read(place, load, "the folder", _caches())
    with offline_unless_reachable() as answers:
        where = "the Hugging Face hub" if answers else "the local cache (the hub does not answer)"
        return _read(place, load, where, _caches())


def read_saved(place: Place) -> Records:
    """A folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    from datasets import load_from_disk

    return _read(place, lambda: load_from_disk(place.location), "the folder")


def _read(place: Place, load, where: str, roots: tuple[str, ...] = ()) -> Records:
    with quiet_datasets():
        try:
            found: Any = load()
        except Exception as error:  # datasets, pyarrow, httpx and huggingface_hub raise many kinds
            raise HeadwiseError(
                f"{place.name}: the data set cannot be read from {where}: {root_cause(error)}. "
                "Check the name; a private one needs `hf auth login`, a data set with a script of its own is not "
                "supported."
            ) from error
    if not isinstance(found, Mapping):
        return replace(dataset_records(found, place.name), roots=roots)
    parts = {split: dataset_records(part, f"{place.name} {split}") for split, part in _parts(place, found).items()}
    first = next(iter(parts.values()))
    if any(part.class_names != first.class_names for part in parts.values()):
        raise HeadwiseError(f"{place.name}: its splits have different classes. Give one of them with ?split=.")
    # a column of the data set that names the split is more exact than the part it is in
    own = any(column.lower() in SPLIT for column in first.columns)

    def records() -> Iterator[Record]:
        for split, part in parts.items():
            for record in part.records:
                yield record if own else replace(record, cells=ChainMap({SPLIT[0]: split}, record.cells))  # type: ignore

    columns = first.columns if own else (*first.columns, SPLIT[0])
    return Records(place.name, columns, records(), first.class_names, roots)


def _parts(place: Place, found: Mapping) -> dict[str, Any]:
    """The wanted parts; all of them where the names are those of a column, which is looked at later."""
    wanted = [name for name in place.split if name in found]
    return {name: found[name] for name in wanted or found}


def _caches() -> tuple[str, ...]:
    """Where `datasets` keeps what it fetched: pictures that a data set holds as files lie there."""
    from datasets import config
    from huggingface_hub import constants

    return (
        str(config.HF_DATASETS_CACHE),
        str(config.DOWNLOADED_DATASETS_PATH),
        constants.HF_HUB_CACHE,
    )

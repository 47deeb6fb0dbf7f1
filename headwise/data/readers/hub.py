"""Data sets of the Hugging Face hub, and folders that `save_to_disk` wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwise.data.place import Place
from headwise.data.readers.arrow import dataset_table, quiet_datasets, root_cause
from headwise.data.rows import Row, Table
from headwise.errors import HeadwiseError


def is_saved(folder: str) -> bool:
    """Whether a folder was saved by `datasets`."""
    return any((Path(folder) / name).is_file() for name in ("dataset_dict.json", "state.json"))


def read_hub(place: Place) -> Table:
    """A data set by its hub id (or a local folder of the same layout), from the local cache when offline.

    Raises:
        HeadwiseError: it cannot be had, an unknown split, or a missing column.
    """
    from datasets import load_dataset

    return _read(place, lambda: load_dataset(place.location, place.config), "the Hugging Face hub")


def read_saved(place: Place) -> Table:
    """A folder that `Dataset.save_to_disk` or `DatasetDict.save_to_disk` wrote."""
    from datasets import load_from_disk

    return _read(place, lambda: load_from_disk(place.location), "the folder")


def _read(place: Place, load, where: str) -> Table:
    with quiet_datasets():
        try:
            found: Any = load()
        except Exception as error:  # datasets, pyarrow, httpx and huggingface_hub raise many kinds
            raise HeadwiseError(
                f"{place.name}: the data set cannot be read from {where}: {root_cause(error)}. "
                "Check the name; a private one needs `hf auth login`, a data set with a script of its own is not "
                "supported."
            ) from None
    if not isinstance(found, Mapping):
        return dataset_table(found, place.name, place.wanted)
    parts = _parts(place, found)
    tables = {split: dataset_table(part, f"{place.name} {split}", place.wanted) for split, part in parts.items()}
    first = next(iter(tables.values()))
    if len({table.class_names for table in tables.values()}) > 1:
        raise HeadwiseError(f"{place.name}: its splits have different classes. Give one of them with ?split=.")

    def rows() -> Iterator[Row]:
        for split, table in tables.items():
            for row in table.rows:
                # a column of the data set that names the split is more exact than the part it is in
                yield replace(row, split=row.split or split, id=row.id if len(tables) == 1 else f"{split} {row.id}")

    return replace(first, name=place.name, rows=rows())


def _parts(place: Place, found: Mapping) -> dict[str, Any]:
    """The wanted parts; all of them where the names are those of a column, which is looked at later."""
    wanted = [name for name in place.split if name in found]
    return {name: found[name] for name in wanted or found}

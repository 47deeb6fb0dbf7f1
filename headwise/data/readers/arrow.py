"""Parquet files and `datasets` data sets → records.

Images are never decoded by `datasets`: the encoded bytes are what is hashed, and decoding is ours.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from headwise.data.files import is_remote, require_file
from headwise.data.records import Record, Records
from headwise.data.remote import local_copy, storage
from headwise.errors import HeadwiseError

if TYPE_CHECKING:
    from datasets import Dataset


def read_parquet(location: str) -> Records:
    """A Parquet file whose image column holds bytes, `{"bytes", "path"}` records, or paths.

    Raises:
        HeadwiseError: no such file, or not Parquet.
    """
    from datasets import Dataset

    require_file(location, "a Parquet file")
    kept = storage()
    with quiet_datasets():
        try:
            path = local_copy(location) if is_remote(location) else location
            dataset = Dataset.from_parquet(path, cache_dir=None if kept is None else str(kept))  # type: ignore
        except HeadwiseError:
            raise
        except Exception as error:  # pyarrow and datasets raise many kinds
            raise HeadwiseError(f"{location}: not a readable Parquet file ({root_cause(error)})") from error
    return dataset_records(dataset, location)  # type: ignore


def dataset_records(dataset: Dataset, name: str) -> Records:
    """The records of one split of a `datasets` data set."""
    from datasets import ClassLabel, Image

    if dataset.format["type"] != "custom":
        dataset = dataset.with_format(None)  # numbers and texts as Python has them
    for column, feature in dataset.features.items():
        if isinstance(feature, Image):
            dataset = dataset.cast_column(column, Image(decode=False))
    columns = {column: dataset.select_columns([column]) for column in dataset.column_names}
    classes = {c: tuple(f.names) for c, f in dataset.features.items() if isinstance(f, ClassLabel)}
    records = (Record(f"{name} row {i}", _Cells(columns, i)) for i in range(len(dataset)))
    return Records(name, tuple(columns), records, classes)


@dataclass(frozen=True)
class _Cells(Mapping[str, object]):
    """The cells of one row, each looked up in its column when it is asked for."""

    columns: Mapping[str, Any]
    index: int

    def __getitem__(self, name: str) -> object:
        return self.columns[name][self.index][name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        return len(self.columns)


@contextmanager
def quiet_datasets() -> Iterator[None]:
    """No progress bars and log lines of `datasets` inside; errors are still raised."""
    import datasets

    shown, level = datasets.is_progress_bar_enabled(), datasets.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.logging.set_verbosity(level)
        if shown:
            datasets.enable_progress_bars()


def root_cause(error: BaseException) -> str:
    """The first line of what started it."""
    while error.__cause__ is not None:
        error = error.__cause__
    return next(iter(str(error).strip().splitlines()), "") or type(error).__name__

"""Shards that are made in the background, in order, while the first of them are read.

In: the shards that exist, and how to make one. Out: a sequence; asking for a shard waits until it is there, or raises
what went wrong. It does not know what a shard holds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future

from headwise.data.shards import Shard


class Ahead(Sequence[Shard]):
    """Asking for a shard waits until it is there.

    Whatever goes wrong in the background is raised by the next shard that is asked for, made already or not: a bad
    picture at the end is no surprise after hours. The thread ends with the program.

    Arguments:
        shards: those that exist; None where one has to be made.
        make: makes the shard of this number.
        finish: called with all shards after the last one.
    """

    def __init__(
        self, shards: Sequence[Shard | None], make: Callable[[int], Shard], finish: Callable[[Sequence[Shard]], None]
    ):
        self._futures: list[Future[Shard]] = [Future() for _ in shards]
        self._error: BaseException | None = None
        for future, shard in zip(self._futures, shards, strict=True):
            if shard is not None:
                future.set_result(shard)
        threading.Thread(target=self._run, args=(make, finish), name="headwise-decoding", daemon=True).start()

    def _run(self, make: Callable[[int], Shard], finish: Callable[[Sequence[Shard]], None]) -> None:
        try:
            for number, future in enumerate(self._futures):
                if not future.done():
                    future.set_result(make(number))
            finish([future.result() for future in self._futures])
        except BaseException as error:  # every kind belongs to whoever waits
            self._error = error
            for future in self._futures:
                if not future.done():
                    future.set_exception(error)

    def __len__(self) -> int:
        return len(self._futures)

    def __getitem__(self, number: int) -> Shard:  # type: ignore[override]
        if self._error is not None:
            raise self._error
        return self._futures[number].result()

    def __iter__(self) -> Iterator[Shard]:
        return (self[number] for number in range(len(self)))

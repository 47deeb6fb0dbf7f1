"""One function over many items on all cores, in order, with bounded memory.

In: a function, a sequence of items. Out: its results in the items' order. Threads, not processes: it is meant for
work that releases the interpreter lock.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]  # (done, total)

BATCH = 8  # items per job: a job is long enough to hide the cost of handing it over


def each(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    workers: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Result]:
    """`map(function, items)` on threads. Decoding, resizing and hashing release the interpreter lock, and
    threads need neither a picklable model nor a second import of torch.

    Arguments:
        workers: how many threads; by default one per usable core.
        progress: called with (done, total) after every batch.
    """
    count = workers or usable_cores()
    total, done = len(items), 0
    starts = iter(range(0, total, BATCH))

    def batch(start: int) -> list[Result]:
        return [function(item) for item in items[start : start + BATCH]]

    if count == 1:
        for item in items:
            yield function(item)
            done += 1
            if progress and (done % BATCH == 0 or done == total):
                progress(done, total)
        return
    with ThreadPoolExecutor(count, thread_name_prefix="headwise") as pool:
        waiting = deque(pool.submit(copy_context().run, batch, start) for start in islice(starts, 4 * count))
        try:
            while waiting:
                results = waiting.popleft().result()
                if (start := next(starts, None)) is not None:
                    waiting.append(pool.submit(copy_context().run, batch, start))
                yield from results
                done += len(results)
                if progress:
                    progress(done, total)
        finally:
            for job in waiting:
                job.cancel()


def usable_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

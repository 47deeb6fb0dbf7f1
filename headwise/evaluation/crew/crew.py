"""What workers do for a run: an evaluator's sets of masks, or one function of many arguments.

In: an evaluator and its sets of masks. Out: their scores, set after set, as one process would give them: only the driver
writes the study, in the order of the sets, so that its bytes do not depend on the workers. Who gets what, and who fails, is
the matter of `team.py`.
"""

from __future__ import annotations

import hashlib
import pickle
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from headwise.edits.mask import Mask
from headwise.evaluation.crew.team import Order, Team
from headwise.evaluation.crew.work import Call, Job, Task, read_embeddings
from headwise.evaluation.engine import ffe, for_others
from headwise.evaluation.evaluator import Evaluator
from headwise.files import OTHER_CACHE, write_files
from headwise.scoring.objectives import Score
from headwise.towers.base import Tower

SHARES = (
    4  # parts of a set's images for each worker, at most: chunks are few and of unequal size, and parts cost little
)
Scored = list[tuple[Mask, Score]]


@dataclass
class _Set:
    """A set of masks while it is worked on."""

    masks: list[Mask]
    waiting: int = 0  # tasks that are not done
    file: Path | None = None  # its embeddings
    scores: dict[int, Score] = field(default_factory=dict)


class Crew(Team):
    """Workers that run an evaluator's sets (see `Evaluator.launcher`), or calls; made as a `Team` is."""

    _files = 0
    _last: tuple[tuple, tuple[str, str]] | None = None  # what was shared last, and its file

    def __call__(self, evaluate: Evaluator, sets: Sequence[list[Mask]]) -> Iterator[Scored]:
        """Scores of every set, in the order of the sets; `evaluate.observe` is called in that order, too.

        Raises:
            HeadwiseError: a task that failed three times, with the reason of the last; no room in the work folder.
        """
        if not sets:
            return
        open_sets = {number: _Set(masks) for number, masks in enumerate(sets)}
        queue, turn = deque(self._orders(evaluate, open_sets)), 0

        def done(order: Order, scores: Any) -> None:
            self._done(order, scores, open_sets[order.number], queue)
            if evaluate.progress and order.cost:
                evaluate.progress(order.cost)

        working = self.work(queue, done)
        try:
            while turn < len(sets):
                next(working)
                while turn in open_sets and not open_sets[turn].waiting:
                    yield self._finished(evaluate, open_sets.pop(turn))
                    turn += 1
        finally:
            working.close()
            for one in open_sets.values():
                _remove(one)

    def call(self, function: Callable[[Tower, Any], object], arguments: Sequence[object]) -> list[object]:
        """A function of the tower, in float32, and of each argument; results in the order of the arguments.

        Argument i of n goes to the same worker each time, so that what the function keeps in itself is there at the
        next call; where that worker failed, to another, which has kept nothing.

        Arguments:
            function: pickled once; each worker has its own copy as long as it lives.

        Raises:
            HeadwiseError: an argument that failed three times, with the reason of the last.
        """
        path, digest = self._shared((function,), lambda: function)
        places = [i * self.count // len(arguments) for i in range(len(arguments))]
        queue = deque(
            Order(i, Call(path, digest, argument), "Part of a batch", place=place)
            for i, (argument, place) in enumerate(zip(arguments, places, strict=True))
        )
        found: dict[int, object] = {}

        def done(order: Order, result: object) -> None:
            found[order.number] = result

        working = self.work(queue, done)
        try:
            while len(found) < len(arguments):
                next(working)
        finally:
            working.close()
        return [found[i] for i in range(len(arguments))]

    def _orders(self, evaluate: Evaluator, sets: dict[int, _Set]) -> Iterator[Order]:
        """Whole sets as long as there are plenty, which costs the least traffic; the last ones by images, so that all
        workers finish together. Sets that are observed leave their embeddings in files."""
        pixels, objective, means, layout = (
            parts := (evaluate.pixels, evaluate.objective, evaluate.means, evaluate.layout)
        )
        job, digest = self._shared(parts, lambda: Job(for_others(pixels), objective, means, layout))
        total, chunk = len(pixels), layout.chunk
        edges = _cut(-(-total // chunk), SHARES * self.count)
        for number, one in sets.items():
            cost, masks, what = ffe(evaluate.tower, one.masks), tuple(one.masks), f"A set of {len(one.masks)} masks"
            parted = number >= len(sets) - 2 * self.count and len(edges) > 2
            if not parted and not evaluate.observe:
                one.waiting = 1
                yield Order(number, Task(job, digest, masks), what, cost)
                continue
            self._files += 1
            one.file = self.folder / f"{self._files}.embeddings"
            one.file.touch()
            one.waiting = len(edges) - 1
            for a, b in pairwise(edges):
                first, last = a * chunk, min(b * chunk, total)
                task = Task(job, digest, masks, first, last, str(one.file))
                yield Order(number, task, what, cost * (last - first) / total)

    def _done(self, order: Order, scores: list[Score], one: _Set, queue: deque[Order]) -> None:
        task = order.task
        assert isinstance(task, Task)
        one.waiting -= 1
        for i, score in enumerate(scores):
            one.scores[(task.first if task.score else 0) + i] = score
        if one.file and not task.score and not one.waiting:  # all embeddings are in the file
            edges = _cut(len(one.masks), self.count)
            one.waiting = len(edges) - 1
            rest = [replace(task, first=a, last=b, score=True) for a, b in pairwise(edges)]
            queue.extendleft(reversed([replace(order, task=task, cost=0.0, tries=0) for task in rest]))

    def _finished(self, evaluate: Evaluator, one: _Set) -> Scored:
        design = getattr(evaluate.objective, "design", None)
        if evaluate.observe and one.file:
            count = len(one.masks)
            found = read_embeddings(str(one.file), count, len(evaluate.pixels), 0, count)
            for mask, embeddings in zip(one.masks, found, strict=True):
                evaluate.observe(mask, embeddings)
        _remove(one)
        return [(mask, replace(one.scores[i], design=design)) for i, mask in enumerate(one.masks)]

    def _shared(self, parts: tuple, make: Callable[[], object]) -> tuple[str, str]:
        """The file of what tasks share, written where it is not there yet, and its SHA-256.

        Arguments:
            parts: the same objects as the last time mean the same file.
            make: what is pickled.
        """
        if self._last and len(parts) == len(self._last[0]) and all(map(_same, parts, self._last[0])):
            return self._last[1]
        content = pickle.dumps(make())
        digest = hashlib.sha256(content).hexdigest()
        path = self.folder / f"{digest}.job"
        if not path.exists():
            write_files(self.folder, {path.name: content}, advice=OTHER_CACHE)
        self._last = (parts, (str(path), digest))
        return self._last[1]


def _same(a: object, b: object) -> bool:
    return a is b


def _cut(length: int, parts: int) -> list[int]:
    """Edges of at most so many parts of about equal length."""
    return sorted({round(edge) for edge in np.linspace(0, length, min(parts, length) + 1)})


def _remove(one: _Set) -> None:
    if one.file:
        with suppress(OSError):
            one.file.unlink()

"""Where the time of a run goes: seconds and FFE of each part, and a trace that Perfetto and Chrome open.

In: the tower, the objective and the study of a run, and its stages. Out: the same things, which note when they begin and end; a
table; a trace in the Trace Event Format. Timed things compute what they computed before, bit for bit.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from pathlib import Path
from typing import Any

import torch

from headwise.evaluation.study import Study
from headwise.files import write_files
from headwise.towers.base import Tower

MOST = 200_000  # events of a trace; sums go on
LANES = {"stage": 1, "tower": 2, "objective": 3, "store": 4}  # rows of the trace


@dataclass
class Part:
    """Sums of one part.

    Arguments:
        kind: `stage`, `tower`, `objective` or `store`; stages contain the others.
        seconds, calls: so far.
        passes: passes of the whole tower over one image that its multiply-adds make.
    """

    kind: str
    seconds: float = 0.0
    calls: int = 0
    passes: float = 0.0


@dataclass
class Profile:
    """Collects what timed things note.

    Arguments:
        images: of the search split; one FFE is a pass over them.
    """

    images: int = 0
    parts: dict[str, Part] = field(default_factory=dict)
    _events: list[tuple[str, str, float, float]] = field(default_factory=list)
    _began: float = field(default_factory=time.perf_counter)

    @contextmanager
    def span(self, name: str, kind: str, passes: float = 0.0) -> Iterator[None]:
        """What happens inside belongs to this part."""
        began = time.perf_counter()
        try:
            yield
        finally:
            took = time.perf_counter() - began
            part = self.parts.setdefault(name, Part(kind))
            part.seconds, part.calls, part.passes = part.seconds + took, part.calls + 1, part.passes + passes
            if len(self._events) < MOST:
                self._events.append((name, kind, began - self._began, took))

    def timed(
        self, function: Callable, name: str, kind: str, passes: Callable[[Any], float] = lambda x: 0.0
    ) -> Callable:
        """The function, timed.

        Arguments:
            passes: its first argument → passes of the tower over one image.
        """

        @wraps(function)
        def call(first: Any, *arguments: Any, **options: Any) -> Any:
            with self.span(name, kind, passes(first)):
                found = function(first, *arguments, **options)
                if isinstance(found, torch.Tensor) and found.is_cuda:
                    torch.cuda.synchronize()  # else it is whoever reads the result that takes the time
                return found

        return call

    def tower(self, tower: Tower) -> Tower:
        """The tower, its stem, rows and pooling timed; rows carry the FFE of their multiply-adds."""
        costs = [block.cost(tower.tokens, tower.query_count(row)) for row, block in enumerate(tower.blocks)]
        total, blocks = sum(map(sum, costs)), []
        for row, (block, (attend, finish)) in enumerate(zip(tower.blocks, costs, strict=True)):
            other: Any = copy.copy(block)
            parts = (("project", "attend", attend), ("attention", "attend", 0.0), ("finish", "finish", finish))
            for name, part, cost in parts:
                share = cost / total
                at = f"row {row}, {part}"
                setattr(other, name, self.timed(getattr(block, name), at, "tower", lambda x, s=share: s * len(x)))
            blocks.append(other)
        stem, pool = (self.timed(f, name, "tower") for f, name in ((tower.stem, "stem"), (tower.pool, "pooling")))
        return replace(tower, blocks=tuple(blocks), stem=stem, pool=pool)

    def reporter(self, reporter: Any) -> Any:
        """The reporter, its stages timed."""
        return _Stages(reporter, self)

    def objective(self, objective: Any) -> Any:
        """The objective, its calls timed."""
        return _Timed(objective, self.timed(objective, "objective", "objective"))

    def study(self, study: Study) -> Study:
        """The study, its reads and writes timed."""
        for name in ("get", "put", "note", "read"):
            setattr(study, name, self.timed(getattr(study, name), f"study, {name}", "store"))
        return study

    def rows(self) -> list[tuple[str, str, int, str]]:
        """The table: part, seconds, calls, FFE; stages in order, then what they contain."""
        listed = sorted(self.parts.items(), key=lambda item: LANES[item[1].kind])
        return [
            (name, f"{part.seconds:.2f}", part.calls, f"{part.passes / self.images:.2f}" if part.passes else "")
            for name, part in listed
        ]

    def write(self, path: Path) -> None:
        """The trace as a file.

        Raises:
            HeadwiseError: it cannot be written.
        """
        events = [{"name": kind, "ph": "M", "pid": 1, "tid": lane, "cat": "__metadata"} for kind, lane in LANES.items()]
        for event in events:
            event |= {"args": {"name": event["name"]}, "name": "thread_name"}
        for name, kind, began, took in self._events:
            ts, dur = round(1e6 * began, 1), round(1e6 * took, 1)
            events.append({"name": name, "cat": kind, "ph": "X", "ts": ts, "dur": dur, "pid": 1, "tid": LANES[kind]})
        write_files(path.parent, {path.name: json.dumps({"traceEvents": events, "displayTimeUnit": "ms"})})


class _Stages:
    """A reporter whose stages are timed; all else is its own."""

    def __init__(self, reporter: Any, profile: Profile):
        self._reporter, self._profile = reporter, profile

    @contextmanager
    def stage(self, title: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
        with self._profile.span(title, "stage"), self._reporter.stage(title, total, unit) as advance:
            yield advance

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reporter, name)


class _Timed:
    """An objective whose calls are timed; all else is its own."""

    def __init__(self, objective: Any, call: Callable):
        self._objective, self._call = objective, call

    def __call__(self, embeddings: torch.Tensor, /) -> Any:
        return self._call(embeddings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._objective, name)

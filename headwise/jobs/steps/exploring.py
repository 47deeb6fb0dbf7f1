"""What `explore` answers while someone clicks: masks → recall, queries, neighbours, how embeddings moved; saving.

In: requests as plain JSON values: heads with their edits, perhaps a query. Out: plain JSON values, first estimated for all
images where the run knows these heads, else of some images, then of all; a newer request ends an older one. It knows nothing of HTTP, and no request names a file.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from headwise.data.pairs import Pairs
from headwise.data.seen import remembered
from headwise.edits.edit import Edit
from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import with_means
from headwise.evaluation.layout import Plan
from headwise.evaluation.streams import Stale, Streams
from headwise.explanation.examples import changed_queries
from headwise.jobs.steps.guessing import Guesses
from headwise.jobs.steps.neighbours import Neighbours
from headwise.jobs.steps.tasks import Task
from headwise.scoring.objectives import Objective, Score
from headwise.towers.base import Model
from headwise.towers.probes import described

WIDEST = 2.0  # the largest scale that the page gives a head
FIRST = 0.6  # seconds until a first answer, of the images that are done by then
SHOWN = 8  # queries gained and lost, pictures that moved
PARTIAL = ("retrieval", "classification")  # what can be measured on some of the images
SAVED = "explored"


@dataclass
class Session:
    """
    Arguments:
        folder: of the run; what is saved goes into `explored-1`, `explored-2`, … in it.
        model: in float32, for texts.
        pairs: the images that are shown, in this order.
        indices: their numbers in `whole`.
        whole: all pairs of the run.
        task: what is measured.
        streams: of the tower and these images.
        layout: of the tower.
        before: the unchanged embeddings, (N, E).
        chosen: the run's own mask.
        known: what single heads do, as far as the run or a click has seen it.
    """

    folder: Path
    model: Model
    pairs: Pairs
    indices: Sequence[int]
    whole: Pairs
    task: Task
    streams: Streams
    layout: Plan
    before: torch.Tensor
    chosen: Mask
    known: Guesses
    _newest: int = 0
    # of `_newest`; again by who holds it: a signal may stop the session while its own thread counts
    _counting: Any = field(default_factory=threading.RLock)
    _running: threading.Lock = field(default_factory=threading.Lock)  # of the streams
    _objectives: dict[int, Objective] = field(default_factory=dict)
    _scores: dict[int, Score] = field(default_factory=dict)
    _metrics: dict[str, Mapping[str, float]] = field(default_factory=dict)

    def stop(self) -> None:
        """End what runs; nothing new begins."""
        with self._counting:
            self._newest = -1

    def mask(self, request: Mapping[str, Any]) -> Mask:
        """The edits of a request: {edits: {head: edit}}, each as a text; one that is written as the run's own is the run's
        own, arrays included.

        Raises:
            HeadwiseError: anything else, a head that is not there, an edit outside of the vocabulary.
        """
        edits, grid = request.get("edits"), self.streams.tower.grid
        if not isinstance(edits, Mapping) or len(edits) > grid.size:
            raise HeadwiseError("A request needs edits by the names of heads.")
        found = {}
        for name, text in edits.items():
            head = Head.parse(str(name)[:20])
            grid.row_of(head)
            own = self.chosen.edit(head)
            found[head] = own if text == str(own) else Edit.parse(str(text)[:100])
        mask = Mask.of(grid, found)
        if any(not letter.bound and letter.name != "mean" for edit in mask.edits.values() for letter in edit.letters):
            raise HeadwiseError("Shifts and spectral edits are learned; they can only be those of the run.")
        self.streams.tower.check_mask(mask)
        return mask

    def turn(self) -> int:
        """The number of a request that has come: whatever runs for an older one ends."""
        with self._counting:  # not the streams' lock: a chunk that runs is to see at once that it is stale
            if self._newest >= 0:
                self._newest += 1
            return self._newest

    def look(self, request: Mapping[str, Any], turn: int | None = None) -> Iterator[dict[str, Any]]:
        """Answers to one click, each better than the one before; they end early when a newer request comes.

        Arguments:
            request: as for `mask`, and perhaps query: {text} or {image: number}.
            turn: of the request, taken when it came; None: now.

        Raises:
            HeadwiseError: a request that cannot be understood (before the first answer).
        """
        mine = self.turn() if turn is None else turn
        mask, query = self.mask(request), self.near.query(request.get("query"))

        def wanted() -> bool:
            return self._newest == mine > 0

        return self._answers(mask, query, wanted)

    def _answers(self, mask: Mask, query: Any, wanted) -> Iterator[dict[str, Any]]:
        guess = self.known.embeddings(mask)
        if guess is not None and wanted():
            yield self._answer(mask, guess, query, estimated=True)
        chunks = self.streams.embed(mask, wanted)
        parts: list[torch.Tensor] = []
        done, told, began = 0, 0, time.monotonic()
        while True:
            with self._running:
                try:
                    if not wanted():
                        return
                    _, e = next(chunks)  # (B, E)
                except (Stale, StopIteration):
                    return
            parts.append(e)
            done += len(e)
            last = done == len(self.pairs)
            some = (
                guess is None
                and self.task.kind in PARTIAL
                and time.monotonic() - began > FIRST
                and done >= max(2, 2 * told)
            )
            if last or some:
                told, after = done, torch.cat(parts)  # (n, E)
                if last:
                    self.known.learn(mask, after)
                yield self._answer(mask, after, query)

    def _answer(self, mask: Mask, after: torch.Tensor, query: Any, *, estimated: bool = False) -> dict[str, Any]:
        """What is known of the first n images."""
        n = len(after)
        old, new = self._before_score(n), self._objective(n)(after)
        pairs = self._part(n)
        changed = changed_queries(pairs, old, new, SHOWN)
        if n == len(self.pairs) and not estimated:
            self._metrics[mask.key] = new.metrics
        a, b = _unit(self.before[:n]), _unit(after)
        moved = 1 - (a * b).sum(1)  # (n)
        return {
            "mask": str(mask),
            "done": n,
            "estimated": estimated,
            "total": len(self.pairs),
            "fitness": self.task.fitness,
            "metrics": [
                {"name": name, "before": _known(old.metrics[name]), "after": _known(value)}
                for name, value in new.metrics.items()
            ],
            "gained": changed["gained"],
            "lost": changed["lost"],
            "gained_queries": [self._shown(one) for one in changed["gained_queries"]],
            "lost_queries": [self._shown(one) for one in changed["lost_queries"]],
            "moved": {"mean": float(moved.mean()), "most": _first(moved.argsort(descending=True))},
            "points": _rounded(self._axes(b)),
            "query": self.near.found(query, a, b),
        }

    @cached_property
    def near(self) -> Neighbours:
        """Of a query."""
        return Neighbours(self.model, self.pairs, self.whole, self.task, self.before.shape[1])

    @property
    def first_score(self) -> Score:
        """Of the unchanged model, on all images shown."""
        return self._before_score(len(self.pairs))

    # ---- parts of an answer

    def _objective(self, n: int) -> Objective:
        if n not in self._objectives:
            self._objectives[n] = self.task.objective(self.model, self.whole, self.indices[:n], self.layout.device)
        return self._objectives[n]

    def _before_score(self, n: int) -> Score:
        if n not in self._scores:
            self._scores[n] = self._objective(n)(self.before[:n])
        return self._scores[n]

    def _part(self, n: int) -> Pairs:
        return self.pairs if n == len(self.pairs) else self.pairs.subset(range(n))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: i for i, name in enumerate(self.pairs.ids)}

    def _shown(self, query: Mapping[str, Any]) -> dict[str, Any]:
        return {**query, "picture": self._places.get(query["image"])}

    @cached_property
    def _plane(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The mean and the first two principal axes of the unchanged embeddings, (E), (E, 2)."""
        e = _unit(self.before)
        mean = e.mean(0)
        _, _, axes = torch.linalg.svd(e - mean, full_matrices=False)
        axes = torch.cat([axes[:2], axes.new_zeros(max(0, 2 - len(axes)), axes.shape[1])])
        return mean, axes.T

    def _axes(self, e: torch.Tensor) -> torch.Tensor:
        mean, axes = self._plane
        return (e - mean) @ axes  # (n, 2)

    @cached_property
    def points(self) -> list[float]:
        """Where the unchanged embeddings lie on the plane: x, y of every image."""
        return _rounded(self._axes(_unit(self.before)))

    # ---- saving

    def save(self, request: Mapping[str, Any]) -> Path:
        """Write the mask of a request as a folder of its own in the run's folder.

        Raises:
            HeadwiseError: a request that cannot be understood, or a folder that cannot be written.
        """
        mask = self.mask(request)
        number = 1
        while True:
            folder = self.folder / f"{SAVED}-{number}"
            try:
                folder.mkdir()
                break
            except FileExistsError:
                number += 1
            except OSError as error:
                raise HeadwiseError(f"{folder} cannot be written: {error.strerror}.") from error
        known = self._metrics.get(mask.key)
        facts = {
            "base_model": self.model.name,
            "weights_hash": self.model.tower.weights_hash,
            "functions": described(self.model),
            **({"overrides": self.model.overrides.given} if self.model.overrides.given else {}),
            "found_by": "explore",
            "data": {"source": self.whole.name, "hash": self.whole.hash},
            "seen": {"search": remembered(self.whole, self.indices)},
            **({"scores": {"search": dict(known)}} if known else {}),
        }
        try:
            with_means(mask, self.streams.means).with_provenance(**facts).save_pretrained(folder)
        except HeadwiseError as error:
            with suppress(OSError):  # it stays where it is not empty
                folder.rmdir()
            why = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
            raise HeadwiseError(
                f"{folder} cannot be written: {why}. Make room or give the rights, and save again."
            ) from error
        return folder


def _unit(e: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(e.float(), dim=-1)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _first(order: torch.Tensor) -> list[int]:
    return order[:SHOWN].tolist()


def _rounded(points: torch.Tensor) -> list[float]:
    return np.round(points.double().numpy(), 4).ravel().tolist()

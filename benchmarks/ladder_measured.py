"""What benchmarks/ladder.py measured, candidate by candidate, and what a choice among them does.

In: the folder of the measurements. Out: `Chosen`: of one domain, over its seeds, what was taken, on the test split and on old data.
How to choose is given.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent))

from hits import packed, whole
from ladder import MASKS, evaluators, place_of

from headwise.checked import dump_tensors, load_tensors
from headwise.edits.mask import Mask
from headwise.files import write_files
from headwise.jobs.steps.opening import Machine, load_model
from headwise.jobs.steps.trained import Measured
from headwise.scoring.design import Design
from headwise.scoring.stats import Comparison, compared

JUDGED = ("test", "old")


@dataclass(frozen=True, eq=False)
class Row:
    """One candidate of one method and seed.

    Arguments:
        values: how many numbers it has.
        seconds: CPU time of the method's search or training on one thread, all its candidates together.
        pick: its score on the pick split.
        judged: its scores on test and old data, which are made for those masks alone that are chosen.
        again: those of what is learned again; None: not measured, or nothing is.
    """

    values: int
    seconds: float
    pick: Measured
    judged: Callable[[], dict[str, Measured]]
    again: Callable[[], dict[str, Measured]] | None = None


@dataclass(frozen=True, eq=False)
class Chosen:
    """What a rule chose in every seed of a domain, and what that does on the test split and on old data."""

    test: Comparison
    old: Comparison
    left: int  # seeds in which the unchanged model was left
    seeds: int
    values: tuple[int, ...]
    seconds: float  # mean over seeds


Take = Callable[[list[Row], int], int]  # (candidates, identity first; seed) → which


def chosen(seeds: Sequence[list[Row]], seconds: float, take: Take, again: bool) -> Chosen | None:
    """What is taken in every seed, judged together; with `again` as it is learned again, None where that is not measured."""
    picks = [found[take(found, number)] for number, found in enumerate(seeds)]
    if again and any(row.values and row.again is None for row in picks):
        return None
    base = seeds[0][0].judged()
    judged = [(row.again if again and row.again else row.judged)() for row in picks]
    test, old = (compared([one[split] for one in judged], base[split]) for split in ("test", "old"))
    left = [row.values for row in picks if row.values]
    return Chosen(test, old, len(left), len(picks), tuple(sorted(set(left))), seconds)


class Measurements:
    """All that benchmarks/ladder.py left in WORK."""

    def __init__(self, data: Path, work: Path):
        self.data, self.work = data, work
        self.model = load_model("demo", Machine())
        self.known: dict[tuple[str, int, int], dict[str, Design]] = {}
        self.processors: set[str] = set()

    def designs(self, target: str, size: int, seed: int) -> dict[str, Design]:
        """How hits make the metric, on every split."""
        key = (target, size, seed)
        if key not in self.known:
            place = place_of(self.data, self.work, target, size, seed, self.model)
            self.known[key] = {split: ev.objective.design for split, ev in evaluators(place).items()}  # type: ignore[attr-defined]
        return self.known[key]

    def seeds(self, target: str, size: int) -> list[int]:
        return sorted(
            int(path.name.rpartition("seed")[2]) for path in (self.work / "ladder").glob(f"{target}-{size}-seed*")
        )

    def rows(self, target: str, size: int, seed: int, method: str) -> list[Row] | None:
        """Identity, then the candidates of a method; None where it was not measured."""
        path = self.work / "ladder" / f"{target}-{size}-seed{seed}" / f"{method}.safetensors"
        if not path.exists():
            return None
        hits, facts = load_tensors(path)
        designs = self.designs(target, size, seed)

        def score(i: int, split: str) -> Measured:
            fitness, loss = facts["candidates"][i][split]
            return Measured(fitness, loss, whole(hits[split][i]), designs[split])

        def judged(i: int) -> Callable[[], dict[str, Measured]]:
            one = facts["candidates"][i]
            if "test" in one:
                return lambda: {split: score(i, split) for split in JUDGED}
            return lambda: self.mask(target, size, seed, one["name"])

        self.processors.add(facts["processor"])
        seconds, later = facts["seconds"], self._again(path.with_name(f"{method} again.safetensors"), designs)
        if method in MASKS:  # searched, not learned: they stay
            later = {one["name"]: judged(i) for i, one in enumerate(facts["candidates"])}
        return [
            Row(one["values"], seconds, score(i, "pick"), judged(i), later.get(one["name"]))
            for i, one in enumerate(facts["candidates"])
        ]

    def _again(self, path: Path, designs: dict[str, Design]) -> dict[str, Callable[[], dict[str, Measured]]]:
        """What is learned again, by its α."""
        if not path.exists():
            return {}
        hits, facts = load_tensors(path)

        def judged(i: int, row: dict) -> dict[str, Measured]:
            return {
                split: Measured(row[split][0], row[split][1], whole(hits[split][i]), designs[split]) for split in JUDGED
            }

        return {row["name"]: partial(judged, i, row) for i, row in enumerate(facts["candidates"])}

    def mask(self, target: str, size: int, seed: int, text: str) -> dict[str, Measured]:
        """A mask on test and old data, kept for the next page."""
        folder = self.work / "ladder" / f"{target}-{size}-seed{seed}" / "masks"
        path = folder / f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
        if not path.exists():
            mask = Mask.parse(self.model.tower.grid, text)
            place = place_of(self.data, self.work, target, size, seed, self.model)
            scores = {split: evaluators(place)[split]([mask])[0] for split in JUDGED}
            hits = {split: packed(one.hits) for split, one in scores.items()}
            write_files(folder, {path.name: dump_tensors(hits, {k: [v.fitness, v.loss] for k, v in scores.items()})})
        hits, facts = load_tensors(path)
        designs = self.designs(target, size, seed)
        return {
            split: Measured(facts[split][0], facts[split][1], whole(hits[split]), designs[split]) for split in JUDGED
        }

    def of(
        self, target: str, size: int, methods: Sequence[str], take: Take, least: int, again: bool = False
    ) -> Chosen | None:
        """What is taken of the candidates of these methods; None where fewer seeds are measured."""
        found, seconds = [], []
        for seed in self.seeds(target, size):
            parts = [rows for method in methods if (rows := self.rows(target, size, seed, method))]
            if len(parts) == len(methods):
                found.append([parts[0][0], *(row for part in parts for row in part[1:])])
                seconds.append(sum(part[0].seconds for part in parts))
        return chosen(found, float(np.mean(seconds)), take, again) if len(found) >= least else None

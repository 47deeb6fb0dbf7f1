"""docs/ladder.md: what each rung of the ladder gains on six domains, and what `refine` would have chosen among them.

    python benchmarks/ladder_page.py --data DATA --work WORK     of what benchmarks/ladder.py measured so far

The pick split chooses by `headwise.scoring.stats.choose`: for every method alone, and for the ladder of several methods,
by both rules, for every seed. Intervals are over test images, of the mean over seeds.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent))

from domains import TARGETS
from kept import keep, restore
from ladder import ANCHORS, METHODS, OTHERS, SIZES, evaluators, packed, place_of
from ladder_goals import goals
from ladder_picture import curves, picture

from headwise.checked import dump_tensors, load_tensors
from headwise.edits.mask import Mask
from headwise.files import write_files
from headwise.jobs.steps.opening import Machine, load_model
from headwise.jobs.steps.trained import Measured
from headwise.reports.words import change, interval
from headwise.scoring.design import Design
from headwise.scoring.stats import LEVEL, Comparison, choose, compared
from headwise.search.values import ALPHAS

ROOT = Path(__file__).resolve().parent.parent
LADDERS = {
    "mask": ("mask",),
    "mask, scale": ("mask", "scale"),
    "scale, spectral": ("scale", "spectral"),
    "mask, scale, spectral": ("mask", "scale", "spectral"),
    "the same, anchored": ("mask", "scale anchored", "spectral anchored"),
    "mask, scale, spectral, projection": ("mask", "scale", "spectral", "projection"),
    "with projection, anchored": ("mask", "scale anchored", "spectral anchored", "projection anchored"),
    "mask, scale, spectral, lora": ("mask", "scale", "spectral", "lora"),
    "with lora, anchored": ("mask", "scale anchored", "spectral anchored", "lora anchored"),
}
DRAWN = (*METHODS, "adapter", "projection", "projection anchored")  # in the pictures
RULES = ("safe", "best")
LEVELS = (0.05, 0.2, 0.5)  # of the choice, for these ladders
LEVELLED = ("mask, scale, spectral", "the same, anchored", "with projection, anchored", "with lora, anchored")
DEFAULT = "mask, scale, spectral: best"  # what `refine` does
FIXED, FIXED_SEEDS = ("scale", "spectral", "lora"), 3  # methods of which each α is shown, and how many seeds that needs
JUDGED = ("test", "old")


@dataclass(frozen=True, eq=False)
class Row:
    """One candidate of one method and seed.

    Arguments:
        values: how many numbers it has.
        seconds: CPU time of the method's search or training on one thread, all its candidates together.
        pick: its score on the pick split.
        judged: its scores on test and old data, which are made for those masks alone that are chosen.
    """

    values: int
    seconds: float
    pick: Measured
    judged: Callable[[], dict[str, Measured]]


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


def by_rule(rule: str, level: float = LEVEL) -> Take:
    """The pick split's choice."""
    return lambda rows, seed: (
        choose([row.pick for row in rows], [row.values for row in rows], rule=rule, level=level, seed=seed).index
    )


def chosen(seeds: Sequence[list[Row]], seconds: float, take: Take) -> Chosen:
    """What is taken in every seed, judged together."""
    picks = [found[take(found, number)] for number, found in enumerate(seeds)]
    base, judged = seeds[0][0].judged(), [row.judged() for row in picks]
    test, old = (compared([one[split] for one in judged], base[split]) for split in ("test", "old"))
    left = [row.values for row in picks if row.values]
    return Chosen(test, old, len(left), len(picks), tuple(sorted(set(left))), seconds)


def cell(one: Chosen) -> str:
    return f"{change(one.test.delta)} ({interval([one.test.interval.low, one.test.interval.high])}) / {change(one.old.delta)}"


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
        seconds = facts["seconds"]
        return [Row(one["values"], seconds, score(i, "pick"), judged(i)) for i, one in enumerate(facts["candidates"])]

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

    def of(self, target: str, size: int, methods: Sequence[str], take: Take, least: int) -> Chosen | None:
        """What is taken of the candidates of these methods; None where fewer seeds are measured."""
        found, seconds = [], []
        for seed in self.seeds(target, size):
            parts = [rows for method in methods if (rows := self.rows(target, size, seed, method))]
            if len(parts) == len(methods):
                found.append([parts[0][0], *(row for part in parts for row in part[1:])])
                seconds.append(sum(part[0].seconds for part in parts))
        return chosen(found, float(np.mean(seconds)), take) if len(found) >= least else None


def whole(hits: torch.Tensor) -> np.ndarray:
    """Hits as they are counted, int64 of their shape: differences of single bytes would wrap around."""
    return hits.numpy().astype(np.int64)


def table(found: dict[tuple[str, str], Chosen | None], names: Sequence[str], targets: Sequence[str]) -> list[str]:
    lines = [
        "| | " + " | ".join(targets) + " | mean | values | seconds | seeds |",
        "|---|" + "---:|" * (len(targets) + 4),
    ]
    for name in names:
        cells = [found.get((name, target)) for target in targets]
        if not any(cells):
            continue
        known = [one for one in cells if one]
        drawn = sorted({one.seeds for one in known})
        seeds = f"{drawn[0]}" if len(drawn) == 1 else f"{drawn[0]}–{drawn[-1]}"
        mean = f"{change(float(np.mean([one.test.delta for one in known])))} / {change(float(np.mean([one.old.delta for one in known])))}"
        values = sorted({value for one in known for value in one.values})
        size = "—" if not values else f"{values[0]:,}" if len(values) == 1 else f"{values[0]:,}–{values[-1]:,}"
        took = f"{np.mean([one.seconds for one in known]):,.0f}"
        lines.append(
            f"| {name} | {' | '.join(cell(one) if one else '' for one in cells)} | {mean} | {size} | {took} | {seeds} |"
        )
    return lines


def main(
    data: Annotated[Path, typer.Option(help="What recipes/demo/prepare.py made.")],
    work: Annotated[Path, typer.Option(help="Where benchmarks/ladder.py keeps its measurements.")],
    least: Annotated[int, typer.Option(help="Seeds that a figure needs.")] = 1,
    out: Annotated[Path, typer.Option(help="Where the page and its pictures go.")] = ROOT / "docs",
) -> None:
    restore(work)
    measured = Measurements(data, work)
    lines = [
        "# The ladder: masks, scales, principal axes, LoRA",
        "",
        "Made by `benchmarks/ladder.py` and `benchmarks/ladder_page.py` (their heads have the commands); nothing here is "
        "typed by hand.",
        "",
        f"The packaged model on {len(TARGETS)} drawing styles that it never saw. A seed draws search and pick split anew; the "
        "test split stays. Cells: change of mean recall on the test split in points (95 % interval over test images, mean "
        "over seeds) / change on new pictures of the styles that the model was trained on. At most 60 FFE for a search or "
        "training. *Values*: how many numbers the chosen candidates hold (of a mask, edited heads). *Seconds*: of the search or "
        "training.",
        "",
        "LoRA (rank 8, all four attention projections), the last projection, LayerNorm, singular values and a linear adapter "
        "behind the model are trained as the rungs are: eight epochs, all search images, α by the pick split. *Anchored*: held "
        f"to where the model puts {ANCHORS} old images.",
    ]
    pictures, reached = {}, []
    for size in SIZES:
        alone: dict[tuple[str, str], Chosen | None] = {}
        ladders: dict[tuple[str, str], Chosen | None] = {}
        fixed: dict[tuple[str, str], Chosen | None] = {}
        levels: dict[tuple[str, str], Chosen | None] = {}
        for target in TARGETS:
            for method in (*METHODS, *OTHERS):
                alone[method, target] = measured.of(target, size, (method,), by_rule("best"), least)
            for method, (place, alpha) in product(FIXED, enumerate(ALPHAS, 1)):
                fixed[f"{method}, α {alpha:g}", target] = measured.of(
                    target, size, (method,), lambda rows, _, place=place: place, FIXED_SEEDS
                )
            for name, methods in LADDERS.items():
                for rule in RULES:
                    ladders[f"{name}: {rule}", target] = measured.of(target, size, methods, by_rule(rule), least)
            for name, level in product(LEVELLED, LEVELS):
                take = by_rule("best", level)
                levels[f"{name}: {level:g}", target] = measured.of(target, size, LADDERS[name], take, least)
        if not any(alone.values()):
            continue
        lines += ["", f"## {size} search images, {SIZES[size]} to pick", ""]
        lines += ["Each method alone, the pick split choosing between its candidates and the unchanged model:", ""]
        lines += table(alone, (*METHODS, *OTHERS), TARGETS)
        lines += ["", f"What the ladder chooses, by rule; `refine` takes *{DEFAULT}*:", ""]
        lines += table(ladders, list(dict.fromkeys(name for name, _ in ladders)), TARGETS)
        if any(levels.values()):
            lines += ["", "By how sure the pick split has to be (`--level`, 0.05 by default), rule `best`:", ""]
            lines += table(levels, list(dict.fromkeys(name for name, _ in levels)), TARGETS)
        lines += [
            "",
            "Without a choice, the same α everywhere (what a choice that is always right about *whether* could have):",
            "",
        ]
        lines += table(fixed, list(dict.fromkeys(name for name, _ in fixed)), TARGETS)
        if size == max(SIZES):
            for target in TARGETS:
                found = curves(measured, target, size, DRAWN, least)
                if found:
                    pictures[f"{target}.png"] = picture(target, found)
            lines += ["", *(f"![{Path(name).stem}](ladder/{name})" for name in pictures)]
            reached = goals(alone, ladders, DEFAULT, TARGETS)
    lines += reached
    lines += ["", f"Processors: {'; '.join(sorted(measured.processors))}. Seconds are CPU time of one thread."]
    for size in SIZES:
        keep(work, size)
    write_files(out / "ladder", pictures)
    write_files(out, {"ladder.md": "\n".join(lines) + "\n"})


if __name__ == "__main__":
    typer.run(main)

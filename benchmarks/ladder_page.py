"""docs/ladder.md: what each rung of the ladder gains on six domains, and what `refine` would have chosen among them.

    python benchmarks/ladder_page.py --data DATA --work WORK     of what benchmarks/ladder.py measured so far

The pick split chooses by `headwise.scoring.stats.choose`: for every method alone, and for the ladder of several methods,
by both rules, for every seed. Intervals are over test images, of the mean over seeds.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent))

from domains import TARGETS
from kept import keep, restore
from ladder import ANCHORS, METHODS, OTHERS, SIZES
from ladder_goals import goals
from ladder_measured import Chosen, Measurements, Take
from ladder_picture import curves, picture

from headwise.files import write_files
from headwise.reports.words import change, interval
from headwise.scoring.stats import LEVEL, choose
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
REFIT = tuple(LADDERS)[2:]  # those that are shown as they are learned again, too
DRAWN = (*METHODS, "adapter", "projection", "projection anchored")  # in the pictures
RULES = ("safe", "best")
LEVELS = (0.05, 0.2, 0.5)  # of the choice, for these ladders
LEVELLED = ("mask, scale, spectral", "the same, anchored", "with projection, anchored", "with lora, anchored")
DEFAULT = "mask, scale, spectral: best, learned again"  # what `refine` does
ANCHORED = "the same, anchored: best, learned again"  # with --anchor
FIXED, FIXED_SEEDS = ("scale", "spectral", "lora"), 3  # methods of which each α is shown, and how many seeds that needs


def by_rule(rule: str, level: float = LEVEL) -> Take:
    """The pick split's choice."""
    return lambda rows, seed: (
        choose([row.pick for row in rows], [row.values for row in rows], rule=rule, level=level, seed=seed).index
    )


def cell(one: Chosen) -> str:
    return f"{change(one.test.delta)} ({interval([one.test.interval.low, one.test.interval.high])}) / {change(one.old.delta)}"


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
        means = [float(np.mean([getattr(one, split).delta for one in known])) for split in ("test", "old")]
        mean = " / ".join(map(change, means)) if all(cells) else ""  # of some domains it would compare with nothing
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
    anew: Annotated[bool, typer.Option("--anew", help="Only what WORK holds, not what benchmarks/kept/ does.")] = False,
) -> None:
    if not anew:
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
        f"to where the model puts {ANCHORS} old images. *Learned again*: what was chosen is learned from search and pick images together, "
        "as far (α), before the test.",
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
                if name in REFIT:
                    key = f"{name}: best, learned again", target
                    ladders[key] = measured.of(target, size, methods, by_rule("best"), least, again=True)
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
            reached = goals(alone, ladders, DEFAULT, ANCHORED, TARGETS)
    lines += reached
    lines += ["", f"Processors: {'; '.join(sorted(measured.processors))}. Seconds are CPU time of one thread."]
    for size in SIZES:
        keep(work, size)
    write_files(out / "ladder", pictures)
    write_files(out, {"ladder.md": "\n".join(lines) + "\n"})


if __name__ == "__main__":
    typer.run(main)

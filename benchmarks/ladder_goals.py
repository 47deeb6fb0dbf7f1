"""What the ladder was to reach, and whether it did: the last part of docs/ladder.md.

In: what `ladder_page.py` judged, cell by cell. Out: lines of Markdown. The goals were set before anything was measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from headwise.reports.words import change, interval

if TYPE_CHECKING:
    from ladder_measured import Chosen

DOODLES = "freehand"
MOST_LOSS = -0.01  # of mean recall on old data
Cells = Mapping[tuple[str, str], "Chosen | None"]


def goals(alone: Cells, ladders: Cells, default: str, anchored: str, targets: Sequence[str]) -> list[str]:
    """A list: each goal, whether it was reached, and the figures.

    Arguments:
        alone: (method, domain) → what the pick split chose of that method.
        ladders: (ladder and rule, domain) → what it chose of several.
        default, anchored: of `ladders`, what `refine` does, and what it does with `--anchor`.
        targets: the domains.
    """
    return ["", "## What it was to reach", "", *_above(ladders, default, anchored, targets), *_lora(alone), *_scales(alone, targets),
            *_kept(alone, ladders), *_never_worse(alone, targets)]  # fmt: skip


def _line(goal: str, reached: bool, figures: str) -> str:
    return f"- {goal}: **{'reached' if reached else 'missed'}**. {figures}."


def _said(one: Chosen) -> str:
    ends = interval([one.test.interval.low, one.test.interval.high])
    return f"{change(one.test.delta)} ({ends}) at {change(one.old.delta)} on old data"


def _above(ladders: Cells, default: str, anchored: str, targets: Sequence[str]) -> list[str]:
    told, reached = [], []
    for name, words in ((default, "On"), (anchored, "With `--anchor` on")):
        cells = {target: one for target in targets if (one := ladders.get((name, target)))}
        above = [target for target, one in cells.items() if one.test.interval.low > 0]
        told.append(f"{words} {len(above)} of {len(cells)}: {', '.join(above) or 'none'}")
        reached.append(len(above) >= 4)
    goal = "What `refine` chooses has an interval above 0 on at least 4 of 6 domains"
    return [_line(goal, reached[0], ". ".join(told))]


def _lora(alone: Cells) -> list[str]:
    ours, theirs = alone.get(("spectral", DOODLES)), alone.get(("lora", DOODLES))
    if not (ours and theirs):
        return []
    figures = (
        f"Spectral {_said(ours)} with {max(ours.values):,} values, LoRA {_said(theirs)} with {max(theirs.values):,}"
    )
    goal = "On doodles spectral edits gain at least as much as LoRA, with at most 4 % of its values"
    return [
        _line(goal, ours.test.delta >= theirs.test.delta and max(ours.values) <= 0.04 * max(theirs.values), figures)
    ]


def _scales(alone: Cells, targets: Sequence[str]) -> list[str]:
    pairs = {t: (m, s) for t in targets if (m := alone.get(("mask", t))) and (s := alone.get(("scale", t)))}
    helped = {target: both for target, both in pairs.items() if both[0].test.interval.low > 0}
    twice = [target for target, (mask, scale) in helped.items() if scale.test.delta >= 2 * mask.test.delta]
    told = [f"{t}: masks {change(m.test.delta)}, scales {change(s.test.delta)}" for t, (m, s) in helped.items()]
    figures = "; ".join(told) if told else "A mask helps (interval above 0) on no domain"
    goal = "Scales gain at least twice what masks do, where masks help"
    return [_line(goal, bool(helped) and len(twice) == len(helped), figures)]


def _kept(alone: Cells, ladders: Cells) -> list[str]:
    def best(cells: Cells) -> tuple[str, Chosen] | None:
        kept = [(name, one) for (name, target), one in cells.items() if target == DOODLES and one]
        return max((x for x in kept if x[1].old.delta >= MOST_LOSS), key=lambda x: x[1].test.delta, default=None)

    if (found := best(ladders)) is None:
        return []
    figures = f"The best such is *{found[0]}*: {_said(found[1])}"
    if (other := best(alone)) and other[1].test.delta > found[1].test.delta:
        figures += f". By itself, of all methods above, *{other[0]}*: {_said(other[1])} (seeds: {other[1].seeds})"
    goal = "At a loss of at most 1 point on old data the ladder's best gains at least 4 points on doodles"
    return [_line(goal, found[1].test.delta >= 0.04, figures)]


def _never_worse(alone: Cells, targets: Sequence[str]) -> list[str]:
    worse = [
        f"{method} on {target}: {_said(one)}"
        for method in ("mask", "scale")
        for target in targets
        if (one := alone.get((method, target))) and one.test.interval.high < 0
    ]
    return [_line("No mask and no scales are chosen whose interval, over the seeds, lies below 0", not worse,
                  "; ".join(worse) or "None lies below 0")]  # fmt: skip

"""Small figures as inline SVG: intervals of changes, and how a search went.

In: numbers. Out: SVG text whose colours are the page's CSS variables, with a title for screen readers; nothing outside
the file is referred to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from headwise.report.words import change, interval

WIDTH = 720.0


def forest(rows: Sequence[tuple[str, float, Sequence[float] | None]], title: str) -> str:
    """A forest plot: one line per row, its change with the 95 % interval, zero marked.

    Arguments:
        rows: (name, change, interval or None), fractions.
        title: what is drawn, for screen readers.
    """
    ends = [end for _, delta, whisker in rows for end in (delta, *(whisker or ()))]
    low, high = _range([*ends, 0.0])
    left, right, top, step = 150.0, WIDTH - 190.0, 8.0, 26.0

    def x(value: float) -> float:
        return left + (value - low) / (high - low) * (right - left)

    height = top + step * len(rows) + 30
    parts = []
    for tick in _ticks(low, high):
        parts.append(_line(x(tick), top, x(tick), height - 28, "var(--line)"))
        parts.append(_text(x(tick), height - 12, change(tick, 1), anchor="middle", size=12))
    parts.append(_line(x(0), top, x(0), height - 28, "var(--ink)", 1.5))
    for number, (name, delta, whisker) in enumerate(rows):
        y = top + step * (number + 0.5)
        colour = "var(--soft)"
        if whisker is not None:
            colour = "var(--good)" if whisker[0] > 0 else "var(--harm)" if whisker[1] < 0 else "var(--soft)"
            parts.append(_line(x(whisker[0]), y, x(whisker[1]), y, colour, 3))
        parts.append(f'<circle cx="{x(delta):.1f}" cy="{y:.1f}" r="5" fill="{colour}"/>')
        parts.append(_text(left - 10, y + 4, name if len(name) < 27 else name[:25] + "…", anchor="end"))
        parts.append(
            _text(right + 12, y + 4, f"{change(delta)}" + (f" ({interval(whisker)})" if whisker else ""), size=12)
        )
    return _svg(height, title, parts)


def progress(values: Sequence[float], base: float, title: str) -> str:
    """How a search went: every mask's change in the order of evaluation, and the best so far as a stair.

    Arguments:
        values: fitness of the masks, fractions.
        base: fitness of the unchanged model.
        title: what is drawn, for screen readers.
    """
    deltas = [value - base for value in values if math.isfinite(value)]
    if not deltas:
        return ""
    low, high = _range([*deltas, 0.0])
    left, right, top, bottom = 56.0, WIDTH - 16.0, 10.0, 190.0

    def x(number: float) -> float:
        return left + number / max(1, len(deltas)) * (right - left)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    parts = []
    for tick in _ticks(low, high):
        parts.append(_line(left, y(tick), right, y(tick), "var(--ink)" if tick == 0 else "var(--line)"))
        parts.append(_text(left - 8, y(tick) + 4, change(tick, 1), anchor="end", size=12))
    stride = max(1, len(deltas) // 800)  # dots beyond what a reader can tell apart only make the file large
    for number in range(0, len(deltas), stride):
        parts.append(
            f'<circle cx="{x(number + 0.5):.1f}" cy="{y(deltas[number]):.1f}" r="2.2" fill="var(--use)" '
            'fill-opacity="0.55"/>'
        )
    best, steps = -math.inf, []
    for number, value in enumerate(deltas):
        if value > best:
            best = value
            steps.append(
                f"{'L' if steps else 'M'}{x(number):.1f} {y(best):.1f}"
                if not steps
                else f"H{x(number):.1f}V{y(best):.1f}"
            )
    steps.append(f"H{right:.1f}")
    parts.append(f'<path d="{"".join(steps)}" fill="none" stroke="var(--harm)" stroke-width="2"/>')
    parts.append(_text((left + right) / 2, bottom + 28, f"evaluations, 1 to {len(deltas):,}", anchor="middle", size=12))
    return _svg(bottom + 38, title, parts)


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {WIDTH:.0f} {height:.0f}" role="img" aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{''.join(parts)}</svg>"
    )


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, width: float = 1) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}" stroke-width="{width:g}"/>'


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}">{escape(text)}</text>'


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.06 * (high - low) or 0.01
    return low - margin, high + margin


def _ticks(low: float, high: float) -> list[float]:
    """About five round values between the ends, zero among them where it lies there."""
    raw = (high - low) / 5
    power = 10 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= raw)
    return [round(step * n, 12) + 0.0 for n in range(math.ceil(low / step), math.floor(high / step) + 1)]

"""Small figures as inline SVG: intervals of changes, the course of a search, and all its masks.

In: numbers. Out: SVG text whose colours are the page's CSS variables, with a title for screen readers; nothing outside
the file is referred to.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

from headwise.reports.words import change, interval

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


def landscape(points: Sequence[tuple[int, float]], base: float, title: str) -> str:
    """Every mask that was evaluated: its change against the number of heads it edits, the best of each number
    joined by a line. It does not depend on the order in which masks were evaluated.

    Arguments:
        points: (heads, fitness) of every mask, fractions.
        base: fitness of the unchanged model.
        title: what is drawn, for screen readers.
    """
    found = sorted({(heads, value - base) for heads, value in points if math.isfinite(value)})
    if not found:
        return ""
    low, high = _range([*(delta for _, delta in found), 0.0])
    most = max(1, max(heads for heads, _ in found))
    left, right, top, bottom = 56.0, WIDTH - 16.0, 10.0, 210.0

    def x(heads: float) -> float:
        return left + (heads + 0.5) / (most + 1) * (right - left)

    def y(value: float) -> float:
        return bottom - (value - low) / (high - low) * (bottom - top)

    parts = []
    for tick in _ticks(low, high):
        parts.append(_line(left, y(tick), right, y(tick), "var(--ink)" if tick == 0 else "var(--line)"))
        parts.append(_text(left - 8, y(tick) + 4, change(tick, 1), anchor="end", size=12))
    for heads in range(0, most + 1, max(1, math.ceil(most / 12))):
        parts.append(_text(x(heads), bottom + 18, str(heads), anchor="middle", size=12))
    stride = max(1, len(found) // 800)  # dots beyond what a reader can tell apart only make the file large
    parts += [
        f'<circle cx="{x(heads):.1f}" cy="{y(delta):.1f}" r="2.4" fill="var(--use)" fill-opacity="0.55"/>'
        for heads, delta in found[::stride]
    ]
    best = dict(found)  # the last of a number is its best
    path = "L".join(f"{x(heads):.1f} {y(delta):.1f}" for heads, delta in best.items())
    parts.append(f'<path d="M{path}" fill="none" stroke="var(--harm)" stroke-width="2"/>')
    parts.append(_text((left + right) / 2, bottom + 36, "heads edited", anchor="middle", size=12))
    return _svg(bottom + 44, title, parts)


def course(points: Sequence[tuple[str, float, float]], base: float, title: str) -> str:
    """The best change that a search had found against what it had spent until then, its stages numbered.

    Arguments:
        points: (stage, FFE, best fitness), in the order of the search.
        base: fitness of the unchanged model.
        title: what is drawn, for screen readers.
    """
    if not points:
        return ""
    low, high = _range([*(fitness - base for _, _, fitness in points), 0.0])
    most = max(ffe for _, ffe, _ in points) or 1.0
    left, right, top, bottom = 56.0, WIDTH - 16.0, 24.0, 190.0

    def x(ffe: float) -> float:
        return left + ffe / most * (right - left)

    def y(fitness: float) -> float:
        return bottom - (fitness - base - low) / (high - low) * (bottom - top)

    ends = {name: ffe for name, ffe, _ in points}  # the last of a stage is its end
    parts, began = [], 0.0
    for number, end in enumerate(ends.values(), 1):
        if number % 2 == 0:
            parts.append(
                f'<rect x="{x(began):.1f}" y="{top - 20:.1f}" width="{x(end) - x(began):.1f}" '
                f'height="{bottom - top + 20:.1f}" fill="var(--line)" fill-opacity="0.4"/>'
            )
        parts.append(_text((x(began) + x(end)) / 2, top - 7, str(number), anchor="middle", size=12))
        began = end
    for tick in _ticks(low, high):
        parts.append(_line(left, y(base + tick), right, y(base + tick), "var(--ink)" if tick == 0 else "var(--line)"))
        parts.append(_text(left - 8, y(base + tick) + 4, change(tick, 1), anchor="end", size=12))
    for tick in _ticks(0.0, most):
        parts.append(_text(x(tick), bottom + 18, f"{tick:g}", anchor="middle", size=12))
    path = f"M{x(0):.1f} {y(base):.1f}" + "".join(f"H{x(ffe):.1f}V{y(fitness):.1f}" for _, ffe, fitness in points)
    parts.append(f'<path d="{path}" fill="none" stroke="var(--harm)" stroke-width="2"/>')
    parts.append(_text((left + right) / 2, bottom + 36, "FFE spent", anchor="middle", size=12))
    return _svg(bottom + 44, title, parts)


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

"""The heat map: what suppressing each head alone does, layers × heads, one panel per edit.

In: results with a sweep, or first-order scores in its place. Out: the bytes of a PNG, the same for the same results.
"""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from headwise.edits.heads import Grid, Head
from headwise.errors import HeadwiseError
from headwise.plain import picture
from headwise.reports.drawing import drawing
from headwise.reports.words import main_metric, metric_name
from headwise.scoring.stats import CLAIM_LEVEL

COLOURS = "PuOr"  # orange to purple: told apart with every common colour blindness, white at 0
BEYOND = "more than noise (max-T p ≤ 0.05)"
ANNOTATE = 8  # grids up to 8 × 8 carry their numbers


def heat_map(
    effects: Mapping[str, Mapping[Head, float]],
    grid: Grid,
    *,
    chosen: Mapping[str, Iterable[Head]] | None = None,
    shown: Mapping[str, Iterable[Head]] | None = None,
    title: str = "Change of mean recall on the search split, in points,\nwhen this head alone is suppressed",
    unit: str = "points",
    factor: float = 100.0,
) -> bytes:
    """Draw the effects of single heads.

    Arguments:
        effects: operator → head → what suppressing this head alone does, above 0 where it helps.
        grid: the model's heads.
        chosen: operator → the heads to outline.
        shown: operator → the heads whose change exceeds the noise, which get a dot; None: not known. The colours do not
            end before the largest change of the others, so that noise alone never looks strong.
        title: what the colours show.
        unit: of the colour scale.
        factor: effect → number in this unit.

    Returns:
        A PNG. The same input gives the same bytes.

    Raises:
        HeadwiseError: no effects, or a head that the grid does not have.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not any(effects.values()):
        raise HeadwiseError("There is no sweep to draw: give the effects of at least one operator.")
    tables = {operator: _table(grid, heads, factor) for operator, heads in effects.items()}
    limit, extend = scale(
        [value for table in tables.values() for row in table for value in row],
        factor * _noise(effects, shown),
    )
    rows, columns = len(grid.rows), max(grid.rows)
    small = rows <= ANNOTATE and columns <= ANNOTATE
    cell = 0.56 if small else 0.34  # inches
    across = min(len(tables), 3)
    down = math.ceil(len(tables) / across)
    size = (max(across * (columns * cell + 0.75) + 1.1, 5.2), down * (rows * cell + 0.75) + 0.75)
    with drawing():
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(down, across, squeeze=False).flatten().tolist()
        image = None
        for axis, (operator, table) in zip(axes, tables.items(), strict=False):
            image = _panel(axis, grid, table, limit, small)
            for head in (chosen or {}).get(operator, ()):
                _outline(axis, head.index, grid.row_of(head))
            for head in (shown or {}).get(operator, ()):
                _dot(axis, head.index, grid.row_of(head))
            axis.set_title(f"edit: {operator}", fontsize=9)
        for axis in axes[len(tables) :]:
            axis.set_visible(False)
        outlined = any(heads for heads in (chosen or {}).values())
        marks = [*(["outlined: chosen"] if outlined else []), *([f"dot: {BEYOND}"] if shown is not None else [])]
        figure.suptitle(title + (f"\n({'; '.join(marks)})" if marks else ""), fontsize=10)
        assert image is not None
        bar = figure.colorbar(image, ax=axes, extend=extend, shrink=0.9, pad=0.02, fraction=0.05)
        bar.set_label(f"← useful head      {unit}      harmful head →", fontsize=8)
        bar.ax.tick_params(labelsize=8)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def heatmap_png(results: Mapping[str, Any]) -> bytes:
    """The heat map of the sweeps in results, with the chosen heads outlined where there are any.

    Where the sweep was skipped it shows the first-order scores, and says so.

    Arguments:
        results: what `headwise.refine` returns and `results.json` holds; of it, `model` and `sweep` are needed.

    Returns:
        A PNG. The same input gives the same bytes.

    Raises:
        HeadwiseError: the results lack a field, or a head that the grid does not have.
    """
    try:
        model, chosen = results["model"], results.get("chosen")
        grid = Grid(tuple(model["layers"]), model.get("pool_heads", 0))
        heads = [Head.parse(name) for name in chosen["heads"]] if chosen else []
        swept = [*results["sweep"], *results.get("first_order", [])] if chosen else []
        outlined = {sweep["operator"]: heads for sweep in swept}
        if not results["sweep"]:
            return first_order_png(results, results.get("first_order", []), outlined)
        effects = {
            sweep["operator"]: {Head.parse(head["head"]): head["delta"] for head in sweep["heads"]}
            for sweep in results["sweep"]
        }
        shown = {
            sweep["operator"]: [Head.parse(head["head"]) for head in sweep["heads"] if head["p_max_t"] <= CLAIM_LEVEL]
            for sweep in results["sweep"]
            if all(head.get("p_max_t") is not None for head in sweep["heads"])
        }
        measure = metric_name(main_metric(results, results["sweep"][0]["identity"]))
    except KeyError as error:
        raise HeadwiseError(f"The results lack the field {error}; no heat map can be drawn.") from error
    split = "search split" if chosen else "pairs given"
    title = f"Change of {picture(measure)} on the {split}, in points,\nwhen this head alone is suppressed"
    return heat_map(effects, grid, chosen=outlined, shown=shown or None, title=title)


def first_order_png(
    results: Mapping[str, Any], table: Sequence[Mapping[str, Any]], chosen: Mapping[str, Iterable[Head]] | None = None
) -> bytes:
    """The table of first-order scores, heads × edits, a small map for each edit on one colour scale.

    Arguments:
        results: of them `model`, whose heads they are.
        table: an entry for each edit: its `operator` and `heads`, each a `head` with a `score`.
        chosen: operator → the heads to outline.

    Returns:
        A PNG. The same input gives the same bytes.

    Raises:
        HeadwiseError: no scores, or a head that the grid does not have.
    """
    scores = {one["operator"]: {Head.parse(head["head"]): head["score"] for head in one["heads"]} for one in table}
    model = results["model"]
    return heat_map(
        scores,
        Grid(tuple(model["layers"]), model.get("pool_heads", 0)),
        chosen=chosen,
        title="First-order scores, from one gradient pass: fall of the loss\nwhen this head alone has the edit",
        unit="loss × 1000",
        factor=1000.0,
    )


def _noise(effects: Mapping[str, Mapping[Head, float]], shown: Mapping[str, Iterable[Head]] | None) -> float:
    """The largest change that is no more than noise; 0 where that is not known."""
    if shown is None:
        return 0.0
    clear = {(operator, head) for operator, heads in shown.items() for head in heads}
    return max(
        (abs(v) for operator, heads in effects.items() for head, v in heads.items() if (operator, head) not in clear),
        default=0.0,
    )


def scale(points: Iterable[float], least: float = 0.0) -> tuple[float, str]:
    """The ends of the colour scale, symmetric around 0.

    A few heads that the model cannot do without would otherwise make all the others look white: the scale ends
    at the largest gain or at 90 % of the heads, whichever is more, and what lies beyond has the end's colour.

    Arguments:
        points: of every head.
        least: the scale does not end before this.

    Returns:
        The limit in points, and for which ends the scale has to show an arrow.
    """
    values = [value for value in points if not math.isnan(value)]
    sizes = sorted(map(abs, values))
    typical = sizes[min(len(sizes) - 1, int(0.9 * len(sizes)))]
    limit = max(max(values), typical, least, 0.1)
    beyond = (min(values) < -limit, max(values) > limit)
    return limit, {(False, False): "neither", (True, False): "min", (False, True): "max"}.get(beyond, "both")


def _table(grid: Grid, effects: Mapping[Head, float], factor: float) -> list[list[float]]:
    """Effects times the factor, rows × columns, NaN where there is no such head or it was not measured."""
    table = [[math.nan] * max(grid.rows) for _ in grid.rows]
    for head, effect in effects.items():
        table[grid.row_of(head)][head.index] = factor * effect
    return table


def _panel(axis: Any, grid: Grid, table: Sequence[Sequence[float]], limit: float, small: bool) -> Any:
    import numpy as np
    from matplotlib import colormaps

    colours = colormaps[COLOURS]
    points = np.ma.masked_invalid(np.array(table))
    image = axis.imshow(points, cmap=colours, vmin=-limit, vmax=limit, aspect="equal", interpolation="nearest")
    rows, columns = points.shape
    axis.set_xticks(range(columns), [f"H{i}" for i in range(columns)])
    axis.set_yticks(range(rows), [grid.row_name(row) for row in range(rows)])
    axis.tick_params(labelsize=8 if small else 7, length=0)
    axis.tick_params(axis="x", labelrotation=0 if columns <= 10 else 90)
    axis.set_xticks(np.arange(columns + 1) - 0.5, minor=True)
    axis.set_yticks(np.arange(rows + 1) - 0.5, minor=True)
    axis.grid(which="minor", color="white", linewidth=1)
    axis.tick_params(which="minor", length=0)
    axis.spines[:].set_visible(False)
    for row, column in np.ndindex(rows, columns):
        value = table[row][column]
        if math.isnan(value):
            if column < grid.rows[row]:
                axis.text(column, row, "?", ha="center", va="center", fontsize=7, color="grey")
        elif small:
            red, green, blue, _ = colours((value + limit) / (2 * limit))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            text = f"{value:+.1f}".replace("-", "−") if abs(value) >= 0.05 else "0.0"
            axis.text(column, row, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    return image


def _dot(axis: Any, column: int, row: int) -> None:
    axis.plot(
        column + 0.33, row - 0.33, "o", color="black", markersize=3.2, markeredgecolor="white", markeredgewidth=0.8
    )


def _outline(axis: Any, column: int, row: int) -> None:
    from matplotlib.patches import Rectangle

    for colour, width in (("white", 4.0), ("black", 2.2)):  # a white rim keeps it visible on dark cells
        axis.add_patch(
            Rectangle((column - 0.46, row - 0.46), 0.92, 0.92, fill=False, edgecolor=colour, linewidth=width, zorder=3)
        )

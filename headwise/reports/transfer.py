"""`transfer.md` and `transfer.png`: masks × data sets.

In: what `transfer.json` holds. Out: Markdown, and the bytes of a PNG. The best mask is named by the pick splits; the
test splits only judge it.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from headwise.plain import code, markdown, picture
from headwise.reports.drawing import drawing
from headwise.reports.edit_lists import against
from headwise.reports.heatmap import COLOURS
from headwise.reports.words import change, claim, counted, interval, metric_name, p_equals, p_value, points, short_name

LONGEST = 26  # characters of a mask's name in the picture


def transfer_text(results: Mapping[str, Any]) -> str:
    """The matrix as Markdown.

    Arguments:
        results: what `headwise.transfer` returns and `transfer.json` holds.
    """
    data, measure = results["data"], _measure(results)
    head = ["mask", "found on", *map(markdown, _names(results)), "mean on pick", "mean on test"]
    lines = [
        "# Transfer",
        "",
        f"Model {code(results['model'])}. Change of {markdown(measure)} on each data set's test split in points against the unchanged "
        "model, with the 95 % bootstrap interval over its images and a sign-flip p (not corrected for the number of "
        "cells). The last columns are means over the data sets.",
        "",
        "![Masks × data sets](transfer.png)",
        "",
        "| " + " | ".join(head) + " |",
        "|---|---|" + "---:|" * (len(head) - 2),
        "| identity |  | " + " | ".join(points(one["score"]) + " %" for one in data) + " | 0.00 | 0.00 |",
    ]
    for number, row in enumerate(results["masks"]):
        name = against(row["mask"], results["masks"][0]["mask"], "the first") if number else row["mask"]
        cells = [f"{change(c['delta'])} ({interval(c['interval'])}; p {p_value(c['p'])})" for c in row["test"]]
        means = [change(_mean(row, split)) for split in ("pick", "test")]
        lines.append("| " + " | ".join([markdown(name), markdown(short_name(row["found_on"])), *cells, *means]) + " |")
    lines += ["", markdown(best_sentence(results)), ""]
    lines += ["Data sets:", ""]
    lines += [
        f"- {markdown(one['source'])}: {counted(one['images']['pick'], 'pick image')}, "
        f"{counted(one['images']['test'], 'test image')}; split {markdown(one['split_how'] + _noted(one))}"
        for one in data
    ]
    return "\n".join(lines) + "\n"


def _noted(one: Mapping[str, Any]) -> str:
    """What to know of a data set's numbers: images left out, equal captions, earlier reads."""
    notes, searched, equal = "", one.get("searched", {}), one.get("equal_captions", {})
    if searched.get("pick") or searched.get("test"):
        what = "left out" if searched["left_out"] else "SCORED ALL THE SAME"
        notes += f"; {searched['pick']:,} pick and {searched['test']:,} test images that a mask was searched on {what}"
    if equal.get("captions"):
        notes += f"; {equal['captions']:,} captions equal those of another image ({equal['rule']})"
    if one.get("test_reads_cache", 0) > 1:
        notes += f"; its test images have been read for {one['test_reads_cache']} different masks of this model"
    return notes


def best_sentence(results: Mapping[str, Any]) -> str:
    """Which single mask serves all data sets best."""
    best, count = results["best"], counted(len(results["data"]), "data set")
    if best["row"] is None:
        why = "none has a mean change above 0 on the pick splits"
        if best["highest_pick_mean"] > 0:
            why = (
                f"the highest mean change on the pick splits, {change(best['highest_pick_mean'])} points with "
                f"{best['highest']}, is not shown to be more than chance among {counted(len(results['masks']), 'mask')} "
                f"({p_equals(best['pick_p'])} by max-T, level {best['level']:g})"
            )
        return f"No single mask is shown to serve the {count} better than the unchanged model: {why}."
    return (
        f"The single mask that serves the {count} best, by the mean change on the pick splits "
        f"({change(best['pick_mean'])}, {p_equals(best['pick_p'])} by max-T over {counted(len(results['masks']), 'mask')}), is "
        f"{best['mask']}; its mean change on the test splits is {change(best['test_mean'])} points, "
        f"{p_equals(best['test_p'])} by sign flips over all their images."
    )


def _mean(row: Mapping[str, Any], split: str) -> float:
    deltas = [one["delta"] for one in row[split]]
    return sum(deltas) / len(deltas)


def transfer_png(results: Mapping[str, Any]) -> bytes:
    """Masks × data sets, coloured by the change on the test split; ● where interval and p show it.

    Returns:
        A PNG. The same input gives the same bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, data = results["masks"], results["data"]
    table = [[100 * one["delta"] for one in row["test"]] for row in rows]
    limit = max(0.1, *(abs(value) for row in table for value in row))
    size = (max(3.2 + 1.25 * len(data), 6.6), max(1.9 + 0.55 * len(rows), 3.0))  # room for the title and the axis' name
    with drawing():
        figure = Figure(figsize=size, dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        image = axis.imshow(table, cmap=COLOURS, vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
        axis.set_xticks(range(len(data)), list(map(picture, _names(results))), fontsize=8, rotation=20, ha="right")
        labels = [_label(row) for row in rows]
        axis.set_yticks(range(len(rows)), labels, fontsize=8)
        axis.set_xlabel("tested on", fontsize=9)
        axis.set_ylabel("mask, and what it was found on", fontsize=9)
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        for y, row in enumerate(rows):
            for x, one in enumerate(row["test"]):
                sure = claim(one) in ("better", "worse")
                text = change(one["delta"]) + (" ●" if sure else "")
                dark = abs(table[y][x]) > 0.65 * limit
                axis.text(x, y, text, ha="center", va="center", fontsize=8, color="white" if dark else "black")
        measure = _measure(results)
        figure.suptitle(
            f"Change of {picture(measure)} on the test split, points (● better or worse by interval and p)", fontsize=9
        )
        bar = figure.colorbar(image, ax=axis, shrink=0.9, pad=0.02)
        bar.ax.tick_params(labelsize=8)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _measure(results: Mapping[str, Any]) -> str:
    """What changes are of."""
    kinds = {one.get("fitness", results["fitness"]) for one in results["data"]}
    return metric_name(results["fitness"]) if len(kinds) == 1 else "the metric of each data set"


def _names(results: Mapping[str, Any]) -> list[str]:
    """Of the data sets; with their metrics, where these differ."""
    data = results["data"]
    kinds = [one.get("fitness", results["fitness"]) for one in data]
    names = [short_name(one["source"]) for one in data]
    if len(set(kinds)) == 1:
        return names
    return [f"{name} ({metric_name(kind)})" for name, kind in zip(names, kinds, strict=True)]


def _label(row: Mapping[str, Any]) -> str:
    """A mask by its name, a long one by how many heads it has, and what it was found on, where that is known."""
    name = row["mask"] if len(row["mask"]) <= LONGEST else f"{row['kinds']}, {counted(row['size'], 'head')}"
    known = row["found_on"] != "unknown"
    return picture(name) + (f"\n{picture(short_name(row['found_on']))}" if known else "")

"""`front.md` and `front.png`: a front of masks, as it looks where it was found and where it was not.

In: what `front.json` holds. Out: Markdown, the rows for a terminal, the bytes of a PNG. A test column is there only
where the test split was read.
"""

from __future__ import annotations

import io
from typing import Any

from headwise.plain import code, markdown, picture
from headwise.reports.drawing import drawing
from headwise.reports.edit_lists import against
from headwise.reports.kept import COLUMNS as KEPT_COLUMNS
from headwise.reports.kept import kept_rows, table, with_error
from headwise.reports.words import (
    Results,
    change,
    claim_sentence,
    counted,
    grid_of,
    interval,
    main_metric,
    metric_name,
    p_equals,
    p_value,
    points,
    size_of,
)

SEARCH, PICK, TEST = "#0072B2", "#D55E00", "#000000"  # of Okabe and Ito: told apart with every colour blindness
ASIDE = 0.07  # heads: so that the splits' marks do not hide each other
COLUMNS = {
    "size": ("mask", "heads", "search", "pick ± se", "test"),
    "domains": ("mask", "heads", "search", "kept, search", "pick ± se", "kept, pick ± se", "test", "kept, test"),
}


def heading(results: Results) -> str:
    """One line above the table."""
    against = "change on the kept domain that suffers most" if results["kind"] == "domains" else "number of heads"
    return f"Front of {measure(results)} against {against}; changes against identity, in points"


def measure(results: Results) -> str:
    """The name of what was maximised, for people."""
    return metric_name(main_metric(results, results["identity"]["search"]))


def shown_rows(results: Results) -> list[tuple[str, ...]]:
    """A row a point, in the order of `COLUMNS`; a test column only where the test split was read."""
    rows = []
    tested = results["chosen"]
    longest = max(results["points"], key=lambda point: point["size"])["mask"]
    first = (tested["mask"], "the chosen") if tested and tested["size"] else (longest, "the longest")
    for point in results["points"]:
        search, pick, chosen = point["search"], point["pick"], point["chosen"]
        test = change(tested["test"]["delta"]) if chosen else ""
        mark = " ← chosen" if chosen else ""
        row = [str(point["size"]), change(search["delta"]), with_error(pick["delta"], pick["se"]), test]
        if results["kind"] == "domains":
            worst = min(range(len(pick["kept"])), key=pick["kept"].__getitem__)
            kept_test = change(min(domain["delta"] for domain in tested["kept"])) if chosen else ""
            row[2:2] = [change(min(search["kept"]))]
            row[4:4] = [with_error(pick["kept"][worst], pick["kept_se"][worst])]
            row.append(kept_test)
        rows.append((against(point["mask"], *first) + mark, *row))
    if all(point["size"] for point in results["points"]):  # identity is beaten; shown because it is what you have
        mark = " ← chosen" if tested and not tested["size"] else ", not on the front"
        rows.append(("identity" + mark, "0", *[change(0.0)] * (len(COLUMNS[results["kind"]]) - 2)))
    return rows


def verdict(results: Results) -> str:
    """What was chosen and what the test split says of it, claiming no more than it shows."""
    chosen, settings = results["chosen"], results["settings"]
    if not chosen:
        return "No mask was to be chosen for (--max-heads or --max-loss), so the test split was not read."
    most = settings["max_heads"]
    asked = [f"at most {counted(most, 'head')}"] if most is not None else []
    if settings["max_loss"] is not None:
        asked.append(f"a loss of at most {settings['max_loss']:g} points on the pick split of every kept domain")
    wish = " and ".join(asked)
    if not chosen["size"]:
        return f"With {wish}, identity is the choice: no mask of the front is better. Every head is kept."
    test = chosen["test"]
    return (
        f"With {wish}, {chosen['mask']} is the choice: {change(test['delta'])} points of {measure(results)} on the "
        f"test split, 95 % interval {interval(test['interval'])}, {p_equals(test['p'])}. "
        f"{claim_sentence(test)}"
    )


def front_text(results: Results) -> str:
    """`front.md`.

    Arguments:
        results: what `headwise.jobs.front.front` returns and `front.json` holds.
    """
    data, chosen, kind = results["data"], results["chosen"], results["kind"]
    lines = [
        f"# Front: {markdown(results['model']['name'])} on {markdown(data['source'])}",
        "",
        markdown(verdict(results)),
        "",
        *([_caution(chosen), ""] if chosen and chosen["test_reads"] > 1 else []),
        "![The front](front.png)",
        "",
        f"{markdown(heading(results))}. Identity: {points(_main(results, 'search'))} on the search split "
        f"({size_of(data['splits']['search'])}), {points(_main(results, 'pick'))} on the pick split "
        f"({size_of(data['splits']['pick'])}).",
        "",
        *table(COLUMNS[kind], shown_rows(results)),
        "",
        "The search split is where the front was found: no mask there is beaten in both respects, and its figures "
        "flatter. The pick split was not searched; its figures, with their paired standard error, are what to "
        "choose by. The test split is read for the chosen mask alone.",
        "",
    ]
    if kind == "domains":
        lines += [
            "A kept domain's column shows the one that suffers most. Kept: "
            + "; ".join(f"{markdown(each['data']['source'])} ({size_of(each['data'])})" for each in results["kept"])
            + ".",
            "",
        ]
    if chosen and chosen["size"]:
        lines += _tested(results)
    ffe = ", ".join(f"{name} {value:.1f}" for name, value in results["ffe"].items())
    lines += [
        f"{counted(results['evaluated'], 'mask')} of {grid_of(results)} were tried, edit "
        f"{markdown(results['settings']['operator'])}; NSGA-II stopped by: {markdown(results['why'])}. Cost in FFE (passes of the image "
        f"tower over the split in question): {ffe}. headwise {results['headwise_version']}.",
        "",
    ]
    return "\n".join(lines)


def _main(results: Results, split: str) -> float:
    metrics = results["identity"][split]
    return metrics[main_metric(results, metrics)]


def _caution(chosen: Results) -> str:
    return (
        f"**Caution:** this study has read its test split for {chosen['test_reads']} different chosen masks. The "
        "interval and p do not account for that; the honest figure needs test data that were never used."
    )


def _tested(results: Results) -> list[str]:
    chosen, test = results["chosen"], results["chosen"]["test"]
    rows = []
    for name in test["after"]:
        main = name == main_metric(results, test["after"])
        tested = (interval(test["interval"]), p_value(test["p"])) if main else ("", "")
        before, after = test["before"][name], test["after"][name]
        rows.append((metric_name(name), points(before), points(after), change(after - before), *tested))
    size = size_of(results["data"]["splits"]["test"])
    lines = ["## The chosen mask on the test split", "", f"Mask {code(chosen['mask'])}, in `mask/`.", ""]
    lines += [*table((size, "before", "after", "change", "95 % interval", "p"), rows), ""]
    if chosen["kept"]:
        lines += [*table(KEPT_COLUMNS, kept_rows(chosen["kept"])), ""]
    return lines


# ---- the picture


def front_png(results: Results) -> bytes:
    """The front on the search and the pick split, and the chosen mask on the test split.

    Returns:
        A PNG. The same input gives the same bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    domains = results["kind"] == "domains"
    with drawing(size=9):
        figure = Figure(figsize=(6.4, 4.4), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axis = figure.subplots()
        axis.axhline(0, color="0.75", linewidth=0.8, zorder=0)
        if domains:
            axis.axvline(0, color="0.75", linewidth=0.8, zorder=0)
        rows = [_places(point, domains) for point in results["points"]]
        for (x, y), (x2, y2, _) in rows:  # the same mask on both splits
            axis.plot([x, x2], [y, y2], color="0.85", linewidth=0.8, zorder=1)
        search, pick = zip(*rows, strict=True)
        xs, ys = zip(*search, strict=True)
        axis.plot(xs, ys, "o-", color=SEARCH, markersize=5, label="search split, where it was found", zorder=3)
        xs, ys, errors = zip(*pick, strict=True)
        bars = {"color": PICK, "markersize": 5, "elinewidth": 1, "capsize": 2, "zorder": 2}
        axis.errorbar(xs, ys, yerr=errors, fmt="s", label="pick split ± standard error", **bars)
        _chosen(axis, results, domains)
        axis.set_ylabel(f"change of {picture(measure(results))}, points")
        axis.set_xlabel("change on the kept domain that suffers most, points" if domains else "suppressed heads")
        limit = results["settings"]["max_loss"]
        if limit is not None:
            axis.axvline(-limit, color="black", linestyle=":", linewidth=1.2, label=f"limit: −{limit:g} points")
        if not domains:
            axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False, fontsize=8)
        axis.set_title(picture(f"{results['model']['name']} on {results['data']['source']}"), fontsize=9)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _places(point: Results, domains: bool) -> tuple[tuple[float, float], tuple[float, float, float]]:
    """(x, y) on the search split and (x, y, error of y) on the pick split, in points."""
    search, pick = point["search"], point["pick"]
    x, x2 = point["size"], point["size"] + ASIDE
    if domains:
        x, x2 = 100 * min(search["kept"]), 100 * min(pick["kept"])
    return (x, 100 * search["delta"]), (x2, 100 * pick["delta"], 100 * pick["se"])


def _chosen(axis: Any, results: Results, domains: bool) -> None:
    """The chosen mask on the test split, with its interval."""
    chosen = results["chosen"]
    if not chosen:
        return
    x = 100 * min(domain["delta"] for domain in chosen["kept"]) if domains else chosen["size"] + 2 * ASIDE
    y, (low, high) = 100 * chosen["test"]["delta"], (100 * end for end in chosen["test"]["interval"])
    errors = [[max(0.0, y - low)], [max(0.0, high - y)]]
    label = "chosen mask, test split, 95 % interval"
    axis.errorbar([x], [y], yerr=errors, fmt="*", color=TEST, markersize=11, capsize=3, label=label, zorder=4)

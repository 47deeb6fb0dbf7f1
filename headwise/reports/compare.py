"""`compare.md` and `compare.png`: every method on the same splits, said plainly.

In: what `compare.json` holds. Out: Markdown, and the bytes of a forest plot. Nothing is claimed that the intervals do
not show.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

from headwise.plain import code, markdown, picture
from headwise.reports.drawing import drawing
from headwise.reports.words import change, claim, counted, interval, metric_name, p_value, points, short_name

Row = Mapping[str, Any]
RAW, PICKED = "#E66100", "#5D3A9B"  # told apart with every common colour blindness


def comparison_text(results: Mapping[str, Any]) -> str:
    """The comparison as Markdown.

    Arguments:
        results: what `headwise.compare` returns and `compare.json` holds.
    """
    data, settings = results["data"], results["settings"]
    sizes = data["splits"]
    measure = metric_name(settings["fitness"])
    lines = [
        f"# Comparison on {markdown(short_name(data['source']))}",
        "",
        f"Model {code(results['model']['name'])}, {sizes['search']:,} images to search or train on, {sizes['pick']:,} to "
        f"pick on, {sizes['test']:,} to test on ({markdown(data['split_how'])}). {counted(settings['repeats'], 'seed')}; "
        f"a search or training may cost {settings['budget']:,.0f} FFE (passes over the search split), what it starts from "
        "included.",
        "",
        "![Change on the test split](compare.png)",
        "",
        comparison_table(results),
        "",
        *(f"- {markdown(sentence)}" for sentence in findings(results)),
        "",
        f"*Test*: {markdown(measure)} on the test split, mean over seeds. *Picked*: its change in points against the unchanged "
        "model, with the 95 % bootstrap interval over test images and a sign-flip p; each method falls back to the "
        "unchanged model when its result does not win on the pick split. *By search*: the change without that, of the "
        "method's best on the data it searched or trained on, and its range over seeds. *Overlap*: mean Jaccard similarity of the suppressed heads between seeds. *Minutes*: "
        "as if the method ran alone on this machine. *Trained*: values learned. *Inference*: time per image "
        "against the unchanged model; masks that fold into the weights cost nothing. Choosing a method by "
        "this table is a selection on the test split; p is not corrected for the number of rows.",
    ]
    lines += [f"\n{markdown(out['method'])} was left out: {markdown(out['why'])}." for out in results["left_out"]]
    return "\n".join(lines) + "\n"


def comparison_table(results: Mapping[str, Any]) -> str:
    """The rows as a Markdown table."""
    domains = [f"{short_name(d['source'])}, picked / by search" for d in results["data"]["keep_domain"]]
    head = ["method", "edit", "heads", "test, %", "picked", "95 % interval", "p", "by search", "seeds' range"]
    head += ["overlap", "FFE", "minutes", "trained", "inference", *domains]
    lines = [_line(head), "|---|---|" + "---:|" * (len(head) - 2)]
    base = results["rows"][0]
    lines.append(_line([base["method"], "", "0", points(base["test"]["score"]), *[""] * (len(head) - 4)]))
    lines += [_line(_cells(row)) for row in results["rows"][1:]]
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(markdown, cells)) + " |"


def _cells(row: Row) -> list[str]:
    test, raw = row["test"], row["test_by_search"]
    spread = raw["deltas"]
    minutes = "—" if row["seconds"] is None else f"{'≥ ' if row.get('interrupted') else ''}{row['seconds'] / 60:.1f}"
    times = row["inference"]
    return [
        row["method"] + (f" ({row['runs']} masks)" if row["method"] == "random heads" else ""),
        row["operator"] or "—",
        _heads(row),
        points(test["score"]),
        change(test["delta"]),
        interval(test["interval"]),
        p_value(test["p"]),
        change(raw["delta"]),
        f"{change(min(spread))} to {change(max(spread))}" if len(spread) > 1 else "—",
        "—" if row["overlap"] is None else f"{row['overlap']:.2f}",
        "—" if row["ffe"] is None else f"{row['ffe']:.1f}",
        minutes,
        f"{row['trained']:,}",
        "in place" if times is None else f"{times:.2f}",
        *(
            f"{change(picked['delta'])} / {change(best['delta'])}"
            for picked, best in zip(row["keep_domain"], row["keep_domain_by_search"], strict=True)
        ),
    ]


def _heads(row: Row) -> str:
    """`3` or `0–4`: how many heads the runs suppress; for baselines how many runs were kept."""
    if row["heads"] is None:
        return f"kept {sum(row['kept'])} of {row['runs']}"
    low, high = min(row["heads"]), max(row["heads"])
    return str(low) if low == high else f"{low}–{high}"


def findings(results: Mapping[str, Any]) -> list[str]:
    """What the table shows, in sentences that claim no more than it does."""
    rows = [row for row in results["rows"][1:] if row["method"] != "random heads"]
    helped = [row for row in rows if claim(row["test"]) == "better"]
    hurt = [row for row in rows if claim(row["test"]) == "worse"]
    out = []
    if helped:
        best = max(helped, key=lambda row: row["test"]["delta"])
        names = ", ".join(_name(row, results) for row in helped)
        out.append(
            f"Better, by interval and p: {names}. The largest change is {change(best['test']['delta'])} points, "
            f"by {_name(best, results)}."
        )
    else:
        out.append(
            "For no method is an improvement on the test split shown (interval above 0, p at most 0.05, ten changed images)."
        )
    if hurt:
        out.append(f"Worse, by interval and p: {', '.join(_name(row, results) for row in hurt)}.")
    masks = [row for row in rows if row["heads"] is not None]
    trained = [row for row in rows if row["heads"] is None]
    if masks and trained:
        ours = max(masks, key=lambda row: row["test"]["delta"])
        theirs = max(trained, key=lambda row: row["test"]["delta"])
        gap = theirs["test"]["delta"] - ours["test"]["delta"]
        how = (
            f"{points(abs(gap))} points {'more' if gap > 0 else 'less'} than"
            if points(abs(gap)) != "0.00"
            else "as much as"
        )
        out.append(
            f"The best baseline, {theirs['method']} ({theirs['trained']:,} trained values), gains "
            f"{how} the best edit of heads ({_name(ours, results)})."
        )
    idle = [row for row in masks if not any(row["heads"])]
    if idle:
        out.append(
            f"The pick split kept the unchanged model for every seed of: {', '.join(_name(r, results) for r in idle)}."
        )
    for i, domain in enumerate(results["data"]["keep_domain"]):
        worse = [row for row in rows if claim(row["keep_domain"][i]) == "worse"]
        if worse:
            said = ", ".join(f"{_name(r, results)} {change(r['keep_domain'][i]['delta'])}" for r in worse)
            out.append(f"On {short_name(domain['source'])} these lose, by interval and p: {said}.")
    return out


def _name(row: Row, results: Mapping[str, Any]) -> str:
    several = len(results["settings"]["operators"]) > 1 and row["operator"]
    return f"{row['method']} ({row['operator']})" if several else row["method"]


def comparison_png(results: Mapping[str, Any]) -> bytes:
    """A forest plot: change on the test split with intervals, picked and by search, and every seed as a dot. With kept
    domains, below it: what each method gains here against what it loses there.

    Returns:
        A PNG. The same input gives the same bytes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, domains = results["rows"][1:][::-1], results["data"]["keep_domain"]
    forest = 1.7 + 0.42 * max(1, len(rows))
    measure, base = metric_name(results["settings"]["fitness"]), results["rows"][0]["test"]["score"]
    with drawing():
        figure = Figure(figsize=(8, forest + (4.2 if domains else 0)), dpi=150, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots(2 if domains else 1, squeeze=False, height_ratios=[forest, 4.2][: 2 if domains else 1])
        axis = axes[0][0]
        _forest(axis, rows)
        axis.set_title(
            f"Change of {picture(measure)} against the unchanged model ({points(base)} %), "
            f"{results['data']['splits']['test']:,} test images; right is better",
            fontsize=9,
            loc="left",
        )
        axis.set_xlabel("points (line: 95 % interval; ticks: seeds)", fontsize=9)
        handles, labels = axis.get_legend_handles_labels()
        if domains:
            _trade(axes[1][0], results["rows"][1:], domains)
        figure.legend(handles, labels, fontsize=8, frameon=False, loc="outside lower center", ncols=2)
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def _forest(axis: Any, rows: Sequence[Row]) -> None:
    axis.axvline(0, color="grey", linewidth=1)
    for y, row in enumerate(rows):
        kinds = (("test", 0.13, PICKED, "o", "picked on the pick split"),)
        if row["method"] != "random heads":
            kinds += (("test_by_search", -0.13, RAW, "D", "best by search or training"),)
        for field, shift, colour, marker, label in kinds:
            values = row[field]
            low, high = (100 * end for end in values["interval"])
            axis.plot([low, high], [y + shift] * 2, color=colour, linewidth=1.6)
            named = label if y == 0 else None
            axis.plot(100 * values["delta"], y + shift, marker, color=colour, markersize=5, label=named)
            seeds = [100 * value for value in values["deltas"]]
            if len(seeds) > 1:
                axis.plot(seeds, [y + shift] * len(seeds), "|", color=colour, markersize=6, alpha=0.6)
    axis.set_yticks(range(len(rows)), [picture(_both(row)) for row in rows], fontsize=9)
    axis.spines[["top", "right", "left"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
    _plain(axis, "x")


def _trade(axis: Any, rows: Sequence[Row], domains: Sequence[Mapping[str, Any]]) -> None:
    """Gain here against the change on the kept domain that suffers most, of what search or training found."""
    axis.axvline(0, color="grey", linewidth=1)
    axis.axhline(0, color="grey", linewidth=1)
    for row in rows:
        if row["method"] == "random heads":
            gain, kept = row["test"], row["keep_domain"]
        else:
            gain, kept = row["test_by_search"], row["keep_domain_by_search"]
        x, y = 100 * gain["delta"], 100 * min(one["delta"] for one in kept)
        axis.plot(x, y, "o" if row["heads"] is not None else "s", color=RAW, markersize=5)
        axis.annotate(picture(_both(row)), (x, y), xytext=(5, 4), textcoords="offset points", fontsize=8)
    where = short_name(domains[0]["source"]) if len(domains) == 1 else f"the worst of {len(domains)} kept domains"
    axis.set_title(
        "Gain against loss on old data, best by search or training; up and right is better", fontsize=9, loc="left"
    )
    axis.set_xlabel("change on the test split, points (● edits of heads, ■ trained weights)", fontsize=9)
    axis.set_ylabel(f"change on {picture(where)},\npoints", fontsize=9)
    axis.margins(0.15)
    axis.spines[["top", "right"]].set_visible(False)
    _plain(axis, "both")


def _both(row: Row) -> str:
    return f"{row['method']}" + (f" · {row['operator']}" if row["operator"] else "")


def _plain(axis: Any, which: str) -> None:
    axis.tick_params(axis=which, labelsize=8)
    axis.grid(axis=which, color="#dddddd", linewidth=0.6)
    axis.set_axisbelow(True)

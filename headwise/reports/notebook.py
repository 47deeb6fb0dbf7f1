"""Results in a notebook: what they say in a sentence or two, as a table, as HTML, as a picture.

In: results of a command, as their JSON holds them. Out: text, rows, HTML whose every value is
escaped, a picture. Other results say what they hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from headwise.edits.heads import Grid, Head
from headwise.errors import HeadwiseError
from headwise.evaluation.shown import table_html
from headwise.plain import line
from headwise.reports import compare, front, transfer
from headwise.reports.explanation import as_sweep
from headwise.reports.explanation import summary as explanation_summary
from headwise.reports.heatmap import heatmap_png
from headwise.reports.words import (
    against_sentence,
    change,
    interval,
    main_metric,
    metric_name,
    p_value,
    points,
    row_of,
    verdict,
)

Results = Mapping[str, Any]
Rows = list[dict[str, Any]]
MARKS = {  # keys that only this command's results have together
    "compare": {"rows", "left_out"},
    "transfer": {"masks", "best"},
    "front": {"points", "evaluated"},
    "inspect": {"edits", "tokens"},
}


def kind_of(results: Results) -> str:
    """Which command's results these are: refine, sweep, explain, evaluate, compare, transfer, front, inspect, or other."""
    if "test" in results and "chosen" in results:
        return "refine"
    for kind, keys in MARKS.items():
        if keys <= results.keys():
            return kind
    if "patterns" in results and "heads" in results:
        return "explain"
    if isinstance(results.get("sweep"), Mapping):
        return "sweep"
    return "evaluate" if "metrics" in results else "other"


def summary(results: Results) -> str:
    """What the results say, in sentences."""
    kind = kind_of(results)
    if kind == "refine":
        return verdict(results)
    if kind == "explain":
        return " ".join([*explanation_summary(results), *results["patterns"]["sentences"]])
    if kind == "sweep":
        best = max(results["sweep"]["heads"], key=lambda head: head["delta"])
        measure = metric_name(main_metric(results, results["sweep"]["identity"]))
        how = "most for the better" if best["delta"] > 0 else "least, no head for the better"
        return (
            f"{results['model']} on {results['data']['source']}: suppressing {best['head']} alone "
            f"({results['sweep']['operator']}) changes {measure} {how}, {change(best['delta'])} points "
            f"(p {p_value(best['p_max_t'])} after looking at all {len(results['sweep']['heads'])} heads). Nothing was held out."
        )
    if kind == "evaluate":
        name, value = next(iter(results["metrics"].items()))
        if "mean_recall" in results["metrics"]:
            name, value = "mean_recall", results["metrics"]["mean_recall"]
        if "against" in results:
            return against_sentence(results)
        return (
            f"{results['model']}, mask {results['mask']}, on {results['dataset']} ({results['images']:,} images): "
            f"{metric_name(name)} {points(value)} %."
        )
    if kind == "compare":
        return " ".join(compare.findings(results))
    if kind == "transfer":
        return transfer.best_sentence(results)
    if kind == "front":
        return front.verdict(results)
    if kind == "inspect":
        return (
            f"{results['name']} ({results['family']}): {results['heads']} heads in {len(results['layers'])} layers, "
            f"{results['parameters']:,} parameters of the image tower."
        )
    return "Results with " + ", ".join(map(str, results)) + "."


def rows_of(results: Results) -> Rows:
    """The main table, a row for each head, or for each metric: plain values under short names.

    Raises:
        HeadwiseError: results without a table.
    """
    kind = kind_of(results)
    if kind in ("refine", "sweep"):
        sweeps = results["sweep"] if kind == "refine" else [results["sweep"]]
        chosen = results.get("chosen", {"edits": {}})
        return [
            {
                "head": head["head"],
                "operator": sweep["operator"],
                "change": head["delta"],
                "loss_change": head["loss_delta"],
                "p": head["p_max_t"],
                **({"chosen": chosen["edits"].get(head["head"]) == sweep["operator"]} if kind == "refine" else {}),
            }
            for sweep in sweeps
            for head in sweep["heads"]
        ]
    if kind == "explain":
        return [_explained(head) for head in results["heads"]]
    if kind == "evaluate":
        return [{"metric": name, "value": value} for name, value in results["metrics"].items()]
    if kind == "compare":
        return [_compared(row) for row in results["rows"]]
    if kind == "transfer":
        return [
            {"mask": row["mask"], "found_on": row["found_on"], "data": data["source"], **_change(row["test"][i])}
            for row in results["masks"]
            for i, data in enumerate(results["data"])
        ]
    if kind == "front":
        return [_point(point) for point in results["points"]]
    if kind == "inspect":
        return [
            {"edit": name, **{k: v for k, v in one.items() if k != "rows"}} for name, one in results["edits"].items()
        ]
    raise HeadwiseError("These results have no table of heads or metrics; look at their keys.")


def _change(tested: Mapping[str, Any]) -> dict[str, Any]:
    low, high = tested["interval"]
    return {"change": tested["delta"], "low": low, "high": high, "p": tested["p"]}


def _compared(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "method": row["method"],
        "operator": row["operator"],
        "runs": row["runs"],
        "heads": row["heads"] and sum(row["heads"]) / len(row["heads"]),
        **_change(row["test"]),
        "change_by_search": row["test_by_search"]["delta"],
        "ffe": row["ffe"],
        "trained": row["trained"],
    }


def _point(point: Mapping[str, Any]) -> dict[str, Any]:
    pick = point["pick"]
    return {
        "mask": point["mask"],
        "heads": point["size"],
        "search": point["search"]["delta"],
        "pick": pick["delta"],
        "pick_se": pick["se"],
        **({"worst_kept": min(pick["kept"])} if pick["kept"] else {}),
        "chosen": point["chosen"],
    }


def _explained(head: Mapping[str, Any]) -> dict[str, Any]:
    text = next(iter((head["labels"] or {}).get("texts", ())), None) or {}
    best = max(head["attributes"], key=lambda one: one["carried"], default=None)
    return {
        "head": head["head"],
        "edited": head["edited"],
        "effect": head["effect"]["size"],
        "change_without": head["queries"] and head["queries"]["delta"],
        "label": text.get("text"),
        "label_r": text.get("r"),
        "label_q": text.get("q"),
        "attribute": best and best["name"],
        "attribute_r": best and best["carried"],
        "attribute_p": best and best["carried_p"],
        "entropy": head["attention"]["entropy"],
        "sink": head["attention"]["sink"],
    }


def html(results: Results) -> str:
    """A cell's worth of HTML: the summary and the start of the table; of a refine the test table."""
    if kind_of(results) == "refine":
        metric = main_metric(results, row_of(results, "identity")["metrics"])
        rows: Rows = [
            {
                "test split": row["what"],
                "heads": row["size"],
                f"{metric_name(metric)}, %": points(row["metrics"][metric]),
                "change, points": change(row["delta"]) if row["size"] else "",
                "95 % interval": interval(row["interval"]) if row["size"] else "",
                "p": p_value(row["p"]) if row["size"] else "",
            }
            for row in results["test"]
        ]
    else:
        rows = rows_of(results) if kind_of(results) != "other" else []
        if rows and "change" in rows[0]:
            rows = sorted(rows, key=lambda row: -row["change"])
    return f"<p>{escape(line(summary(results)))}</p>{table_html(rows)}"


def picture_png(results: Results) -> bytes:
    """The heat map of every head, or the chart of a comparison, a transfer or a front, as PNG.

    Raises:
        HeadwiseError: results that have no picture.
    """
    kind = kind_of(results)
    if kind == "refine":
        return heatmap_png(results)
    if kind == "sweep":
        grid = Grid.spanned(Head.parse(head["head"]) for head in results["sweep"]["heads"])
        model = {"layers": list(grid.layers), "pool_heads": grid.pool}
        return heatmap_png({**results, "model": model, "sweep": [results["sweep"]]})
    if kind == "explain" and (sweep := as_sweep(results)):
        return heatmap_png({**results, "sweep": [sweep]})
    if kind == "compare":
        return compare.comparison_png(results)
    if kind == "transfer":
        return transfer.transfer_png(results)
    if kind == "front":
        return front.front_png(results)
    raise HeadwiseError("There is no sweep to draw, and no chart: results of evaluate and inspect have no picture.")

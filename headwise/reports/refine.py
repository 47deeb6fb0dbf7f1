"""`report.md` with its heat map: what was measured, said plainly, with what it cannot show.

In: results as `results.json` holds them. Out: Markdown, from the template beside this file. `page.py` is the same for
a browser; sentences that judge are in `words.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headwise.files import write_files
from headwise.plain import argument, json_text
from headwise.reports.beside import beside
from headwise.reports.heatmap import heatmap_png
from headwise.reports.kept import kept_section
from headwise.reports.rungs import learned, rule_sentence
from headwise.reports.templates import render
from headwise.reports.weights import weights_section
from headwise.reports.words import Results, first_order_scores, grid_of, main_metric, metric_name

REPORT_FILE = "report.md"
HEATMAP_FILE = "heads.png"
SHOWN_HEADS = 5  # of every operator's sweep


def write_report(results: Results, folder: str | Path) -> Path:
    """Write `report.md` and `heads.png` into the output folder.

    Arguments:
        results: what `headwise.refine` returns and `results.json` holds.
        folder: the output folder; whether it holds `model/` decides what the report says of it.

    Returns:
        The path of the report.

    Raises:
        HeadwiseError: the results lack a field, or the folder cannot be written.
    """
    folder = Path(folder)
    text = report_text(results, name=folder.resolve().name, merged=(folder / "model").is_dir())
    picture = {HEATMAP_FILE: heatmap_png(results)} if mapped(results) else {}
    write_files(folder, {**picture, REPORT_FILE: text})
    return folder / REPORT_FILE


def mapped(results: Results) -> bool:
    """Whether heads were scored one by one, so that there is a map of them; learned rungs alone do not need it."""
    return bool(results.get("sweep") or results.get("first_order"))


def report_text(results: Results, *, name: str = "refined", merged: bool = True) -> str:
    """The report as Markdown.

    Arguments:
        results: as for `write_report`.
        name: what to call the output folder in examples.
        merged: the output folder holds a merged model.
    """
    return render(
        "refine.md.j2",
        results,
        folder=name,
        merged=merged,
        heatmap=HEATMAP_FILE,
        mapped=lambda: mapped(results),
        sweeps=lambda: [_summary(results, sweep) for sweep in results["sweep"]],
        unswept=lambda: [_first_order(first) for first in results.get("first_order", []) if not results["sweep"]],
        chosen_heads=lambda: _chosen_heads(results),
        finalists=lambda: finalists_of(results),
        searches=lambda: [{**one, "notes": _notes(one)} for one in results.get("strategies", [])],
        rule=lambda: rule_sentence(results),
        learned=learned,
        identity_is_chosen=lambda: not results["chosen"]["size"],
        beside=lambda: beside(results),
        kept_section=lambda: kept_section(results),
        weights_section=lambda: weights_section(results),
        main=lambda: metric_name(main_metric(results, results["test"][0]["metrics"])),
        quote=argument,
        dump=lambda value: json_text(value, indent=2),
    )


def _summary(results: Results, sweep: Results) -> dict[str, Any]:
    heads = sorted(sweep["heads"], key=lambda head: (-head["delta"], head["loss_delta"]))
    first = next((one for one in results.get("first_order", []) if one["operator"] == sweep["operator"]), None)
    return {
        "first": first,
        "scores": first_order_scores(first),
        "operator": sweep["operator"],
        "total": grid_of(results).size,
        "gains": sum(head["delta"] > 0 for head in heads),
        "sure": [head["head"] for head in heads if head["delta"] > 0 and head["p_max_t"] < 0.05],
        "top": heads[:SHOWN_HEADS],
    }


def _first_order(first: Results) -> dict[str, Any]:
    heads = sorted(first["heads"], key=lambda head: -head["score"])
    harmful = sum(head["score"] > 0 for head in heads)
    return {**first, "total": len(heads), "harmful": harmful, "top": heads[:SHOWN_HEADS]}


def _chosen_heads(results: Results) -> list[dict[str, Any]]:
    """Every edited head with its edit and what the sweep of the same edit measured for it alone."""
    alone = {(sweep["operator"], head["head"]): head for sweep in results["sweep"] for head in sweep["heads"]}
    unknown = {"delta": None, "loss_delta": None, "p_max_t": None}  # an edit that was not swept
    return [
        {"edit": edit, **alone.get((edit, name), unknown), "head": name}
        for name, edit in results["chosen"]["edits"].items()
    ]


def _notes(one: Results) -> str:
    """What else a strategy has to say: why it ended, how far its estimates agreed with exact runs."""
    notes = [f"ended by: {one['why']}"] if "why" in one else []
    if "best_epoch" in one:
        notes.append(f"{'values' if 'values' in one else 'gates'} of epoch {one['best_epoch']}")
    if "estimated" in one:
        agreement = one["agreement"]
        how = "not known" if agreement is None else f"{agreement:.2f}"
        notes.append(f"{one['estimated']} masks estimated; rank agreement with exact runs {how}")
        if one["exact_after"] is not None:
            notes.append(f"exact runs alone after {one['exact_after']:.1f} FFE")
    return "; ".join(notes)


def finalists_of(results: Results) -> list[dict[str, Any]]:
    """The finalists with their gain on the search split, which the searches maximised."""
    rows = results["finalists"]
    base = next((row["search"] for row in rows if row["mask"] == "identity"), None)
    out = []
    for row in rows:
        main = main_metric(results, row["search"])
        out.append({**row, "search_delta": None if base is None else row["search"][main] - base[main]})
    return out

"""`report.html`: one self-contained page from what a run measured, readable offline, by keyboard, in print.

In: results as `results.json` holds them, a gallery of queries, what heads were found to do, the masks that were evaluated.
Out: HTML text, the same for the same input: no dates, nothing fetched (a Content-Security-Policy forbids it), pictures
and data inside. It computes nothing that was not measured.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

from headwise.report import figures
from headwise.report.gallery import Gallery, as_json
from headwise.report.refine import finalists_of
from headwise.report.words import (
    Results,
    grid_of,
    main_metric,
    metric_name,
    power_sentence,
    reads_sentence,
    render_page,
)

PAGE_FILE = "report.html"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
TASKS = {
    "image_retrieval": "text → image",
    "text_retrieval": "image → text",
    "classification": "class of an image",
    "cola_multi_object": "pair of Cola",
    "cola_single_object": "query of Cola",
}

Card = Mapping[str, Any]  # title, lines (texts), pictures (keys)


def page_html(
    results: Results,
    *,
    name: str = "refined",
    merged: bool = True,
    gallery: Gallery | None = None,
    why_no_gallery: str = "",
    evaluations: Sequence[tuple[int, float]] = (),
    cards: Mapping[str, Sequence[Card]] | None = None,
    pictures: Mapping[str, str] | None = None,
    others: Sequence[tuple[str, str]] = (),
) -> str:
    """The page.

    Arguments:
        results: what `headwise.refine` returns and `results.json` holds.
        name: what to call the output folder in examples.
        merged: the output folder holds a merged model.
        gallery: queries gained and lost on the test split.
        why_no_gallery: what to say where there is none.
        evaluations: (heads, fitness) of every mask on the search split, in any order.
        cards: head → what else is known of it.
        pictures: key → data URI, of the cards' pictures.
        others: (title, Markdown text) of a comparison, a transfer or a front in the same folder.

    Raises:
        HeadwiseError: the results lack a field.
    """
    grid = grid_of(results)
    names = [[str(grid.head(row, index)) for index in range(count)] for row, count in enumerate(grid.rows)]
    sweeps = _sweeps(results)
    edited = {head: _edit(results, head) for head in results["chosen"]["heads"]}
    shown = dict(pictures or {}) | dict(gallery.pictures if gallery else {})
    data = {
        "sweeps": sweeps,
        "edited": edited,
        "cards": {head: list(found) for head, found in (cards or {}).items()},
        "pictures": shown,
        "first": _first(edited, sweeps, names),
    }
    identity = next(row for row in results["test"] if row["what"] == "identity")
    main = main_metric(results, identity["metrics"])
    search = results["sweep"][0]["identity"] if results["sweep"] else results["finalists"][0]["search"]
    return render_page(
        "page.html.j2",
        results,
        policy=POLICY,
        style=_text("page.css"),
        script=_text("page.js"),
        data=_json(data),
        folder=shlex.quote(name),
        quoted_model=shlex.quote(str(results["model"]["name"])),
        quoted_source=shlex.quote(str(results["data"]["source"])),
        merged=merged,
        main=metric_name(main),
        main_key=main,
        rows=[(grid.row_name(row), heads) for row, heads in enumerate(names)],
        widest=max(len(heads) for heads in names),
        sweeps=sweeps,
        edited=edited,
        has_cards=bool(cards),
        forest=figures.forest(
            [
                (row["what"], row["delta"], row["interval"] if row["size"] else None)
                for row in results["test"]
                if row["what"] != "identity"
            ],
            f"Change of {metric_name(main)} on the test split, points, with 95 % intervals",
        ),
        landscape=figures.landscape(
            evaluations,
            search[main] if main in search else next(iter(search.values())),
            f"Change of {metric_name(main)} on the search split of every mask that was evaluated",
        ),
        finalists=finalists_of(results),
        cautions=[
            text for text in (power_sentence(results), reads_sentence(results), *results.get("warnings", ())) if text
        ],
        gallery=gallery,
        gained=as_json(gallery.gained) if gallery else [],
        lost=as_json(gallery.lost) if gallery else [],
        tasks=TASKS,
        why_no_gallery=why_no_gallery,
        others=others,
        settings=json.dumps(results["settings"], indent=2, ensure_ascii=False),
    )


def _sweeps(results: Results) -> list[dict[str, Any]]:
    """Per operator the value of every head, positive where suppressing it helps, and the value of the fullest colour."""
    found = []
    for sweep in results["sweep"]:
        heads = {
            head["head"]: {"value": head["delta"], "loss": head["loss_delta"], "p": head["p_max_t"]}
            for head in sweep["heads"]
        }
        found.append({"operator": sweep["operator"], "exact": True, "heads": heads})
    swept = {sweep["operator"] for sweep in results["sweep"]}
    for first in results.get("first_order", []):
        if first["operator"] not in swept:
            heads = {head["head"]: {"value": head["score"], "loss": None, "p": None} for head in first["heads"]}
            found.append({"operator": first["operator"], "exact": False, "heads": heads})
    for sweep in found:
        sweep["scale"] = max((abs(head["value"]) for head in sweep["heads"].values()), default=0.0) or 1.0
    return found


def _edit(results: Results, head: str) -> str:
    chosen = results["chosen"]
    gate = chosen["gates"].get(head, 0.0)
    return f"{chosen['operator']}" + ("" if gate == 0 else f", gate {gate:.3g}")


def _first(edited: Mapping[str, str], sweeps: Sequence[Mapping], names: Sequence[Sequence[str]]) -> str:
    """The head whose card is open at first: a chosen one, else the most harmful."""
    if edited:
        return next(iter(edited))
    if sweeps and sweeps[0]["heads"]:
        return max(sweeps[0]["heads"], key=lambda head: sweeps[0]["heads"][head]["value"])
    return names[0][0]


def _json(value: object) -> str:
    """JSON that no text in it can break out of: `<` and the two line separators that old scripts choke on."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def _text(name: str) -> str:
    return resources.files("headwise.report").joinpath(name).read_text(encoding="utf-8")

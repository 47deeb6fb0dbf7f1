"""`report.html`: one self-contained page from what a run measured, readable offline, by keyboard, in print.

In: results as `results.json` holds them, a gallery of queries, what heads were found to do, the masks that were evaluated.
Out: HTML text, the same for the same input: no dates, nothing fetched (a Content-Security-Policy forbids it), pictures
and data inside. It computes nothing that was not measured.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import resources
from typing import Any

from markupsafe import Markup

from headwise.edits.heads import Grid
from headwise.reports import figures
from headwise.reports.beside import beside
from headwise.reports.gallery import Gallery, as_json
from headwise.reports.head_cards import NONE, Heads
from headwise.reports.refine import finalists_of
from headwise.reports.stages import stages
from headwise.reports.templates import render_page
from headwise.reports.words import Results, grid_of, main_metric, metric_name, power_sentence, reads_sentence

PAGE_FILE = "report.html"
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
TASKS = {
    "image_retrieval": "text → image",
    "text_retrieval": "image → text",
    "classification": "class of an image",
    "cola_multi_object": "pair of Cola",
    "cola_single_object": "query of Cola",
}


def page_html(
    results: Results,
    *,
    name: str = "refined",
    merged: bool = True,
    gallery: Gallery | None = None,
    why_no_gallery: str = "",
    evaluations: Sequence[tuple[int, float]] = (),
    fitness: Mapping[str, float | None] | None = None,
    heads: Heads = NONE,
    others: Sequence[tuple[str, Markup]] = (),
) -> str:
    """The page.

    Arguments:
        results: what `headwise.refine` returns and `results.json` holds.
        name: what to call the output folder in examples.
        merged: the output folder holds a merged model.
        gallery: queries gained and lost on the test split.
        why_no_gallery: what to say where there is none.
        evaluations: (heads, fitness) of every mask on the search split, in any order.
        fitness: mask as people read it → its fitness there.
        heads: what an explanation says of each.
        others: (title, HTML) of a comparison, a transfer or a front in the same folder.

    Raises:
        HeadwiseError: the results lack a field.
    """
    shown = dict(heads.pictures) | dict(gallery.pictures if gallery else {})
    values = heads_of(results, replace(heads, pictures=shown))
    main = _main(results)
    search = results["sweep"][0]["identity"] if results["sweep"] else results["finalists"][0]["search"]
    base = search[main] if main in search else next(iter(search.values()))
    return render_page(
        "page.html.j2",
        results,
        policy=POLICY,
        style=packed("page.css"),
        script=packed("page.js"),
        data=script_json(values.pop("data")),
        folder=shlex.quote(name),
        quoted_model=shlex.quote(str(results["model"]["name"])),
        quoted_source=shlex.quote(str(results["data"]["source"])),
        merged=merged,
        main_key=main,
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
            base,
            f"Change of {metric_name(main)} on the search split of every mask that was evaluated",
        ),
        course=figures.course(
            [(one["stage"], one["ffe"], one["fitness"]) for one in results.get("progress", ())],
            base,
            f"Best change of {metric_name(main)} on the search split so far, points, against FFE spent",
        ),
        courses=list(dict.fromkeys(one["stage"] for one in results.get("progress", ()))),
        stages=stages(results, fitness or {}, base),
        finalists=finalists_of(results),
        cautions=[
            text for text in (power_sentence(results), reads_sentence(results), *results.get("warnings", ())) if text
        ],
        beside=beside(results),
        gallery=gallery,
        gained=as_json(gallery.gained) if gallery else [],
        lost=as_json(gallery.lost) if gallery else [],
        tasks=TASKS,
        why_no_gallery=why_no_gallery,
        others=others,
        settings=json.dumps(results["settings"], indent=2, ensure_ascii=False),
        **values,
    )


def heads_of(results: Results, heads: Heads) -> dict[str, Any]:
    """What `heads.html.j2` needs of a run, and `data` for the page's script: map, edits, cards, pictures."""
    edited = {head: _edit(results, head) for head in results["chosen"]["heads"]}
    return heads_shown(grid_of(results), sweeps_of(results), edited, _main(results), heads)


def heads_shown(
    grid: Grid,
    sweeps: list[dict[str, Any]],
    edited: Mapping[str, str],
    main: str,
    heads: Heads,
    *,
    where: str = "on the search split",
    judged: bool = True,
) -> dict[str, Any]:
    """The same of heads that no run chose among.

    Arguments:
        grid: of the model.
        sweeps: as `sweeps_of` makes them.
        edited: head → what is done to it.
        main: the metric whose changes the values are.
        heads: as for `page_html`.
        where: the values were measured.
        judged: a test split judges what was chosen.
    """
    names = [[str(grid.head(row, index)) for index in range(count)] for row, count in enumerate(grid.rows)]
    return {
        "data": {
            "sweeps": sweeps,
            "edited": dict(edited),
            "cards": {head: list(found) for head, found in heads.cards.items()},
            "pictures": dict(heads.pictures),
            "first": _first(edited, sweeps, names),
        },
        "main": metric_name(main),
        "where": where,
        "judged": judged,
        "corrected": any(head["p"] is not None for sweep in sweeps for head in sweep["heads"].values()),
        "rows": [(grid.row_name(row), own) for row, own in enumerate(names)],
        "widest": max(map(len, names)),
        "sweeps": sweeps,
        "edited": edited,
        "cards": heads.cards,
        "pictures": heads.pictures,
        "why_no_cards": heads.why,
    }


def _main(results: Results) -> str:
    return main_metric(results, next(row for row in results["test"] if row["what"] == "identity")["metrics"])


def sweeps_of(results: Results) -> list[dict[str, Any]]:
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
    return str(results["chosen"]["edits"].get(head, ""))


def _first(edited: Mapping[str, str], sweeps: Sequence[Mapping], names: Sequence[Sequence[str]]) -> str:
    """The head whose card is open at first: a chosen one, else the most harmful."""
    if edited:
        return next(iter(edited))
    if sweeps and sweeps[0]["heads"]:
        return max(sweeps[0]["heads"], key=lambda head: sweeps[0]["heads"][head]["value"])
    return names[0][0]


def script_json(value: object) -> str:
    """JSON that no text in it can break out of: `<` and the two line separators that old scripts choke on."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return text.replace("<", "\\u003c").replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")


@cache
def packed(*names: str) -> str:
    """Files of this folder, one after the other."""
    return "".join(_text(name) for name in names)


def _text(name: str) -> str:
    return resources.files("headwise.reports").joinpath(name).read_text(encoding="utf-8")

"""The explorer's page: the report's heads and their cards, with switches, and places for what the server answers.

In: results as `results.json` holds them, cards of an explanation, what the session shows. Out: HTML text. It holds no
picture of the images shown: they are asked for by number.
"""

from __future__ import annotations

from collections.abc import Sequence

from headwise.edits.edit import KINDS
from headwise.edits.mask import Mask
from headwise.reports.head_cards import Heads
from headwise.reports.page import heads_of, packed, script_json
from headwise.reports.templates import render_page
from headwise.reports.words import Results, metric_name

POLICY = (
    "default-src 'none'; img-src 'self' data:; connect-src 'self'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


def explore_html(
    results: Results,
    *,
    mask: Mask,
    operators: Sequence[str],
    widest: float,
    names: Sequence[str],
    points: Sequence[float],
    metrics: Sequence[str],
    texts: bool,
    heads: Heads,
) -> str:
    """The page.

    Arguments:
        results: of the run.
        mask: what the page begins with.
        operators: the letters that a head that is switched off may have.
        widest: the largest scale of a head.
        names: of the images shown.
        points: x, y of every image's unchanged embedding on a plane.
        metrics: names of what is measured.
        texts: the model has a text tower.
        heads: as for the report's page.
    """
    values = heads_of(results, heads)
    live = {
        "edits": {str(head): str(edit) for head, edit in mask.edits.items()},
        "widest": widest,
        "names": list(names),
        "points": list(points),
        "metrics": {name: metric_name(name) for name in metrics},
    }
    swept = [sweep["operator"] for sweep in results["sweep"]]
    return render_page(
        "explore.html.j2",
        results,
        style=packed("page.css", "explore.css"),
        script=packed("page.js", "explore.js"),
        data=script_json(values.pop("data") | {"live": live}),
        images=len(names),
        operators=[(name, KINDS[name].about) for name in operators],
        operator=next((name for name in (*mask.names, *swept) if name in operators), "zero"),
        texts=texts,
        live=True,
        **values,
    )

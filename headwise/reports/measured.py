"""`report.html` of a folder that holds no finished `refine`: what a sweep, an explanation or another command left there.

In: what `sweep.json` and `explanation.json` hold, cards of heads, the texts of other commands. Out: HTML text, the same
for the same input, under the rules of `page.py`. A part without data is left out. Nothing here was held out for a test,
so nothing is judged.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.reports.explanation import as_sweep
from headwise.reports.head_cards import NONE, Heads
from headwise.reports.notebook import summary
from headwise.reports.page import POLICY, heads_shown, packed, script_json, sweeps_of
from headwise.reports.templates import render_page
from headwise.reports.words import Results, first_order_agreement, grid_of, main_metric

SHOWN = 5  # heads at either end of the sweep


def measured_html(
    sweep: Results | None,
    explanation: Results | None,
    *,
    name: str,
    heads: Heads = NONE,
    others: Sequence[tuple[str, Markup]] = (),
) -> str:
    """The page.

    Arguments:
        sweep: what `sweep.json` holds; None: there is none.
        explanation: what `explanation.json` holds, of the same model and pairs; None: there is none.
        name: of the folder, for the title where nothing else gives one, and for examples.
        heads, others: as for `page_html`.

    Raises:
        HeadwiseError: the results lack a field, or name what is no head.
        KeyError, TypeError, AttributeError: the same, of other fields.
    """
    values: dict[str, Any] = {"data": {"sweeps": [], "edited": {}, "cards": {}, "pictures": {}, "first": ""}}
    if sweep or explanation:
        values = _heads(sweep, explanation, heads)
    told = [one for one in (sweep, explanation) if one]
    model, source = _about(told[0]) if told else ("", "")
    return render_page(
        "measured.html.j2",
        {},
        policy=POLICY,
        style=packed("page.css"),
        script=packed("page.js"),
        data=script_json(values.pop("data")),
        title=f"{model} on {source}" if told else name,
        sentences=[summary(one) for one in told],
        sweep=sweep,
        ends=_ends(sweep) if sweep else (),
        agreement=first_order_agreement(sweep["first_order"]) if sweep and sweep.get("first_order") else "",
        explanation=explanation,
        commands=_commands(sweep, explanation, shlex.quote(name)),
        others=others,
        why_no_cards=values.pop("why_no_cards", heads.why),
        **values,
    )


def _about(results: Results) -> tuple[str, str]:
    """The names of the model and of the pairs."""
    model = results["model"]
    return str(model["name"] if isinstance(model, Mapping) else model), str(results["data"]["source"])


def _heads(sweep: Results | None, explanation: Results | None, heads: Heads) -> dict[str, Any]:
    """What `heads.html.j2` needs: the values of the sweep, else those of the explanation."""
    edited = _edited(explanation) if explanation else {}
    if sweep:
        found, where = [sweep["sweep"]], "on the pairs given"
        main = main_metric(sweep, sweep["sweep"]["identity"])
        grid = Grid.spanned(Head.parse(one["head"]) for one in sweep["sweep"]["heads"])
    else:
        assert explanation is not None
        one, where = as_sweep(explanation), "on the images for checking"
        found, main, grid = [one] if one else [], explanation["settings"]["fitness"] or "", grid_of(explanation)
    promised = (sweep.get("first_order") or {}).get("table", []) if sweep else []
    shown = sweeps_of({"sweep": found, "first_order": promised})
    return heads_shown(grid, shown, edited, main, heads, where=where, judged=False)


def _edited(explanation: Results) -> dict[str, str]:
    """Head → what the mask that was given does to it."""
    named = explanation["settings"]["mask"]
    if not named:
        return {}
    mask = Mask.parse(grid_of(explanation), named)
    return {str(head): str(edit) for head, edit in mask.edits.items()}


def _ends(sweep: Results) -> list[tuple[str, list[Mapping[str, Any]]]]:
    """The heads that suppressing helps and harms most, where it does either."""
    ordered = sorted(sweep["sweep"]["heads"], key=lambda head: (-head["delta"], head["loss_delta"]))
    helps = [head for head in ordered if head["delta"] > 0][:SHOWN]
    harms = [head for head in reversed(ordered) if head["delta"] < 0][:SHOWN]
    return [(title, heads) for title, heads in (("Harmful", helps), ("Useful", harms)) if heads]


def _commands(sweep: Results | None, explanation: Results | None, folder: str) -> list[str]:
    """The commands that make the folder again, without the options of how a source is read."""
    found = []
    if sweep:
        model, source = map(shlex.quote, _about(sweep))
        more = " --first-order" if sweep.get("first_order") else ""
        found.append(f"headwise sweep {model} {source} -o {folder} --operator {sweep['sweep']['operator']}{more}")
    if explanation:
        model, source = map(shlex.quote, _about(explanation))
        settings = explanation["settings"]
        mask = f" --mask {shlex.quote(settings['mask'])}" if settings["mask"] else ""
        inside = f"{folder}/explanation" if sweep else folder
        found.append(
            f"headwise explain {model} {source} -o {inside} --operator {settings['operator']} "
            f"--seed {settings['seed']}{mask}"
        )
    return found

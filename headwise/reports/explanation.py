"""`explanation.md`: what the heads do, said plainly, with what speaks against it.

In: what `explanation.json` holds. Out: Markdown. A head that abstains is said to, and a label is shown with its
check.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headwise.plain import code, line, markdown
from headwise.reports.words import change, listed, metric_name, points

SHOWN = 3  # attributes and pictures a head
Card = Mapping


def explanation_text(results: Mapping) -> str:
    """The Markdown of one explanation.

    Arguments:
        results: what explanation.json holds.
    """
    lines = ["# What the heads do", "", *_about(results), "", "## In short", ""]
    lines += [f"- {markdown(sentence)}" for sentence in summary(results)]
    lines += ["", "## Heads", "", *_table(results)]
    if results["repeated"]:
        lines += ["", "Texts that label several heads say nothing about one of them alone: "]
        lines[-1] += (
            "; ".join(f"“{markdown(one['text'])}” ({', '.join(one['heads'])})" for one in results["repeated"]) + "."
        )
    lines += ["", "## Labels and what speaks for them", "", *_labels(results)]
    lines += ["", "## Patterns", "", *(f"- {markdown(sentence)}" for sentence in results["patterns"]["sentences"] or ["Nothing could be tested."])]  # fmt: skip
    lines += ["", "## How to read this", "", *_notes(results)]
    return "\n".join(lines) + "\n"


def as_sweep(results: Mapping) -> dict[str, Any] | None:
    """What removing each head does to the metric, as a sweep in results has it; None where no metric was measured."""
    heads = [
        {"head": head["head"], "delta": head["queries"]["delta"], "loss_delta": None, "p_max_t": None}
        for head in results["heads"]
        if head["queries"]
    ]
    sweep = {"operator": results["settings"]["operator"], "identity": results["identity"], "heads": heads}
    return sweep if heads else None


def summary(results: Mapping) -> list[str]:
    """The main findings, one sentence each."""
    heads = results["heads"]
    said = []
    labelled = [card for card in heads if card["labels"] and not card["labels"]["abstains"]]
    if any(card["labels"] for card in heads):
        good = [card["head"] for card in labelled if any(_holds(text) for text in card["labels"]["texts"])]
        said.append(
            f"{len(labelled)} of {len(heads)} heads have labels that explain more than chance; those of {len(good)} hold "
            f"on other images{': ' + listed(good) if good else ''}."
        )
    else:
        said.append("No labels: the model has no text tower.")
    carried = sorted(
        ((one["carried"], one["name"], card["head"], one["embedding"]) for card in heads for one in card["attributes"]
         if one["carried_p"] < 0.05), reverse=True)  # fmt: skip
    if carried:
        r, name, head, whole = carried[0]
        count = len({one[2] for one in carried})
        said.append(
            f"The effects of {count} of {len(heads)} heads carry an attribute of the picture; best {name} in {head}: "
            f"r = {r:.2f} on other images (the whole embedding: {whole:.2f})."
        )
    acting = sorted(
        ((abs(one["size"]), one["size"], one["name"], card["head"]) for card in heads for one in card["attributes"]
         if one["size_p"] < 0.05), reverse=True)  # fmt: skip
    if acting:
        _, r, name, head = acting[0]
        said.append(f"Which pictures a head acts on follows the picture most in {head}: {name}, r = {r:+.2f}.")
    if results["identity"]:
        best = max(heads, key=lambda card: card["queries"]["delta"])
        delta = best["queries"]["delta"]
        metric = metric_name(results["settings"]["fitness"])
        said.append(
            f"Without any change the {metric} is {points(results['identity'].get(results['settings']['fitness']))} % on "
            f"the {results['data']['check_images']:,} images for checking. "
            + (
                f"Removing {best['head']} changes it most for the better: {change(delta)} points, "
                f"{best['queries']['gained']} queries gained and {best['queries']['lost']} lost. One of many heads that were "
                "tried: this is no proof."
                if delta > 0
                else f"Removing no head changes it for the better; {best['head']} costs least, {change(delta)} points."
            )
        )
    return said


def _holds(text: Mapping) -> bool:
    return text["q"] is not None and text["q"] < 0.05


def _about(results: Mapping) -> list[str]:
    data, settings = results["data"], results["settings"]
    mask = f" Edited heads: those of {code(settings['mask'])}." if settings["mask"] else ""
    return [
        f"{markdown(results['model']['name'])} ({results['model']['family']}, {results['model']['pooling']} pooling) on "
        f"{markdown(data['source'])}: {data['label_images']:,} images for labelling, {data['check_images']:,} others for checking. "
        f"A head is removed with the edit {code(settings['operator'])}.{mask}"
    ]


def _table(results: Mapping) -> list[str]:
    lines = [
        "| head | effect | first label | attributes that the effect carries | acts most on | sink | change without it |",
        "|---|---:|---|---|---|---|---:|",
    ]
    for card in results["heads"]:
        name = f"**{card['head']}**" if card["edited"] else card["head"]
        texts = (card["labels"] or {}).get("texts", [])
        first = "—" if not texts else ("against " if texts[0]["sign"] < 0 else "") + f"“{texts[0]['text']}”"
        carried = [f"{one['name']} {one['carried']:.2f}" for one in card["attributes"] if one["carried_p"] < 0.05]
        acting = [one for one in card["attributes"] if one["size_p"] < 0.05]
        most = max(acting, key=lambda one: abs(one["size"]), default=None)
        delta = change(card["queries"]["delta"]) if card["queries"] else "—"
        row = [
            name, f"{100 * card['effect']['size']:.1f} %", markdown(first), markdown(", ".join(carried[:SHOWN]) or "—"),
            markdown(f"{most['name']} {most['size']:+.2f}" if most else "—"), card["attention"]["sink"], delta,
        ]  # fmt: skip
        lines.append("| " + " | ".join(row) + " |")
    return lines


def _labels(results: Mapping) -> list[str]:
    rows = []
    for card in results["heads"]:
        for text in (card["labels"] or {}).get("texts", []):
            why = text["cause"]
            rows.append(
                f"| {card['head']} | {markdown(('against ' if text['sign'] < 0 else '') + text['text'])} "
                f"| {100 * text['explained']:.0f} % | {_number(text['r'], '+.2f')} "
                f"| {_number(text['auprc'], '.2f')} ({_number(text['chance'], '.2f')}) | {_number(text['q'], '.2g')} "
                f"| {change(why['difference']) if why else '—'} | {_number(why and why['q'], '.2g')} |"
            )
    abstaining = [card["head"] for card in results["heads"] if card["labels"] and card["labels"]["abstains"]]
    lines = []
    if rows:
        lines += [
            "| head | text | explained | r | AUPRC (chance) | q | cause, points | q |",
            "|---|---|---:|---:|---:|---:|---:|---:|",
            *rows,
            "",
        ]
    if abstaining:
        lines.append(f"No label, because random rotations are explained as well: {listed(abstaining, 400)}.")
    return lines or ["None."]


def _number(value: float | None, form: str) -> str:
    return "—" if value is None else format(value, form)


def _notes(results: Mapping) -> list[str]:
    direct = results["direct"]
    notes = [
        "- Effect: mean length of the change of the embedding when the head is removed, in % of the embedding's length, "
        "from the true forward pass.",
        "- A label explains that share of the variance of the head's effects, all texts up to it together. r and AUPRC "
        "are from images not used for labelling, against captions that have the text; q is Benjamini and Hochberg's, "
        "from the rank among texts of like frequency. Cause: how much more the metric of images with the text changes "
        "without the head than that of the others.",
        "- Carried: r of the attribute, on images not used for the fit, with what ten axes of the effect predict of it; "
        "p corrected over all heads and attributes. The whole embedding carries attributes too: compare.",
    ]  # fmt: skip
    if direct["why_not"]:
        notes.append(f"- No direct contributions. {markdown(direct['why_not'])}")
    else:
        notes.append(
            f"- Direct contributions and the rest sum to the embedding within {direct['error']:.0e} of its length. They "
            "leave out what later layers make of a head; total effects do not."
        )
    if results["unreadable"]:
        notes.append(f"- Pictures that could not be read: {_listed_some(results['unreadable'])}.")
    return notes


def _listed_some(names: Sequence[str]) -> str:
    return markdown(listed([line(name) for name in names]))

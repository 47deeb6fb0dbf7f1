"""What was found of every head, as the sections of its card on the page: sentences, pictures, where it looks.

In: what `explanation.json` holds, and maps of attention. Out: for each head plain JSON values (`Section`), and the names
of the pictures that they show. A head that abstains is said to, and a label is shown with what speaks against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict

import numpy as np

from headwise.reports.words import change, listed, metric_name, points

LEVEL = 0.05
ATTRIBUTES = 4  # most that are listed
PICTURES = {"largest": 6, "smallest": 3}  # of a head
MOST_PICTURES = 1200  # of a page: about 4 MB
QUERIES = 3  # gained and lost, each
SHADES = "0123456789abcdef"  # of a map of attention, one a patch


class Section(TypedDict, total=False):
    """A part of a card.

    `pictures` are names of images; `maps`, beside them, are squares of `SHADES`, row after row, or empty.
    """

    title: str
    lines: list[str]
    pictures: Sequence[str]
    maps: Sequence[str]


@dataclass(frozen=True)
class Heads:
    """What a page shows of an explanation.

    Arguments:
        cards: head → sections.
        pictures: name of an image → data URI.
        why: what to say where there are no cards, or fewer pictures than there should be.
    """

    cards: Mapping[str, Sequence[Section]] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    why: str = ""


NONE = Heads()


def head_cards(explanation: Mapping[str, Any], attention: np.ndarray | None = None) -> dict[str, list[Section]]:
    """The sections of every head.

    Arguments:
        explanation: what explanation.json holds.
        attention: (heads, pictures, side, side), of the pictures with the largest effect in the order of the JSON's
            heads; None where there are no maps.

    Raises:
        KeyError, TypeError, IndexError: the explanation lacks something.
    """
    metric = explanation["settings"]["fitness"]
    shared = {one["text"]: len(one["heads"]) for one in explanation["repeated"]}
    names = [image["id"] for image in explanation["images"]]
    cards: dict[str, list[Section]] = {}
    for row, head in enumerate(explanation["heads"]):
        maps = [] if attention is None else [shades(one) for one in attention[row]]
        sections = [
            _effect(head, metric),
            _labels(head, shared),
            _attributes(head),
            _attention(head),
            *_pictures(head, names, maps),
            *_queries(head),
        ]
        cards[head["head"]] = [section for section in sections if section]
    return cards


def pictures_of(
    cards: Mapping[str, Sequence[Section]], first: Sequence[str] = (), most: int = MOST_PICTURES
) -> list[str]:
    """The pictures of the cards, at most so many: those of the heads named first, then those that most heads show."""
    counts: Counter[str] = Counter()
    for head in first:
        counts.update({name: len(cards) for section in cards.get(head, ()) for name in section.get("pictures", ())})
    counts.update(name for sections in cards.values() for section in sections for name in section.get("pictures", ()))
    return [name for name, _ in sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:most]]


def shades(attention: np.ndarray) -> str:
    """A map (side, side) as one shade a patch, the strongest darkest; empty where there is nothing to see."""
    values = np.nan_to_num(np.asarray(attention, np.float64))
    most = float(values.max(initial=0.0))
    if most <= 0:
        return ""
    levels = np.minimum(values.ravel() / most * len(SHADES), len(SHADES) - 1).astype(int).clip(0)
    return "".join(SHADES[level] for level in levels)


def _quoted(text: str) -> str:
    """Text in quotation marks; its direction of writing stays its own (U+2068, U+2069: isolates)."""
    return f"“\u2068{text}\u2069”"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")


def _effect(head: Mapping, metric: str | None) -> Section:
    effect, queries = head["effect"], head["queries"]
    lines = [f"Removing it moves embeddings by {points(effect['size'], 1)} % of their length."]
    if effect["direct"]:
        lines.append(
            f"What it writes itself is {points(effect['direct']['size'], 1)} %; agreement of the two "
            f"{_signed(effect['direct']['agreement'])}. The rest is what later layers make of it."
        )
    if queries and metric:
        lines.append(
            f"Without it {metric_name(metric)} changes by {change(queries['delta'])} points on the images for checking; "
            f"{queries['gained']:,} queries gained, {queries['lost']:,} lost."
        )
    return {"title": "Effect", "lines": lines}


def _labels(head: Mapping, shared: Mapping[str, int]) -> Section:
    labels = head["labels"]
    if labels is None:
        return {"title": "Labels", "lines": ["None: the model has no text tower."]}
    if labels["abstains"]:
        lines = ["None: texts explain no more of it than of random directions."]
        if labels["explained"]:
            lines = [
                f"None: texts explain {points(labels['explained'][-1], 0)} % of it, of random directions "
                f"{points(labels['null'][-1], 0)} %."
            ]
    else:
        lines = [_label(text, shared.get(text["text"], 1)) for text in labels["texts"]]
    if span := (head["text_span"] or {}).get("texts"):
        lines.append("TextSpan, which has no test: " + ", ".join(map(_quoted, span)) + ".")
    return {"title": "Labels", "lines": lines}


def _label(text: Mapping, heads: int) -> str:
    said = ("against " if text["sign"] < 0 else "") + _quoted(text["text"])
    facts = [f"explains {points(text['explained'], 0)} % together with those above"]
    if text["r"] is None:
        facts.append("not checked, too few captions have it")
    else:
        verdict = "holds" if text["q"] is not None and text["q"] < LEVEL else "not shown to hold"
        q = "" if text["q"] is None else f", q {text['q']:.2g}"
        facts.append(
            f"{verdict} on other images (r {_signed(text['r'])}, AUPRC {text['auprc']:.2f} where chance is "
            f"{text['chance']:.2f}{q})"
        )
    if (why := text["cause"]) is not None:
        facts.append(f"images with it change by {change(why['difference'])} points more than others without the head")
    if heads > 1:
        facts.append(f"labels {heads} heads, so it says little of this one")
    return said + ": " + "; ".join(facts) + "."


def _attributes(head: Mapping) -> Section:
    carried = [one for one in head["attributes"] if one["carried_p"] < LEVEL][:ATTRIBUTES]
    acting = sorted((one for one in head["attributes"] if one["size_p"] < LEVEL), key=lambda one: -abs(one["size"]))
    lines = []
    if carried:
        told = listed([f"{one['name']} {one['carried']:.2f} ({one['embedding']:.2f})" for one in carried])
        lines.append(f"Its effect carries, r on other images (the whole embedding's): {told}.")
    if acting:
        told = listed([f"{one['name']} {_signed(one['size'])}" for one in acting[:ATTRIBUTES]])
        lines.append(f"It acts most where, r with its size: {told}.")
    return {"title": "Attributes of pictures", "lines": lines or ["None that is more than chance."]}


def _attention(head: Mapping) -> Section:
    looks = head["attention"]
    facts = [f"entropy {looks['entropy']:.2f} of at most 1"]
    if looks["class_share"] is not None:
        facts.append(f"{points(looks['class_share'], 0)} % on the class token")
    if looks["distance"] is not None:
        facts.append(f"mean distance {looks['distance']:.2f} of the diagonal")
    sink = {
        "none": "no sink",
        "nop": "a sink from which little is read",
        "broadcast": "a sink whose value is written everywhere",
    }
    facts.append(sink.get(looks["sink"], str(looks["sink"])))
    return {"title": "Where it looks", "lines": [", ".join(facts) + "."]}


def _pictures(head: Mapping, names: Sequence[str], maps: Sequence[str]) -> list[Section]:
    found: list[Section] = []
    for kind, title in (("largest", "Pictures it acts on most"), ("smallest", "Pictures it acts on least")):
        shown = [names[int(one["image"])] for one in head["examples"][kind][: PICTURES[kind]]]
        section: Section = {"title": title, "lines": [], "pictures": shown}
        if kind == "largest" and any(maps):
            section["maps"] = list(maps[: len(shown)])
        if shown:
            found.append(section)
    return found


def _queries(head: Mapping) -> list[Section]:
    found: list[Section] = []
    for kind in ("lost", "gained"):
        queries = (head["queries"] or {}).get(f"{kind}_queries", [])[:QUERIES]
        lines = [f"{one['before']} → {one['after']}: {_quoted(one['text'] or one['image'])}" for one in queries]
        if lines:
            found.append({"title": f"Queries {kind} without it, rank before → after", "lines": lines})
    return found

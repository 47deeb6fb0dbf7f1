"""Are harmful heads different from the others? Each property, tested by permuting heads, corrected for all of them.

    r = Pearson's r of ranks over heads of a property with what removing the head gains, or with being edited

In: the cards of one explanation. Out: r and max-T p for every property and outcome, and a sentence for each finding,
or that there is none. One model is one sample: it does not say what holds for others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from headwise.explanation.attributes import MEASURED
from headwise.explanation.checks import held_out

LEAST = 2  # edited heads, and others
LEVEL = 0.05

Card = Mapping


def _label(card: Card, of: Callable[[Mapping], float | None]) -> float | None:
    return of(card["labels"]) if card["labels"] else None


def _excess(labels: Mapping) -> float | None:
    return labels["explained"][-1] - labels["null"][-1] if labels["explained"] else None


def _best_text(labels: Mapping) -> float | None:
    return max((abs(text["r"]) for text in labels["texts"] if text["r"] is not None), default=None)


def _best(card: Card, own: bool) -> float | None:
    found = [one["carried"] for one in card["attributes"] if (one["name"] not in MEASURED) == own]
    return max(found, default=None)


PROPERTIES: dict[str, Callable[[Card], float | None]] = {
    "depth": lambda card: float(card["row"]),
    "size of effect": lambda card: card["effect"]["size"],
    "share of the effect that varies": lambda card: card["effect"]["varying"] / max(card["effect"]["size"], 1e-12),
    "principal axes of the effect": lambda card: float(card["effect"]["axes"]),
    "entropy of attention": lambda card: card["attention"]["entropy"],
    "attention on the class token": lambda card: card["attention"]["class_share"],
    "distance of attention": lambda card: card["attention"]["distance"],
    "attention on the sink": lambda card: card["attention"]["sink_share"],
    "value norm of the sink": lambda card: card["attention"]["sink_norm"],
    "variance that texts explain beyond chance": lambda card: _label(card, _excess),
    "stability of labels between halves": lambda card: _label(card, lambda labels: labels["halves"]),
    "fit of the best label": lambda card: _label(card, _best_text),
    "best picture attribute carried": lambda card: _best(card, own=False),
    "group, class or source carried": lambda card: _best(card, own=True),
}


def patterns_json(heads: Sequence[Card], seed: int = 0) -> dict:
    """Rank correlations over heads of every property with what removing the head gains, and with being edited.

    Arguments:
        heads: of explanation.json.

    Returns:
        {heads, edited, tests: [{property, outcome, r, p, edited, others}], sentences}; p is corrected for all tests.
    """
    table, names = [], []
    for name, of in PROPERTIES.items():
        values = np.array([np.nan if (value := of(card)) is None else value for card in heads], np.float64)
        known = np.isfinite(values)
        if known.mean() > 0.5 and np.ptp(values[known]) > 1e-12:
            table.append(np.where(known, values, values[known].mean()))
            names.append(name)
    edited = np.array([card["edited"] for card in heads], bool)
    outcomes = {}
    if all(card["queries"] is not None for card in heads):
        outcomes["gain"] = np.array([card["queries"]["delta"] for card in heads])
    if LEAST <= edited.sum() <= len(heads) - LEAST:
        outcomes["edited"] = edited.astype(np.float64)
    found: dict = {"heads": len(heads), "edited": int(edited.sum()), "tests": [], "sentences": []}
    if not names or not outcomes:
        return found
    properties = np.stack(table)  # (P, heads)
    many = held_out(
        np.stack([_ranks(x) for x in outcomes.values()]), np.stack([_ranks(x) for x in properties]), seed=seed
    )
    for o, outcome in enumerate(outcomes):
        for k, name in enumerate(names):
            groups = (properties[k][edited], properties[k][~edited])
            means = [float(own.mean()) for own in groups] if outcome == "edited" else (None, None)
            found["tests"].append(
                {
                    "property": name,
                    "outcome": outcome,
                    "r": float(many.r[o, k]),
                    "p": float(many.p[o, k]),
                    "edited": means[0],
                    "others": means[1],
                }
            )
    found["sentences"] = sentences(found["tests"])
    return found


def sentences(tests: Sequence[Mapping]) -> list[str]:
    """One for each finding, or that there is none."""
    said = []
    for outcome, nothing in (
        ("gain", "Of {} properties none goes along with what removing a head gains (smallest corrected p = {:.2g})."),
        ("edited", "No difference was found between edited heads and the others in {} properties (smallest corrected p = {:.2g})."),
    ):  # fmt: skip
        own = [test for test in tests if test["outcome"] == outcome]
        sure = sorted((test for test in own if test["p"] < LEVEL), key=lambda test: test["p"])
        said += [_sentence(test) for test in sure]
        if own and not sure:
            said.append(nothing.format(len(own), min(test["p"] for test in own)))
    return said


def _sentence(test: Mapping) -> str:
    more = "higher" if test["r"] > 0 else "lower"
    if test["outcome"] == "gain":
        return (
            f"Heads whose removal gains more have {more} {test['property']} "
            f"(rank correlation {test['r']:+.2f}, corrected p = {test['p']:.2g})."
        )
    return (
        f"Edited heads have {more} {test['property']} than the others "
        f"({test['edited']:.3g} against {test['others']:.3g}, corrected p = {test['p']:.2g})."
    )


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks, ties at their mean."""
    from scipy.stats import rankdata

    return rankdata(np.round(values, 12))

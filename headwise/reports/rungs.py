"""What reports say of the rule that chose, and of edits whose numbers were learned.

In: what `results.json` holds. Out: sentences.
"""

from __future__ import annotations

from headwise.reports.words import Results


def learned(results: Results) -> bool:
    """Whether what was chosen was learned for every head, not searched."""
    rungs = results["settings"].get("rungs", ())
    return results["chosen"]["found_by"].partition(", α")[0] in {rung for rung in rungs if rung != "mask"}


def rule_sentence(results: Results) -> str:
    """The second half of the rule of choice, after what decides whether the model stays as it is."""
    if results["settings"].get("choose", "safe") == "best":
        return "; of those that do, the best is chosen."
    return "; of those that do, the one with the fewest values within one standard error of the best of them is chosen."


def trained_sentence(results: Results) -> str:
    """Whether numbers were learned, for a card."""
    if not learned(results):
        return "No parameter was trained."
    count = results["chosen"]["values"]
    where = "search and pick split" if results.get("refit", {}).get("taken") else "search split"
    return f"{count:,} values of these edits were learned on the {where}; the model's own parameters were not trained."

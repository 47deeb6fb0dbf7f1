"""What the report, the card and the terminal say of what a run was given beside its pairs (distractors, anchors), and of whether
what was chosen was learned again.

In: results as `results.json` holds them. Out: sentences; none where nothing was given.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headwise.reports.words import Results, counted


def beside(results: Results) -> list[str]:
    """A sentence on distractors, one on anchors and one on learning again, where a run had any."""
    found = [distractors_sentence(told)] if (told := results["data"].get("distractors")) else []
    for part in results["data"].get("parts", ()):
        if told := part.get("distractors"):
            found.append(f"{part['name']}: {distractors_sentence(told)}")
    if held := results.get("anchors"):
        found.append(anchors_sentence(held))
    if again := results.get("refit"):
        found.append(refit_sentence(again))
    return found


def anchors_sentence(held: Mapping[str, Any]) -> str:
    """What learned rungs were held to, and how far the choice of the run moved it."""
    moved = f"the run's choice moved them by {held['moved']:.4f}" if held["moved"] else "the run's choice leaves them"
    return (
        f"Learned rungs were held to where the model puts {counted(held['images'], 'anchor image')} of {held['source']} "
        f"(weight {held['weight']:g}); {moved} (mean of 1 − cosine)."
    )


def refit_sentence(again: Mapping[str, Any]) -> str:
    """Whether the choice of the run is handed out as it was judged, or learned again."""
    images = counted(again["images"], "image")
    if again["taken"]:
        return (
            f"What the pick split chose was learned again from all {images} of search and pick split, and goes as far (α "
            f"{again['alpha']:g}); the test split judges that, and beside it, before refit, what was chosen."
        )
    return (
        f"What the pick split chose was learned again from all {images} of search and pick split, but that loses too much on a "
        "kept domain: the choice stays as it was."
    )


def distractors_sentence(told: Mapping[str, Any]) -> str:
    """How many texts that belong to no image are among what images search."""
    sentence = f"{counted(told['texts'], 'distractor')} of {told['source']} are among the texts that images search"
    if told["dropped"]:
        sentence += f"; {told['dropped']:,} more are captions themselves and were left out"
    return sentence + "."

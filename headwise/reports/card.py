"""The model card: `README.md` of a mask's folder and of a merged model.

In: results as `results.json` holds them. Out: Markdown with a YAML header.
"""

from __future__ import annotations

from headwise.edits.artefact import card_header
from headwise.plain import Markdown
from headwise.reports.words import Results, render


def model_card(results: Results, *, merged: bool = False) -> str:
    """A model card with its YAML header.

    Arguments:
        results: what `headwise.refine` returns and `results.json` holds.
        merged: the card is for the merged model's folder, not for the mask's.

    Raises:
        HeadwiseError: the results lack a field.
    """
    return render(
        "card.md.j2",
        results,
        header=lambda: Markdown(card_header(results["model"]["name"], merged=merged)),
        merged=merged,
    )

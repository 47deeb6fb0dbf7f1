"""The model card of edits: `README.md` with a YAML header, from what the edits themselves know.

In: edits (`Described`). Out: Markdown. Cards of results, which know more, are in `reports/card.py`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from headwise.edits.edit import Edit
from headwise.edits.heads import Grid, Head
from headwise.plain import code, markdown, yaml

CARD_FILE = "README.md"
OWN_CARD = "<!-- card written by headwise -->"  # a README without it is the user's own and is kept
UNSAID = ("functions", "seen")  # of edits' provenance: numbers for checks, images to recognise: not for people
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


class Described(Protocol):
    """What the file and the card need of a model's edits (`headwise.edits.mask.Mask`)."""

    @property
    def grid(self) -> Grid:
        """The heads of the model."""
        ...

    @property
    def edits(self) -> Mapping[Head, Edit]:
        """The heads that are changed, with what is done to them."""
        ...

    @property
    def provenance(self) -> Mapping[str, object]:
        """Where the edits come from, as plain JSON values."""
        ...


def is_hub_id(text: object) -> bool:
    """Whether a text is the name of a hub's repository, `org/name`."""
    return isinstance(text, str) and bool(_HUB_ID.fullmatch(text))


def card_header(base_model: str, *, merged: bool = False) -> str:
    """The YAML header of a model card.

    Arguments:
        base_model: a model's name as headwise writes it; it is listed only where it is a hub id.
        merged: the card is for a refined model, not for edits alone.
    """
    lines = ["---", f"library_name: {'transformers' if merged else 'headwise'}"]
    reference = base_model.removeprefix("hf:")
    if base_model.startswith("hf:") and is_hub_id(reference) and not os.path.exists(reference):
        lines += [f"base_model: {yaml(reference)}", *(["base_model_relation: finetune"] if merged else [])]
    if merged:
        lines += ["pipeline_tag: zero-shot-image-classification"]
    lines += ["tags:", "- headwise", "- clip", "- attention-heads", "---", OWN_CARD]
    return "\n".join(lines)


def plain_card(mask: Described, *, merged: bool = False) -> str:
    """A short model card from what the edits themselves know."""
    base = str(mask.provenance.get("base_model", "an unnamed model"))
    effect = "Every head is kept: these edits change nothing."
    if mask.edits:
        names = ", ".join(f"{head} {code(str(edit))}" for head, edit in mask.edits.items())
        effect = f"Edited, {len(mask.edits)} of {mask.grid.size} heads: {names}."
    facts = origin(mask)
    what = "Refined image encoder" if merged else "Head edits"
    return "\n".join(
        [card_header(base, merged=merged), "", f"# {what} of {markdown(base)}", "", effect, ""]
        + ["Layers and heads count from 0. Written by headwise; the edits are `head_mask.json`.", ""]
        + (["Where it comes from:", "", *facts, ""] if facts else [])
    )


def is_users_own(readme: Path) -> bool:
    """Whether a README was not written by headwise, or cannot be read."""
    try:
        return OWN_CARD not in readme.read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    except (OSError, UnicodeDecodeError):
        return True


def origin(mask: Described) -> list[str]:
    """Where the edits come from, as lines of a card."""
    return listed({key: value for key, value in mask.provenance.items() if key not in UNSAID})


def listed(facts: Mapping[str, object]) -> list[str]:
    """Facts as lines of a card, name → value."""
    return [
        f"- {markdown(key.replace('_', ' '))}: {markdown(value if isinstance(value, str) else json.dumps(value, default=str))}"
        for key, value in facts.items()
    ]

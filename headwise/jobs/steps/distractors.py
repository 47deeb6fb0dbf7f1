"""Distractors: texts that belong to no image and join the captions as wrong answers.

In: the word `phrases` (the list that is shipped), a file of lines, or texts; the captions of the pairs. Out: the texts
that differ from every caption, and how many did not. Nothing is embedded here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headwise.errors import HeadwiseError
from headwise.explanation.texts import lines_of, shipped

PHRASES = "phrases"


@dataclass(frozen=True)
class Distractors:
    """
    Arguments:
        source: as it was given; of texts given in Python what they are.
        texts: D texts, all different, none of them a caption.
        dropped: how many were captions.
        hash: of the texts before any was dropped.
    """

    source: str
    texts: tuple[str, ...]
    dropped: int
    hash: str

    def json(self) -> dict[str, object]:
        """What results say of them."""
        return {"source": self.source, "texts": len(self.texts), "dropped": self.dropped, "hash": self.hash}


Given = str | Path | tuple[str, ...] | Distractors


def texts_of(given: Given) -> tuple[str, ...]:
    """The different texts, in their order.

    Raises:
        HeadwiseError: a file that cannot be read, or no text.
    """
    if isinstance(given, Distractors):
        return given.texts
    if given == PHRASES:
        return shipped().texts
    lines = lines_of(given, "distractors") if isinstance(given, str | Path) else given
    texts = tuple(dict.fromkeys(text for line in lines if (text := _plain(line))))
    if not texts:
        where = f"The distractors file {given} is empty" if isinstance(given, str | Path) else "No distractor was given"
        raise HeadwiseError(f"{where}. Give one text or more, one a line, or the word {PHRASES}.")
    return texts


def distractors_of(given: Given, captions: Iterable[str], what: str) -> Distractors:
    """Distractors for these captions: a text that is one of them would be right with an image, and is left out.

    Arguments:
        given: a file, the word `phrases`, or texts; what was found before stays as it is.
        captions: of all splits.
        what: the pairs, for messages.

    Raises:
        HeadwiseError: as `texts_of`, or every text is a caption.
    """
    if isinstance(given, Distractors):
        return given
    known, texts = {_plain(caption) for caption in captions}, texts_of(given)
    left = tuple(text for text in texts if text not in known)
    if not left:
        raise HeadwiseError(f"All {len(texts):,} distractors are captions of {what}. Give texts that are not.")
    source = str(given) if isinstance(given, str | Path) else f"{len(texts):,} texts"
    return Distractors(source, left, len(texts) - len(left), hash_of(texts))


def hash_of(texts: tuple[str, ...]) -> str:
    """A hash of texts in their order."""
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()[:32]


def _plain(text: str) -> str:
    """Runs of spaces are one, as nobody sees their number."""
    return " ".join(text.split())

"""A head's labels with what speaks for and against each: plain JSON values.

In: effects, candidate texts with their embeddings, captions. Out: for each head the texts found on images for
labelling, with their fit, chance, p, q and cause on the others. How texts are found is in `labels.py`, how they are
tested in `checks.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from headwise.data.pairs import Pairs
from headwise.explanation.checks import LEAST, Cause, Concept, benjamini_hochberg, cause, concept, fits
from headwise.explanation.effects import Effects
from headwise.explanation.labels import Label, against, centred_texts, label_all
from headwise.explanation.texts import Candidates, presence


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """Candidate texts, their embeddings, and which images have them.

    Arguments:
        candidates: P texts.
        embeddings: (P, E), as the model's text tower gives them.
        directions: from `centred_texts`, (P, E).
        has: a caption of an image for checking has the text, bool (P, N').
    """

    candidates: Candidates
    embeddings: torch.Tensor
    directions: torch.Tensor
    has: np.ndarray


def vocabulary(candidates: Candidates, embeddings: torch.Tensor, captions: Sequence[Sequence[str]]) -> Vocabulary:
    """
    Arguments:
        captions: of the images for checking, from `captions_of`.
    """
    has = presence(candidates.texts, captions)
    return Vocabulary(candidates, embeddings, centred_texts(embeddings), has)


def captions_of(pairs: Pairs) -> list[tuple[str, ...]]:
    """What is said of every image: its captions, or the name of its class."""
    if pairs.parts:
        return [texts for part in pairs.parts for texts in captions_of(part.pairs)]
    if pairs.labels is not None and pairs.class_names and not pairs.texts:
        return [(pairs.class_names[label],) for label in pairs.labels]
    return list(pairs.captions)


def label_evidence(
    effects: Effects, words: Vocabulary, *, seed: int = 0, progress: Callable[[float], None] | None = None
) -> list[dict]:
    """Labels of every head, found on the images for labelling and checked on the others.

    Arguments:
        progress: as `labels.label_all`.

    Returns:
        For each head {abstains, explained, null, p, halves, texts}; docs/explanation.md says what each is.
    """
    label = effects.label
    heads = effects.heads
    found = label_all(
        lambda row: effects.of(row)[:label], len(heads), words.directions, seed=seed, progress=progress
    )  # fmt: skip
    counts = words.has.sum(1)  # (P)
    common = np.flatnonzero((counts >= LEAST) & (counts <= words.has.shape[1] - LEAST))
    directions = words.directions.numpy()
    rows = [_texts(effects, row, one, words, directions, common, counts, seed) for row, one in enumerate(found)]
    for name in ("p", "cause"):
        _add_q(rows, name)
    return [
        {
            "abstains": one.abstains,
            "explained": list(one.found.explained),
            "null": list(one.null),
            "p": one.p,
            "halves": one.halves,
            "texts": texts,
        }
        for one, texts in zip(found, rows, strict=True)
    ]


def _texts(
    effects: Effects,
    row: int,
    one: Label,
    words: Vocabulary,
    directions: np.ndarray,
    common: np.ndarray,
    counts: np.ndarray,
    seed: int,
) -> list[dict]:
    """The texts of one head with their evidence; none where it abstains."""
    if one.abstains:
        return []
    label = effects.label
    own, chosen = effects.of(row), list(one.found.texts)
    down = against(own[:label], (effects.identity - own)[:label], directions[chosen])  # (k)
    likes = fits(own[label:], directions[common], words.has[common])  # (common)
    place = {int(text): i for i, text in enumerate(common)}
    change = _change(effects, row)
    texts = []
    for k, text in enumerate(chosen):
        has = words.has[text]
        effect = own[label:] @ directions[text]  # (N')
        fit = concept(effect, has, bool(down[k]), likes, counts[common], place.get(text))
        why = None if change is None else cause(change, has, seed)
        texts.append(
            {
                "text": words.candidates.texts[text],
                "theme": words.candidates.themes[text],
                "sign": -1 if down[k] else 1,
                "explained": one.found.explained[k],
                **_fit_json(fit),
                "cause": _cause_json(why),
            }
        )
    return texts


def _change(effects: Effects, row: int) -> np.ndarray | None:
    """Each checked image's part of the fitness without the head minus with it; None where it is not per image."""
    scores = changes_of(effects)
    found = scores[row] if scores else None
    return found if found is not None and len(found) == len(effects.identity) - effects.label else None


def changes_of(effects: Effects) -> list[np.ndarray]:
    """Per head, units without it minus units with it; empty where nothing was measured."""
    if not effects.scores:
        return []
    whole = effects.scores["identity"].units
    return [effects.score(row).units.astype(np.float64) - whole for row in range(len(effects.heads))]


def _fit_json(fit: Concept | None) -> dict:
    if fit is None:
        return {"images": None, "r": None, "auprc": None, "chance": None, "like": None, "p": None}
    return {
        "images": fit.images,
        "r": fit.r,
        "auprc": fit.auprc,
        "chance": fit.chance,
        "like": fit.like,
        "p": fit.p,
    }


def _cause_json(why: Cause | None) -> dict | None:
    if why is None:
        return None
    return {"with": why.with_it, "without": why.without_it, "difference": why.difference, "p": why.p}


def _add_q(rows: Sequence[Sequence[dict]], name: str) -> None:
    """`q` beside every `p`: Benjamini and Hochberg over heads, for first texts, second texts, … by themselves."""
    places: dict[int, dict[tuple, dict]] = defaultdict(dict)
    for head, texts in enumerate(rows):
        for k, text in enumerate(texts):
            holder = text if name == "p" else text["cause"]
            if holder is not None:
                holder["q"] = None
                if holder["p"] is not None:
                    places[k][head, k] = holder
    for own in places.values():
        for key, q in benjamini_hochberg({key: holder["p"] for key, holder in own.items()}).items():
            own[key]["q"] = q


def repeated(heads: Sequence[dict]) -> list[dict]:
    """Texts that label several heads, the most frequent first: {text, heads}."""
    owners: dict[str, list[str]] = defaultdict(list)
    for head in heads:
        for text in (head["labels"] or {}).get("texts", []):
            owners[text["text"]].append(head["head"])
    several = [{"text": text, "heads": names} for text, names in owners.items() if len(names) > 1]
    return sorted(several, key=lambda one: (-len(one["heads"]), one["text"]))

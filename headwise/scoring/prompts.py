"""Class names and prompt templates → one text embedding per class.

    c = normalise(mean over templates of normalise(text embedding))   (C, E)

(Radford et al., arXiv 2103.00020, section 3.1.4.) In: names, templates, the model's text encoder. Out: embeddings and
the key that identifies them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import torch

from headwise.errors import HeadwiseError
from headwise.scoring.ranking import unit

TEXTS_AT_ONCE = 512


@cache
def shipped(name: str) -> dict | list:
    """A list that comes with the package: `templates`, `imagenet_classes` or `reference`."""
    return json.loads((files("headwise") / "data_files" / f"{name}.json").read_text(encoding="utf-8"))


def templates(which: str) -> tuple[str, ...]:
    """Prompt templates, `{c}` where the class name goes.

    Arguments:
        which: `openai80` (ImageNet's 80), `openai7` (its 7), `siglip`, `plain`, or a text file of one template a
            line (`{c}` or `{}` for the class name).

    Raises:
        HeadwiseError: neither a known name nor a readable file, or a line without a place for the class name.
    """
    known = shipped("templates")
    if isinstance(known, dict) and which in known:
        return tuple(known[which])
    lines = _lines(which, "templates", f"Templates that come with headwise: {', '.join(known)}.")
    found = [line.replace("{}", "{c}") for line in lines]
    for number, line in enumerate(found, 1):
        if "{c}" not in line:
            raise HeadwiseError(f"{which}, template {number}: {line!r} has no {{c}} where the class name goes.")
    return tuple(found)


def class_names(which: str) -> tuple[str, ...]:
    """Class names, in the order of the labels.

    Arguments:
        which: `imagenet` (1,000 names), a text file of one name a line, or a JSON list.

    Raises:
        HeadwiseError: neither a known name nor a readable file, or fewer than two names.
    """
    if which == "imagenet":
        return tuple(shipped("imagenet_classes"))
    lines = _lines(which, "class names", "Class names that come with headwise: imagenet.")
    if len(lines) < 2:
        raise HeadwiseError(f"{which} has one class name; classification needs at least 2.")
    return tuple(lines)


def prompts(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """Every class name in every template, class after class."""
    return [pattern.replace("{c}", name) for name in names for pattern in patterns]


def class_embeddings(
    encode_texts: Callable[[Sequence[str]], torch.Tensor],
    names: Sequence[str],
    patterns: Sequence[str],
    *,
    progress: Callable[[int], None] | None = None,
) -> torch.Tensor:
    """Per class, normalise(mean over templates of normalise(text embedding)), as CLIP's authors do.

    Arguments:
        encode_texts: texts → embeddings (T, E); `Model.encode_texts`.
        names: C class names.
        patterns: templates with `{c}`.
        progress: called with the number of texts done.

    Returns:
        float32 (C, E), each row of length 1.

    Raises:
        HeadwiseError: no class names or no templates, or an embedding that is not finite.
    """
    if not names or not patterns:
        raise HeadwiseError(f"Classification needs class names and templates; got {len(names)} and {len(patterns)}.")
    step = max(1, TEXTS_AT_ONCE // len(patterns))
    rows = []
    for start in range(0, len(names), step):
        part = names[start : start + step]
        e = torch.cat([_encoded(encode_texts, texts) for texts in _batches(prompts(part, patterns))])  # (c·P, E)
        rows.append(e.unflatten(0, (len(part), len(patterns))).mean(1))  # (c, E)
        if progress:
            progress(len(e))
    means = torch.cat(rows)  # (C, E)
    return (means / means.norm(dim=1, keepdim=True).clamp_min(1e-12)).float()


def _encoded(encode_texts: Callable[[Sequence[str]], torch.Tensor], texts: Sequence[str]) -> torch.Tensor:
    return unit(encode_texts(texts).detach().cpu(), "prompt")  # (T, E)


def _batches(texts: list[str]) -> list[list[str]]:
    return [texts[start : start + TEXTS_AT_ONCE] for start in range(0, len(texts), TEXTS_AT_ONCE)]


def _lines(path: str, what: str, advice: str) -> list[str]:
    """The entries of a user's file: a JSON list, or one a line."""
    file = Path(path)
    if not os.path.isfile(file):
        raise HeadwiseError(f"{path!r} is neither a file nor the name of {what}. {advice}")
    try:
        text = file.read_text(encoding="utf-8-sig")
        entries = json.loads(text) if file.suffix.lower() == ".json" else text.split("\n")
    except (OSError, ValueError, RecursionError) as error:
        raise HeadwiseError(f"{path} cannot be read as {what}: {error}") from error
    if not isinstance(entries, list) or not all(isinstance(entry, str) for entry in entries):
        raise HeadwiseError(f"{path} must be a JSON list of texts, or a text file with one of the {what} a line.")
    lines = [entry.strip() for entry in entries if entry.strip()]
    if not lines:
        raise HeadwiseError(f"{path} is empty; it should hold {what}, one a line.")
    return lines

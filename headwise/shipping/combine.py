"""Edits of several runs as one: what several seeds, or several data sets, agree on.

    vote      the heads that at least k of n runs edit, each with the mean of what those do
    weighted  θ = Σ wᵢ·θᵢ, value by value: numbers (1 where a run keeps the head), shifts, spectral scales

Of `mean` the outputs are averaged: g = Σ wᵢ·gᵢ and (1 − g)·c = Σ wᵢ·(1 − gᵢ)·cᵢ. In: edits of one grid, for the same model. Out:
edits. Union and intersection are `|` and `&`. Whether the result helps has to be measured on data that none was chosen on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headwise.edits.arrays import Array
from headwise.edits.edit import ATTENTION, VALUE, Edit, Letter
from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError


def vote(masks: Sequence[Mask], least: int | None = None) -> Mask:
    """The heads that enough runs edit.

    Arguments:
        masks: for the same model.
        least: how many have to agree; None: more than half.

    Raises:
        HeadwiseError: none, several models, edits of one head that have no mean, or more votes than runs.
    """
    _check(masks)
    least = len(masks) // 2 + 1 if least is None else least
    if not 1 <= least <= len(masks):
        raise HeadwiseError(f"{least} of {len(masks)} votes cannot be asked for: give a number from 1 to {len(masks)}.")
    found = {}
    for head in masks[0].grid:
        voters = [edit for mask in masks if not (edit := mask.edit(head)).keeps]
        if len(voters) >= least:
            found[head] = _mixed(head, voters, [1 / len(voters)] * len(voters))
    return _made(masks, found, f"vote of {len(masks)}, at least {least}")


def weighted(masks: Sequence[Mask], weights: Sequence[float] | None = None) -> Mask:
    """A weighted mean of edits, value by value.

    Arguments:
        masks: for the same model.
        weights: one each, at least 0; they are made to sum to 1. None: equal.

    Raises:
        HeadwiseError: none, several models, edits of one head that have no mean, or weights that are none.
    """
    _check(masks)
    given = [1.0] * len(masks) if weights is None else [float(weight) for weight in weights]
    if len(given) != len(masks) or min(given) < 0 or not 0 < sum(given) < float("inf"):
        raise HeadwiseError(f"Give a weight of at least 0 for each of the {len(masks)} edits, one of them above 0.")
    shares = [weight / sum(given) for weight in given]
    heads = dict.fromkeys(head for mask in masks for head in mask.heads)
    found = {head: _mixed(head, [mask.edit(head) for mask in masks], shares) for head in heads}
    return _made(masks, found, "weighted sum of " + ", ".join(f"{share:.3g}" for share in shares))


def _mixed(head: Head, edits: Sequence[Edit], shares: Sequence[float]) -> Edit:
    sides = {side: _side(head, [getattr(edit, side) for edit in edits], shares) for side in (ATTENTION, VALUE)}
    return Edit(**sides)


def _side(head: Head, letters: Sequence[Letter | None], shares: Sequence[float]) -> Letter | None:
    """One side's mean; None is a side that is kept."""
    there = [letter for letter in letters if letter is not None]
    if not there:
        return None
    names = {letter.name for letter in there}
    for plain, zero in (("scale", "zero"), ("temperature", "uniform")):  # 0 has a name of its own
        if names <= {plain, zero} and (len(names) > 1 or zero == "zero"):
            names = {plain}
    name = names.pop()
    if names or not all(letter.bound for letter in there):
        told = ", ".join(sorted({letter.text() for letter in there}))
        raise HeadwiseError(f"Several edits of {head} have no mean: {told}. Combine edits of one kind.")
    numbers = [1.0 if letter is None or letter.number is None else letter.number for letter in letters]
    number = float(np.dot(shares, numbers))
    kind = there[0].kind
    if not kind.arrays:
        return Letter(name, number if there[0].number is not None else None)
    return Letter(name, number if there[0].number is not None else None, _arrays(head, name, letters, shares, numbers))


def _arrays(
    head: Head, name: str, letters: Sequence[Letter | None], shares: Sequence[float], numbers: Sequence[float]
) -> tuple[tuple[str, Array], ...]:
    parts = [
        (share, n, letter) for share, n, letter in zip(shares, numbers, letters, strict=True) if letter is not None
    ]
    if name == "spectral":
        first = parts[0][2]
        if any(letter.array(a) != first.array(a) for _, _, letter in parts for a in ("axes", "centre")):
            raise HeadwiseError(f"The spectral edits of {head} have other axes: they were learned on other images.")
        scales = 1 + sum(share * (letter.array("scales").numpy() - 1) for share, _, letter in parts)
        return tuple((a, Array.of(scales) if a == "scales" else first.array(a)) for a, _ in first.arrays)
    takes = [share * (1 - n) if name == "mean" else share for share, n, _ in parts]
    total = sum(takes) or 1.0
    constant = sum(take * letter.array("constant").numpy() for take, (_, _, letter) in zip(takes, parts, strict=True))
    return (("constant", Array.of(constant / total if name == "mean" else constant)),)


def _check(masks: Sequence[Mask]) -> None:
    if not masks:
        raise HeadwiseError("There are no edits to combine.")
    for what, found in (
        ("grids", {mask.grid for mask in masks}),
        ("weights", {mask.provenance.get("weights_hash") for mask in masks} - {None}),
    ):
        if len(found) > 1:
            raise HeadwiseError(f"Edits of several {what} cannot be combined: {', '.join(sorted(map(str, found)))}.")


def _made(masks: Sequence[Mask], edits: dict[Head, Edit], how: str) -> Mask:
    first = masks[0].provenance
    kept = {key: first[key] for key in ("base_model", "weights_hash", "functions") if key in first}
    made = Mask.of(masks[0].grid, edits)
    return made.with_provenance(**kept, found_by=how, parts=[str(mask) for mask in masks])

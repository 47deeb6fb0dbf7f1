"""Several masks as one: what several seeds, or several data sets, agree on.

    vote      the heads that at least k of n masks suppress, each with the mean gate of those that do
    weighted  z' = Σ wᵢ·zᵢ', so g = Σ wᵢ·gᵢ and (1 − g)·c = Σ wᵢ·(1 − gᵢ)·cᵢ

In: masks of one grid and one operator, for the same model. Out: a mask. Union and intersection are the masks' own `|` and `&`.
Whether the result helps has to be measured on data that none of them was chosen on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError

Table = dict[Head, tuple[float, ...]]


def vote(masks: Sequence[Mask], least: int | None = None) -> Mask:
    """The heads that enough masks suppress.

    Arguments:
        masks: of one operator, for the same model.
        least: how many have to agree; None: more than half.

    Raises:
        HeadwiseError: no masks, masks of several operators, models or constants, or more votes than masks.
    """
    _check(masks)
    least = len(masks) // 2 + 1 if least is None else least
    if not 1 <= least <= len(masks):
        raise HeadwiseError(f"{least} of {len(masks)} votes cannot be asked for: give a number from 1 to {len(masks)}.")
    voters = {head: [mask.gate(head) for mask in masks if mask.gate(head) < 1.0] for head in masks[0].grid}
    agreed = [head for head, gates in voters.items() if len(gates) >= least]
    rows = _rows(masks[0], {head: sum(voters[head]) / len(voters[head]) for head in agreed})
    means = _means(masks, {head: [1.0 if mask.gate(head) < 1.0 else 0.0 for mask in masks] for head in agreed})
    return _made(masks, rows, means, f"vote of {len(masks)}, at least {least}")


def weighted(masks: Sequence[Mask], weights: Sequence[float] | None = None) -> Mask:
    """A weighted mean of what masks do to every head's output.

    Arguments:
        masks: of one operator, for the same model.
        weights: one each, at least 0; they are made to sum to 1. None: equal.

    Raises:
        HeadwiseError: no masks, masks of several operators or models, or weights that are none.
    """
    _check(masks)
    given = [1.0] * len(masks) if weights is None else [float(weight) for weight in weights]
    if len(given) != len(masks) or min(given) < 0 or not 0 < sum(given) < float("inf"):
        raise HeadwiseError(f"Give a weight of at least 0 for each of the {len(masks)} masks, one of them above 0.")
    shares = [weight / sum(given) for weight in given]
    gates = {h: sum(share * m.gate(h) for share, m in zip(shares, masks, strict=True)) for h in masks[0].grid}
    rows = _rows(masks[0], {head: max(gate, 0.0) for head, gate in gates.items() if gate < 1 - 1e-12})
    touched = [head for head in masks[0].grid if any(mask.gate(head) < 1.0 for mask in masks)]
    parts = {h: [share * (1 - m.gate(h)) for share, m in zip(shares, masks, strict=True)] for h in touched}
    means = _means(masks, {head: part for head, part in parts.items() if sum(part) > 1e-12})
    return _made(masks, rows, means, "weighted sum of " + ", ".join(f"{share:.3g}" for share in shares))


def _rows(like: Mask, gates: Mapping[Head, float]) -> tuple[tuple[float, ...], ...]:
    """Gates of some heads as rows of the grid; the others are kept."""
    values = iter(gates.get(head, 1.0) for head in like.grid)
    return tuple(tuple(next(values) for _ in range(count)) for count in like.grid.rows)


def _check(masks: Sequence[Mask]) -> None:
    if not masks:
        raise HeadwiseError("There are no masks to combine.")
    for what, found in (
        ("grids", {mask.grid for mask in masks}),
        ("operators", {mask.operator for mask in masks if not mask.is_identity}),
        ("weights", {mask.provenance.get("weights_hash") for mask in masks} - {None}),
    ):
        if len(found) > 1:
            raise HeadwiseError(f"Masks of several {what} cannot be combined: {', '.join(sorted(map(str, found)))}.")


def _means(masks: Sequence[Mask], parts: dict[Head, list[float]]) -> tuple[tuple[Head, tuple[float, ...]], ...]:
    """Operator mean: the constants, weighted by how much each mask takes of them."""
    tables: list[Table] = [dict(mask.means) for mask in masks]
    if not any(tables):
        return ()
    found = []
    for head, shares in parts.items():
        known = [(share, table[head]) for share, table in zip(shares, tables, strict=True) if share and head in table]
        if known:
            total = sum(share for share, _ in known)
            columns = zip(*(constants for _, constants in known), strict=True)
            found.append(
                (head, tuple(sum(s * v for (s, _), v in zip(known, column, strict=True)) / total for column in columns))
            )
    return tuple(found)


def _made(masks: Sequence[Mask], rows: tuple, means: tuple, how: str) -> Mask:
    operator = next((mask.operator for mask in masks if not mask.is_identity), masks[0].operator)
    first = masks[0].provenance
    kept = {key: first[key] for key in ("base_model", "weights_hash", "functions") if key in first}
    return Mask(masks[0].grid, rows, operator, means, {**kept, "found_by": how, "parts": [str(mask) for mask in masks]})

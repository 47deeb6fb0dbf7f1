"""Pictures that a head acts on most and least, and queries that are gained and lost without it.

In: sizes of one head's effects, (N), and scores with and without it. Out: numbers of images, and queries whose rank
crosses 1, 5 or 10. Examples show, they prove nothing: they are chosen for being extreme.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from headwise.data.pairs import Pairs
from headwise.scoring.objectives import Score
from headwise.scoring.per_query import queries_of

if TYPE_CHECKING:
    import pyarrow as pa

SHOWN = 8
QUERIES = 10
KS = (1, 5, 10)


def extremes(sizes: np.ndarray, shown: int = SHOWN) -> tuple[list[int], list[int]]:
    """Images on which one head's effect is largest and smallest, most extreme first; a number belongs to one list.

    Arguments:
        sizes: (N).
    """
    order = np.argsort(-sizes, kind="stable").tolist()
    shown = min(shown, len(order) // 2)
    return order[:shown], order[::-1][:shown]


def changed_queries(pairs: Pairs, before: Score, after: Score, most: int = QUERIES) -> dict:
    """Queries whose rank crosses 1, 5 or 10.

    Arguments:
        pairs: the images that were scored.
        before, after: with the head and without it.
        most: how many of each to list.

    Returns:
        {gained, lost: counts; gained_queries, lost_queries: [{task, image, text, before, after}]}, ranks counted from
        1, the worst first: those that cross most of the three, then those that move farthest. None of it where the
        task has no ranks.
    """
    first, second = _table(pairs, before), _table(pairs, after)
    if first is None or second is None:
        return {"gained": 0, "lost": 0, "gained_queries": [], "lost_queries": []}
    old = first.column("rank").to_numpy().astype(np.int64)
    new = second.column("rank").to_numpy().astype(np.int64)
    crossed = np.sum([(new < k).astype(int) - (old < k) for k in KS], axis=0)  # (Q)
    far = np.log1p(old) - np.log1p(new)
    order = np.lexsort((-np.abs(far), -np.abs(crossed)))
    found: dict = {}
    for name, sign in (("gained", 1), ("lost", -1)):
        chosen = [int(i) for i in order if np.sign(crossed[i]) == sign]
        found[name] = len(chosen)
        found[f"{name}_queries"] = [_query(first, i, old[i], new[i]) for i in chosen[:most]]
    return {key: found[key] for key in ("gained", "lost", "gained_queries", "lost_queries")}


def _table(pairs: Pairs, score: Score) -> pa.Table | None:
    return queries_of(pairs, score.ranks) if score.ranks else None


def _query(table: pa.Table, row: int, before: int, after: int) -> dict:
    one = table.slice(row, 1).to_pylist()[0]
    return {
        "task": one["task"],
        "image": one["image_id"],
        "text": one["text"],
        "before": int(before) + 1,
        "after": int(after) + 1,
    }

"""One mask against another on the same images: change, interval, p, the queries gained and lost, and each group's share.

In: pairs, the scores of both masks. Out: plain JSON values. The statistics are `scoring/stats`; nothing is evaluated here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from headwise.data.pairs import Pairs
from headwise.errors import HeadwiseError
from headwise.scoring import stats
from headwise.scoring.design import Design
from headwise.scoring.objectives import Score
from headwise.scoring.per_query import query_changes

BY = ("class", "group")
SHOWN = 10  # queries gained, and lost


@dataclass(frozen=True)
class _Part:
    """Some images of a score, as `stats.compared` takes it."""

    hits: np.ndarray
    plan: Design
    fitness: float = 0.0
    loss: float = 0.0


def check_by(by: str | None) -> None:
    """
    Raises:
        HeadwiseError: neither class nor group.
    """
    if by is not None and by not in BY:
        raise HeadwiseError(f"by is {by!r}; results can be told apart by: {', '.join(BY)}.")


def names_of(pairs: Pairs, by: str) -> Sequence[str]:
    """The class or the group of every image.

    Raises:
        HeadwiseError: the source has none, or is a mixture.
    """
    if pairs.parts:
        raise HeadwiseError("A mixture has no classes or groups of its own. Evaluate its sources one by one.")
    if by == "group":
        if pairs.groups is None:
            raise HeadwiseError(f"{pairs.name} has no group column. Name one with --group, or leave --by out.")
        return pairs.groups
    if pairs.labels is None or pairs.kind is not None:
        raise HeadwiseError(f"{pairs.name} has no classes. Give --by group with a group column, or leave --by out.")
    known = pairs.class_names
    return [str(label) if known is None else known[label] for label in pairs.labels]


def paired(pairs: Pairs, after: Score, before: Score, *, names: Sequence[str] | None = None, seed: int = 0) -> dict:
    """How far a mask is from another one, on the metric that counts.

    Arguments:
        names: the class or group of every image; None: not told apart.

    Returns:
        What `stats.Comparison.json` holds, `queries` {gained, lost, of, examples} and `groups`: for each {name, images,
        delta, interval, p, p_corrected, changed, gained, lost}, the most negative first. A group's queries are ranked in
        the whole gallery; `p_corrected` is p times how many groups there are.

    Raises:
        HeadwiseError: scores of different images, or groups where the metric does not count images.
    """
    queries, ranks, change = query_changes(pairs, before.ranks, after.ranks)
    order = np.lexsort((np.arange(len(change)), -np.abs(ranks[1] - ranks[0]), -np.abs(change)))
    columns = {name: queries[name].to_pylist() for name in ("task", "image_id", "text")}

    def examples(sign: int) -> list[dict]:
        rows = [int(i) for i in order if sign * change[i] > 0][:SHOWN]
        return [
            {**{name: column[i] for name, column in columns.items()}, "before": int(ranks[0, i]) + 1}
            | {"after": int(ranks[1, i]) + 1}
            for i in rows
        ]

    found = {
        **stats.compared(after, before, seed=seed).json(),
        "before": before.fitness,
        "after": after.fitness,
        "queries": {
            "gained": int((change > 0).sum()),
            "lost": int((change < 0).sum()),
            "of": len(change),
            "examples": {"gained": examples(1), "lost": examples(-1)},
        },
    }
    if names is not None:
        found["groups"] = _groups(names, after, before, queries["image"].to_numpy(), change, seed)
    return found


def _groups(
    names: Sequence[str], after: Score, before: Score, image: np.ndarray, change: np.ndarray, seed: int
) -> list[dict]:
    if len(before.hits) != len(names):
        raise HeadwiseError("This metric does not count images, so it cannot be told apart by class or group.")
    if "classification" in before.ranks:  # accuracy within the group, whatever is maximised over all
        hits = [(score.ranks["classification"] < 1).astype(np.int64) for score in (after, before)]
        plan = Design.mean(len(names))
    else:
        hits, plan = [after.hits, before.hits], before.plan
    rows, kinds, of = [], sorted(set(names)), np.array(names)
    for name in kinds:
        at = of == name
        own = replace(plan, weights=plan.weights[at], stratum=None if plan.stratum is None else plan.stratum[at])
        both = [_Part(each[at], own) for each in hits]
        told = stats.compared(both[0], both[1], seed=seed).json()
        mine = at[image]
        rows.append(
            {
                "name": name,
                "images": int(at.sum()),
                **{key: told[key] for key in ("delta", "interval", "p", "changed")},
                "p_corrected": min(1.0, float(told["p"]) * len(kinds)),  # type: ignore[arg-type]
                "gained": int((change[mine] > 0).sum()),
                "lost": int((change[mine] < 0).sum()),
            }
        )
    return sorted(rows, key=lambda row: (row["delta"], row["name"]))

"""Greedy forward selection: add the head that helps most, again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.contract import Evaluate, Found, affordable, best_of


@dataclass(frozen=True)
class Greedy:
    """
    Arguments:
        path: identity, then the best mask of each step, one more head each.
        why: what ended it: `no improvement`, `max heads`, `budget` or `all heads suppressed`.
        ffe: what it cost.
    """

    path: tuple[Found, ...]
    why: str
    ffe: float

    @property
    def best(self) -> Found:
        return best_of(self.path)


def greedy(
    evaluate: Evaluate,
    grid: Grid,
    operator: str,
    ranking: Sequence[Head],
    *,
    width: int = 8,
    max_heads: int | None = None,
    patience: int = 1,
    budget: float | None = None,
    contest: Callable[[Sequence[Mask]], Found] | None = None,
) -> Greedy:
    """Forward selection from a ranking of the heads.

    Arguments:
        evaluate: exact scores on the search split.
        grid: the heads of the model.
        operator: what a suppressed head emits.
        ranking: heads, the most harmful first: `Sweep.ranking`, or any cheaper ranking.
        width: how many of the best remaining heads each step tries; they are one evaluate call, so that they
            share their work.
        max_heads: most heads to suppress.
        patience: how many steps in a row may bring no new best before it stops. With 1 the path ends with the
            first step that does not improve.
        budget: most FFE to spend.
        contest: finds the best of a step's masks with its exact score, for less than evaluating all of them, such
            as a race; None: all are evaluated.

    Raises:
        HeadwiseError: width, patience or max_heads below 1, or a ranking that names a head twice.
    """
    for name, value in (("width", width), ("patience", patience), ("max_heads", max_heads)):
        if value is not None and value < 1:
            raise HeadwiseError(f"Greedy selection: {name} is {value}; it must be at least 1.")
    if len(set(ranking)) != len(ranking):
        raise HeadwiseError("Greedy selection: the ranking names a head twice.")
    start = evaluate.spent
    identity = Mask.identity(grid, operator)
    path = [Found(identity, evaluate([identity])[0])]
    best, stale, why = path[0], 0, ""
    remaining = list(ranking)
    while not why:
        current = path[-1].mask
        if not remaining:
            why = "all heads suppressed"
        elif max_heads is not None and current.size >= max_heads:
            why = "max heads"
        else:
            masks = [current | Mask.suppress(grid, [head], operator) for head in remaining[:width]]
            masks = affordable(evaluate, masks, None if budget is None else budget - (evaluate.spent - start))
            if not masks:
                why = "budget"
                break
            if contest is not None:
                step = contest(masks)
            else:
                step = best_of(Found(mask, score) for mask, score in zip(masks, evaluate(masks), strict=True))
            path.append(step)
            remaining.remove((step.mask - current).heads[0])
            if step.score.order > best.score.order:
                best, stale = step, 0
            else:
                stale += 1
            if stale >= patience:
                why = "no improvement"
    return Greedy(tuple(path), why, evaluate.spent - start)

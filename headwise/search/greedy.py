"""Greedy forward selection: add the head that helps most given those already suppressed, again and again.

    S ← S ∪ {argmax over h ∈ C(S) of f(S ∪ {h})}       S: suppressed heads, f: exact score on the search split

C(S) is `width` of the H − |S| heads that remain; what sets this search apart from cutting a ranking (Michel et al. 2019,
arXiv 1905.10650) is that C is chosen anew after every step, for the mask as it then is. Half of C are the heads whose
estimated effect is highest, given S; half are those that the last step's exact results leave promising, then those
never tried. Where no single head helps, two heads at once and leaving heads of S out are tried before it ends: heads
that help only together are found by nothing else. f is the fitness on a first walk and the loss on a second one: near
chance the fitness of a step is noise, while the loss already falls.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.contract import Evaluate, Found, Left, Order, affordable, best_of, purse

Pairs = Callable[[Mask, int], Sequence[Mask]]  # a mask, how many → that mask with two more heads each


class Guess(Protocol):
    """Free estimates, better near masks that were run (`anchors.Guesses`)."""

    def learn(self, run: Sequence[Mask], /) -> None:
        """Masks that one evaluate call ran."""
        ...

    def __call__(self, masks: Sequence[Mask], /) -> Sequence[tuple[float, float]]:
        """Estimated (fitness, −loss) of masks."""
        ...


@dataclass(frozen=True)
class Greedy:
    """
    Arguments:
        path: identity, then the best mask of each step, by fitness.
        by_loss: the same by loss; empty where no budget was left for it.
        why: what ended the path: `no improvement`, `max heads`, `budget` or `all heads suppressed`.
        ffe: what both cost.
    """

    path: tuple[Found, ...]
    by_loss: tuple[Found, ...]
    why: str
    ffe: float

    @property
    def masks(self) -> tuple[Found, ...]:
        """All masks of both walks, each once."""
        return tuple({found.mask.key: found for found in (*self.path, *self.by_loss)}.values())

    @property
    def best(self) -> Found:
        """The best mask of both walks, by fitness."""
        return best_of(self.masks)


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
    left: Left | None = None,
    guess: Guess | None = None,
    pairs: Pairs | None = None,
    second: bool = False,
) -> Greedy:
    """Forward selection from a ranking of the heads.

    Arguments:
        evaluate: exact scores on the search split.
        grid: the heads of the model.
        operator: what a suppressed head emits.
        ranking: heads, the most harmful first: `Sweep.ranking`, or any cheaper ranking.
        width: how many of the remaining heads each step tries; they are one evaluate call, so that they share their
            work.
        max_heads: most heads to suppress.
        patience: how many steps in a row may bring no new best before it stops. With 1 the path ends with the
            first step that does not improve.
        budget: most FFE to spend.
        left: FFE that may still be spent, besides the budget.
        guess: free estimates given what was run; without them the ranking and exact results alone choose.
        pairs: proposes two heads at once where no single head helps; None: none are tried.
        second: walk a second time by the loss, with what is left.

    Raises:
        HeadwiseError: width, patience or max_heads below 1, or a ranking that names a head twice.
    """
    for name, value in (("width", width), ("patience", patience), ("max_heads", max_heads)):
        if value is not None and value < 1:
            raise HeadwiseError(f"Greedy selection: {name} is {value}; it must be at least 1.")
    if len(set(ranking)) != len(ranking):
        raise HeadwiseError("Greedy selection: the ranking names a head twice.")
    start, remaining = evaluate.spent, purse(evaluate, budget, left)
    walk = _Walk(evaluate, grid, operator, width, grid.size if max_heads is None else max_heads, guess, pairs)
    half = purse(evaluate, None if remaining() == math.inf else remaining() / 2, left)
    path, why = walk(ranking, patience, half if second else remaining, lambda found: found.order)
    by_loss: list[Found] = []
    if second:
        by_loss, _ = walk(ranking, patience, remaining, _by_loss)
    return Greedy(tuple(path), tuple(by_loss), why, evaluate.spent - start)


def _by_loss(found: Found) -> Order:
    fitness, loss, size, text = found.order
    return loss, fitness, size, text


@dataclass(frozen=True)
class _Walk:
    """One walk from identity; arguments as `greedy`."""

    evaluate: Evaluate
    grid: Grid
    operator: str
    width: int
    most: int
    guess: Guess | None
    pairs: Pairs | None

    def __call__(
        self, ranking: Sequence[Head], patience: int, remaining: Left, order: Callable[[Found], Order]
    ) -> tuple[list[Found], str]:
        """The path, and why it ended."""
        identity = Mask.identity(self.grid)
        path = [Found(identity, self.evaluate([identity])[0])]  # every search knows it already
        queue = list(ranking)  # the heads, the most promising first
        best, stale = path[0], 0

        def run(masks: Sequence[Mask]) -> list[Found]:
            """As many of the masks as are paid for."""
            masks = [mask for mask in masks if mask.size <= self.most]
            paid = affordable(self.evaluate, masks, remaining()) if masks else []
            new = [mask for mask in paid if self.evaluate.cost([mask]) > 0]
            found = [Found(mask, score) for mask, score in zip(paid, self.evaluate(paid) if paid else [], strict=True)]
            if self.guess is not None and new:
                self.guess.learn(new)
            return found

        while True:
            current = path[-1].mask
            candidates = _candidates(current, queue, self.operator, self.width, self.guess, order is _by_loss)
            if not candidates:
                return path, "all heads suppressed"
            tried = run(candidates)
            queue = _reordered(queue, current, tried, path[-1], order)
            step = min(tried, key=order, default=None)
            if step is None or order(step) >= order(best):
                seen = {found.mask.key for found in path}
                again = run([mask for mask in self._fewer(path[-1], run, order) if mask.key not in seen])
                if not any(order(found) < order(best) for found in again):
                    again += self._pairs(path, run, order)
                step = min([*again, *([step] if step else [])], key=order, default=None)
            full = current.size >= self.most
            if step is None or (full and order(step) >= order(best)):
                return path, "max heads" if full else "budget"
            path.append(step)
            best, stale = (step, 0) if order(step) < order(best) else (best, stale + 1)
            if stale >= patience:
                return path, "no improvement"

    def _pairs(
        self, path: Sequence[Found], run: Callable[[Sequence[Mask]], list[Found]], order: Callable[[Found], Order]
    ) -> list[Found]:
        """Two heads more; if that helps, the same two on top of each shorter mask of the path, too: steps before it often
        fitted noise, and their heads hide what the two bring."""
        found = run(self.pairs(path[-1].mask, self.width)) if self.pairs is not None else []
        best = min(found, key=order, default=None)
        if best is None or order(best) >= order(path[-1]):
            return found
        pair = best.mask - path[-1].mask
        return found + run([shorter.mask | pair for shorter in path[:-1]])

    def _fewer(
        self, found: Found, run: Callable[[Sequence[Mask]], list[Found]], order: Callable[[Found], Order]
    ) -> list[Mask]:
        """The mask without each of its heads, and without several that it is better without."""
        mask = found.mask
        if mask.size < 2:
            return []
        singles = {head: mask ^ Mask.suppress(self.grid, [head], self.operator) for head in mask.heads}
        scored = {item.mask.key: item for item in run(list(singles.values()))}
        free = [head for head, one in singles.items() if one.key in scored and order(scored[one.key]) < order(found)]
        free.sort(key=lambda head: order(scored[singles[head].key]))
        several = [mask - Mask.suppress(self.grid, free[:count], self.operator) for count in range(2, len(free) + 1)]
        return [*singles.values(), *several]


def _candidates(
    current: Mask, queue: Sequence[Head], operator: str, width: int, guess: Guess | None, by_loss: bool
) -> list[Mask]:
    """One head more: half by their estimates given the mask, the others from the front of the queue."""
    suppressed = set(current.heads)
    masks = [current | Mask.suppress(current.grid, [head], operator) for head in queue if head not in suppressed]
    chosen: dict[str, Mask] = {}
    if guess is not None and len(masks) > width:
        scores = {mask.key: score[::-1] if by_loss else score for mask, score in zip(masks, guess(masks), strict=True)}
        by_guess = sorted(masks, key=lambda mask: scores[mask.key], reverse=True)
        chosen = {mask.key: mask for mask in by_guess[: width // 2]}
    for mask in masks:
        if len(chosen) < width:
            chosen.setdefault(mask.key, mask)
    return list(chosen.values())


def _reordered(
    queue: Sequence[Head], before: Mask, tried: Sequence[Found], base: Found, order: Callable[[Found], Order]
) -> list[Head]:
    """Heads that still helped first, the best of them first; then those that were not tried; then the others."""
    ordered = sorted(tried, key=order)
    good = [(found.mask - before).heads[0] for found in ordered if order(found) < order(base)]
    bad = [(found.mask - before).heads[0] for found in ordered if order(found) >= order(base)]
    rest = [head for head in queue if head not in {*good, *bad}]
    return [*good, *rest, *bad]

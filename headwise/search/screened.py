"""Screened AAT-GA: a genetic search on free estimates, which start anew from every mask that is run exactly."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.anchors import Anchors
from headwise.search.contract import Evaluate, Found, affordable, best_of
from headwise.search.genetic import genetic
from headwise.search.genome import GeneticSettings
from headwise.search.surrogate import Surrogate

if TYPE_CHECKING:
    import torch

    from headwise.scoring.objectives import Score


@dataclass(frozen=True)
class ScreenedSettings:
    """
    Arguments:
        rounds: most rounds of estimate, evaluate, learn.
        batch: exact evaluations per round. Few: every one makes the estimates near it better.
        inner: the genetic search that each round runs on the estimates; its seed, max_heads and budget are
            replaced. Estimates cost no FFE but do cost time: about population × generations of them a round.
        optimism: how many standard deviations of the estimates' errors are added for half of each batch, so that
            masks of which little is known are tried too.
        patience: stop after this many rounds without a new best.
        max_heads, budget, seed: as in `GeneticSettings`.

    Raises:
        HeadwiseError: a value out of its range.
    """

    rounds: int = 36
    batch: int = 2
    inner: GeneticSettings = field(default_factory=lambda: GeneticSettings(population=24, generations=8, elites=4))
    optimism: float = 1.0
    patience: int = 12
    max_heads: int | None = None
    budget: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("rounds", "batch", "patience"):
            if getattr(self, name) < 1:
                raise HeadwiseError(f"Screened search: {name} is {getattr(self, name)}; it must be at least 1.")
        if self.optimism < 0 or (self.budget is not None and self.budget <= 0):
            raise HeadwiseError("Screened search: optimism must be 0 or more, and a budget above 0.")

    @property
    def spec(self) -> dict[str, object]:
        """The settings as plain JSON values."""
        return asdict(self)


DEFAULTS = ScreenedSettings()


@dataclass(frozen=True)
class Round:
    """What one round brought.

    Arguments:
        number: 0-based.
        estimated: masks estimated so far.
        evaluated: masks evaluated exactly so far, by this search.
        ffe: FFE spent by this search so far.
        best: best exact fitness so far.
        size: heads that the best mask suppresses.
        error: root mean square of exact minus estimated fitness over this round's masks, before they were learned.
    """

    number: int
    estimated: int
    evaluated: int
    ffe: float
    best: float
    size: int
    error: float


@dataclass(frozen=True, eq=False)
class Screened:
    """
    Arguments:
        best: the best mask, by exact score.
        by_size: the best exactly evaluated mask of every size, fewest heads first.
        history: one entry per round.
        why: what ended it: `rounds`, `patience`, `budget` or `exhausted`.
        ffe: exact evaluations (the sweep and the collection of deltas not counted).
        estimated: how many masks were estimated.
        correlation: Pearson's between the fitness of the sum of single-head changes and the exact one, over the
            masks that the search proposed (no single heads: their estimates are exact by construction).
        corrected: the same for the estimates that the search used, each as it stood before the mask was evaluated.
    """

    best: Found
    by_size: tuple[Found, ...]
    history: tuple[Round, ...]
    why: str
    ffe: float
    estimated: int
    correlation: float
    corrected: float


def screened(
    evaluate: Evaluate,
    grid: Grid,
    operator: str,
    anchors: Anchors,
    objective: Callable[[torch.Tensor], Score],
    settings: ScreenedSettings = DEFAULTS,
    *,
    ranking: Sequence[Head] = (),
    seeds: Sequence[Mask] = (),
    heads: Sequence[Head] = (),
    progress: Callable[[Round], None] | None = None,
) -> Screened:
    """Search binary masks for the highest fitness with few exact evaluations.

    Each round runs a genetic search on the estimates and evaluates the most promising masks exactly in one call.
    Masks that were run are where the next estimates start from. The answer is the best exact result.

    Arguments:
        evaluate: exact scores on the search split.
        grid, operator, ranking, seeds: as `genetic`. Seeds and the best single heads are evaluated exactly too
            (free where the sweep or the greedy search did it).
        anchors: estimated embeddings; they have to observe what `evaluate` runs, or to run it again.
        objective: embeddings → score, the same that `evaluate` uses.
        settings: every setting of the search.
        heads: those that may be suppressed, all with an estimate; empty: all of them.
        progress: called after each round.

    Raises:
        HeadwiseError: a budget that does not pay for a single mask.
    """
    start = evaluate.spent
    surrogate = Surrogate(anchors, objective)
    found: dict[str, Found] = {}

    def left() -> float | None:
        return None if settings.budget is None else settings.budget - (evaluate.spent - start)

    def learn(masks: Sequence[Mask]) -> int:
        paid = affordable(evaluate, masks, left())
        run = [mask for mask in paid if evaluate.cost([mask]) > 0]  # of others no embeddings are to be had
        results = [Found(mask, score) for mask, score in zip(paid, evaluate(paid) if paid else [], strict=True)]
        found.update({item.mask.key: item for item in results})
        surrogate.learn(results, run)
        return len(paid)

    allowed = set(heads or grid)
    ranking = [head for head in ranking if head in allowed]
    singles = [Mask.suppress(grid, [head], operator) for head in ranking[: settings.batch]]
    most = settings.max_heads or grid.size
    fits = [m for m in seeds if m.is_binary and m.size <= most and m.with_operator(operator) == m]
    given = [mask for mask in fits if set(mask.heads) <= allowed]
    known = list({mask.key: mask for mask in (Mask.identity(grid, operator), *singles, *given)}.values())
    if not learn(known):
        raise HeadwiseError(f"Screened search: a budget of {settings.budget} FFE does not pay for a single mask.")
    proposed: list[tuple[float, float, float]] = []  # from the unchanged model, from the nearest mask, exact
    history: list[Round] = []
    best, stale, why = best_of(found.values()), 0, ""
    while not why:
        _explore(surrogate, grid, operator, settings, len(history), ranking, sorted(allowed), list(found.values()))
        masks = surrogate.promising(settings.batch, settings.optimism, exclude=found)
        before = [(objective(anchors.changes.embeddings(m)).fitness, surrogate.predict(m)) for m in masks]
        paid = learn(masks)
        exact = [found[mask.key].score.fitness for mask in masks[:paid]]
        proposed += [(*guess, value) for guess, value in zip(before[:paid], exact, strict=True)]
        misses = [value - guess[1] for guess, value in zip(before[:paid], exact, strict=True)]
        previous, best = best, best_of(found.values())
        stale = 0 if best is not previous else stale + 1
        record = Round(
            number=len(history),
            estimated=surrogate.count,
            evaluated=len(found),
            ffe=evaluate.spent - start,
            best=best.score.fitness,
            size=best.mask.size,
            error=float(np.sqrt(np.mean(np.square(misses)))) if misses else 0.0,
        )
        history.append(record)
        if progress:
            progress(record)
        if not masks:
            why = "exhausted"
        elif paid < len(masks):
            why = "budget"
        elif len(history) >= settings.rounds:
            why = "rounds"
        elif stale >= settings.patience:
            why = "patience"
    by_size: dict[int, Found] = {}
    for item in sorted(found.values(), key=lambda item: item.order):
        by_size.setdefault(item.mask.size, item)
    return Screened(
        best=best,
        by_size=tuple(by_size[size] for size in sorted(by_size)),
        history=tuple(history),
        why=why,
        ffe=evaluate.spent - start,
        estimated=surrogate.count,
        correlation=_correlation(proposed, 0),
        corrected=_correlation(proposed, 1),
    )


def _explore(
    surrogate: Surrogate,
    grid: Grid,
    operator: str,
    settings: ScreenedSettings,
    number: int,
    ranking: Sequence[Head],
    heads: Sequence[Head],
    found: list[Found],
) -> None:
    """A genetic search on the estimates, then climbs from its best mask and from the best exact result.

    The surrogate remembers all that they look at. Without the climbs the first rounds' exact evaluations went to
    masks that a better search of the same estimates would have passed over.
    """
    inner = replace(settings.inner, seed=settings.seed * 1009 + number, max_heads=settings.max_heads, budget=None)
    parents = sorted(found, key=lambda item: item.order)[: settings.inner.population // 3]
    promising = surrogate.promising(settings.inner.population // 3, 0.0, exclude={})
    seeds = [*(item.mask for item in parents), *promising]
    genetic(surrogate, grid, operator, inner, ranking=ranking, seeds=seeds, heads=heads)
    singles = [Mask.suppress(grid, [head], operator) for head in heads]
    most = settings.max_heads or grid.size
    _climb(surrogate, surrogate.promising(1, 0.0, exclude={})[0], singles, most)
    _climb(surrogate, parents[0].mask, singles, most)


def _climb(surrogate: Surrogate, mask: Mask, singles: Sequence[Mask], most: int) -> None:
    """Flip the head that raises the prediction most, until none does."""
    better: Mask | None = mask
    while better is not None:
        mask, value = better, surrogate.predict(better)
        nearby = [flipped for flipped in (mask ^ single for single in singles) if flipped.size <= most]
        better = max(nearby, key=lambda near: (surrogate.predict(near), -near.size, near.key), default=None)
        if better is not None and surrogate.predict(better) <= value:
            better = None


def _correlation(rows: list[tuple[float, float, float]], column: int) -> float:
    """Pearson's correlation of a column with the last; not a number where there is no variation."""
    guess, exact = np.array([row[column] for row in rows]), np.array([row[2] for row in rows])
    if len(rows) < 2 or guess.std() == 0 or exact.std() == 0:
        return float("nan")
    return float(np.corrcoef(guess, exact)[0, 1])

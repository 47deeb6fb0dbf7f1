"""AAT-GA that runs few masks: most are estimated, as long as estimates and exact runs agree.

    ê(S) = e(A) + Σ_{h ∈ S − A} Δ_h − Σ_{h ∈ A − S} Δ_h       A: the nearest mask to S that was run (`anchors.py`)

ê(S), e(A), Δ_h: embeddings and their changes, (N, E); the objective makes a score of ê as of any embeddings. Each round
runs the genetic search of `genetic.py` on such scores, which costs no FFE, and then the few most promising masks
exactly. How far the estimates can be trusted is measured: Spearman's ρ between the predicted and the exact fitness of
the last masks that were predicted before they were run. Below a limit the search goes on exactly, from what it has.
A surrogate-assisted search as in Jin 2011 (Swarm and Evolutionary Computation 1); estimates and limit are this
library's own (docs/defaults.md).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.alphabet import Alphabet, Choice, toggled
from headwise.search.anchors import Anchors
from headwise.search.contract import Evaluate, Found, Left, affordable, best_of, purse
from headwise.search.genetic import genetic
from headwise.search.genome import Breeder, GeneticSettings
from headwise.search.ranks import spearman
from headwise.search.surrogate import Surrogate

if TYPE_CHECKING:
    import torch

    from headwise.scoring.objectives import Score


@dataclass(frozen=True)
class EstimateSettings:
    """How AAT-GA uses estimates; what it searches with is in `GeneticSettings`.

    Arguments:
        rounds: most rounds of estimate, evaluate, learn.
        batch: exact evaluations per round. Few: every one makes the estimates near it better.
        inner: the genetic search that each round runs on the estimates; its seed, max_heads and budget are
            replaced. Estimates cost no FFE but do cost time: about population × generations of them a round.
        optimism: how many standard deviations of the estimates' errors are added for half of each batch, so that
            masks of which little is known are tried too.
        patience: stop after this many rounds without a new best.
        probes: random combinations that are run first, to measure how well estimates rank masks.
        agreement: the least rank correlation at which estimates are trusted.
        window: over how many of the last masks it is measured.

    Raises:
        HeadwiseError: a value out of its range.
    """

    rounds: int = 36
    batch: int = 2
    inner: GeneticSettings = field(default_factory=lambda: GeneticSettings(population=24, generations=8, elites=4))
    optimism: float = 1.0
    patience: int = 12
    probes: int = 8
    agreement: float = 0.3
    window: int = 24

    def __post_init__(self) -> None:
        for name, least in (("rounds", 1), ("batch", 1), ("patience", 1), ("probes", 0), ("window", 8)):
            if getattr(self, name) < least:
                raise HeadwiseError(f"Estimates: {name} is {getattr(self, name)}; it must be at least {least}.")
        if not (self.optimism >= 0 and -1 <= self.agreement <= 1):
            raise HeadwiseError("Estimates: optimism must be 0 or more, and agreement between -1 and 1.")

    @property
    def spec(self) -> dict[str, object]:
        """The settings as plain JSON values."""
        return asdict(self)


DEFAULTS = EstimateSettings()
LEAST = 6  # masks before their agreement says anything


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
        agreement: rank correlation of predicted and exact fitness, over the window; nan: too few masks.
    """

    number: int
    estimated: int
    evaluated: int
    ffe: float
    best: float
    size: int
    agreement: float


@dataclass(frozen=True, eq=False)
class Estimated:
    """
    Arguments:
        best: the best mask, by exact score.
        by_size: the best exactly evaluated mask of every size, fewest heads first.
        history: one entry per round on estimates.
        why: what ended it: `rounds`, `patience`, `budget`, `exhausted`, or after the fall back to exact runs
            `exact: ` with what ended the exact search.
        ffe: exact evaluations (the sweep and the collection of changes not counted).
        estimated: how many masks were estimated.
        agreement: rank correlation of predicted and exact fitness at the end of the estimates; nan: not known.
        exact_after: FFE after which it went on exactly; None: it did not.
    """

    best: Found
    by_size: tuple[Found, ...]
    history: tuple[Round, ...]
    why: str
    ffe: float
    estimated: int
    agreement: float
    exact_after: float | None


def estimated(
    evaluate: Evaluate,
    grid: Grid,
    operator: str | Sequence[str],
    anchors: Anchors,
    objective: Callable[[torch.Tensor], Score],
    settings: GeneticSettings,
    estimates: EstimateSettings = DEFAULTS,
    *,
    ranking: Sequence[Head | Choice] = (),
    seeds: Sequence[Mask] = (),
    heads: Sequence[Head | Choice] = (),
    left: Left | None = None,
    progress: Callable[[Round], None] | None = None,
) -> Estimated:
    """Search masks for the highest fitness with few exact evaluations. The answer is the best exact result.

    Arguments:
        evaluate: exact scores on the search split.
        grid, operator, settings, ranking, seeds, left: as `genetic`. Seeds and the best single heads are evaluated
            exactly too (free where the sweep or the greedy search did it).
        anchors: estimated embeddings; they have to observe what `evaluate` runs, or to run it again.
        objective: embeddings → score, the same that `evaluate` uses.
        estimates: how estimates are used.
        heads: those that may be suppressed (of several edits with their edits), all with an estimate; empty: all of
            them.
        progress: called after each round.

    Raises:
        HeadwiseError: a budget that does not pay for a single mask.
    """
    start, remaining = evaluate.spent, purse(evaluate, settings.budget, left)
    surrogate = Surrogate(anchors, objective)
    found: dict[str, Found] = {}
    compared: list[tuple[float, float]] = []  # predicted before it was run, exact

    def learn(masks: Sequence[Mask]) -> int:
        paid = affordable(evaluate, masks, remaining())
        run = [mask for mask in paid if evaluate.cost([mask]) > 0]  # of others no embeddings are to be had
        guesses = [surrogate.predict(mask) for mask in run if mask.size > 1]
        results = [Found(mask, score) for mask, score in zip(paid, evaluate(paid) if paid else [], strict=True)]
        found.update({item.mask.key: item for item in results})
        exact = [found[mask.key].score.fitness for mask in run if mask.size > 1]
        compared.extend(zip(guesses, exact, strict=True))
        surrogate.learn(results, run)
        return len(paid)

    def agreement() -> float:
        last = compared[-estimates.window :]
        return spearman([a for a, _ in last], [b for _, b in last]) if len(last) >= LEAST else math.nan

    alphabet = Alphabet(grid, operator, heads)
    allowed, most = set(alphabet.allowed), settings.max_heads or grid.size
    ranking = [item for item in ranking if alphabet.number(item) in allowed]
    singles = [alphabet.mask([alphabet.number(item)]) for item in ranking[: estimates.batch]]
    given = [mask for mask in seeds if mask.size <= most and alphabet.numbers(mask) is not None]
    known = list({mask.key: mask for mask in (Mask.identity(grid), *singles, *given)}.values())
    can_spend = remaining()
    if not learn(known):
        raise HeadwiseError(f"AAT-GA: a budget of {can_spend:.1f} FFE does not pay for a single mask. Raise it.")
    breeder = Breeder(grid, operator, replace(settings, seed=settings.seed * 1009 + 7), ranking, heads)
    tried = [numbers for mask in known if (numbers := alphabet.numbers(mask)) is not None]
    probes = [breeder.mask(genome) for genome in breeder.fresh(estimates.probes, tried)]
    paid = learn(probes)
    history: list[Round] = []
    best, stale, why = best_of(found.values()), 0, "budget" if paid < len(probes) else ""
    while not why and not agreement() < estimates.agreement:
        _explore(surrogate, alphabet, operator, settings, estimates, len(history), ranking, found)
        masks = surrogate.promising(estimates.batch, estimates.optimism, exclude=found)
        paid = learn(masks)
        previous, best = best, best_of(found.values())
        stale = 0 if best is not previous else stale + 1
        size, ffe = best.mask.size, evaluate.spent - start
        record = Round(len(history), surrogate.count, len(found), ffe, best.score.fitness, size, agreement())
        history.append(record)
        if progress:
            progress(record)
        if not masks:
            why = "exhausted"
        elif paid < len(masks):
            why = "budget"
        elif len(history) >= estimates.rounds:
            why = "rounds"
        elif stale >= estimates.patience:
            why = "patience"
    trusted, exact_after = agreement(), None
    everything = list(found.values())
    if not why:
        exact_after = evaluate.spent - start
        why = "exact: budget"
        if remaining() >= 1:
            parents = [item.mask for item in sorted(everything, key=lambda item: item.order)][
                : settings.population // 2
            ]
            options = replace(settings, budget=None)
            exact = genetic(
                evaluate, grid, operator, options, ranking=ranking, seeds=parents, heads=heads, left=remaining
            )
            everything += exact.by_size
            why = f"exact: {exact.why}"
    by_size: dict[int, Found] = {}
    for item in sorted(everything, key=lambda item: item.order):
        by_size.setdefault(item.mask.size, item)
    return Estimated(
        best=best_of(everything),
        by_size=tuple(by_size[size] for size in sorted(by_size)),
        history=tuple(history),
        why=why,
        ffe=evaluate.spent - start,
        estimated=surrogate.count,
        agreement=trusted,
        exact_after=exact_after,
    )


def _explore(
    surrogate: Surrogate,
    alphabet: Alphabet,
    operator: str | Sequence[str],
    settings: GeneticSettings,
    estimates: EstimateSettings,
    number: int,
    ranking: Sequence[Head | Choice],
    found: dict[str, Found],
) -> None:
    """A genetic search on the estimates, then climbs from its best mask and from the best exact result.

    The surrogate remembers all that they look at. Without the climbs the first rounds' exact evaluations went to
    masks that a better search of the same estimates would have passed over.
    """
    few = max(1, estimates.inner.population // 3)
    inner = replace(estimates.inner, seed=settings.seed * 1009 + number, max_heads=settings.max_heads, budget=None)
    parents = sorted(found.values(), key=lambda item: item.order)[:few]
    seeds = [*(item.mask for item in parents), *surrogate.promising(few, 0.0, exclude={})]
    allowed, grid = [alphabet.choices[number] for number in alphabet.allowed], alphabet.grid
    # not restless: it should look near what was run, where estimates are good
    genetic(surrogate, grid, operator, inner, ranking=ranking, seeds=seeds, heads=allowed, restless=False)
    singles = [alphabet.mask([number]) for number in alphabet.allowed]
    most = settings.max_heads or grid.size
    _climb(surrogate, surrogate.promising(1, 0.0, exclude={})[0], singles, most)
    _climb(surrogate, parents[0].mask, singles, most)


def _climb(surrogate: Surrogate, mask: Mask, singles: Sequence[Mask], most: int) -> None:
    """Flip the head, on, to another edit or off, that raises the prediction most, until none does."""
    better: Mask | None = mask
    while better is not None:
        mask, value = better, surrogate.predict(better)
        nearby = [flipped for flipped in (toggled(mask, single) for single in singles) if flipped.size <= most]
        better = max(nearby, key=lambda near: (surrogate.predict(near), -near.size, near.key), default=None)
        if better is not None and surrogate.predict(better) <= value:
            better = None

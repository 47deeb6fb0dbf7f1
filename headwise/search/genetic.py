"""AAT-GA: a genetic search over masks, without gradients: of one edit, or of an alphabet of which each head has its own.

    maximise f(m) over m ∈ {keep, letter …}^H       m_h: what is done to head h; f: exact fitness on the search split

A generation of P masks makes the next: tournaments choose parents, crossover (head by head, or whole layers) and
mutation make children, the E best survive. Implements the technique of AAT (arXiv 2507.00537), which names a genetic
algorithm over binary attention masks; more letters, the operators and sizes are this library's own (`genome.py`, docs/defaults.md).
`estimated.py` is the same search with most masks estimated instead of run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.alphabet import Choice
from headwise.search.contract import Evaluate, Found, Left, Order, affordable, best_of, purse
from headwise.search.genome import DEFAULTS, Breeder, GeneticSettings, Genome


@dataclass(frozen=True)
class Generation:
    """What one generation brought.

    Arguments:
        number: 0 is the first population.
        evaluated: masks evaluated so far.
        ffe: FFE spent by this search so far.
        best: best fitness so far.
        mean: mean fitness of the masks alive.
        size: heads that the best mask suppresses.
    """

    number: int
    evaluated: int
    ffe: float
    best: float
    mean: float
    size: int


@dataclass(frozen=True)
class Genetic:
    """
    Arguments:
        best: the best mask of all.
        by_size: the best mask of every size that was tried, fewest heads first.
        history: one entry per generation.
        why: what ended it: `generations`, `patience`, `budget` or `exhausted` (no mask left to try).
        ffe: what it cost.
    """

    best: Found
    by_size: tuple[Found, ...]
    history: tuple[Generation, ...]
    why: str
    ffe: float

    @property
    def front(self) -> tuple[Found, ...]:
        """The masks that beat every mask with fewer heads, fewest heads first."""
        front: list[Found] = []
        for found in self.by_size:
            if not front or found.score.order > front[-1].score.order:
                front.append(found)
        return tuple(front)


def genetic(
    evaluate: Evaluate,
    grid: Grid,
    operator: str | Sequence[str],
    settings: GeneticSettings = DEFAULTS,
    *,
    ranking: Sequence[Head | Choice] = (),
    seeds: Sequence[Mask] = (),
    heads: Sequence[Head | Choice] = (),
    left: Left | None = None,
    restless: bool = True,
    progress: Callable[[Generation], None] | None = None,
) -> Genetic:
    """Search masks for the highest fitness.

    Each generation is one evaluate call, and no mask is evaluated twice.

    Arguments:
        evaluate: exact scores on the search split.
        grid: the heads of the model (the pooling row is searched like the others).
        operator: what may be done to a head: one edit, or several of which each changed head has one.
        settings: every setting of the search.
        ranking: heads, the most harmful first (`Sweep.ranking`, or a cheaper ranking); of several edits heads with their
            edits; empty: no head is preferred.
        seeds: masks to start from besides identity, the best single heads and the best heads together, such as
            the path of the greedy search. Masks of another operator, soft masks and masks that are too large are
            left out.
        heads: those that may be suppressed, of several edits with their edits; empty: all of them.
        left: FFE that may still be spent, besides the settings' own budget.
        restless: twice as many immigrants where two generations brought nothing better.
        progress: called after each generation.

    Raises:
        HeadwiseError: a budget that does not pay for a single mask.
    """
    breeder = Breeder(grid, operator, settings, ranking, heads)
    start, remaining = evaluate.spent, purse(evaluate, settings.budget, left)
    archive: dict[Genome, Order] = {}  # sort keys alone: scores carry a rank for every query
    by_size: dict[int, Found] = {}
    history: list[Generation] = []
    alive: list[Genome] = []
    newcomers = breeder.first_population(seeds)
    stale, why = 0, ""
    while not why:
        masks = [breeder.mask(genome) for genome in newcomers]
        can_spend = remaining()
        paid = affordable(evaluate, masks, can_spend)
        if not paid and not archive:
            raise HeadwiseError(f"AAT-GA: a budget of {can_spend:.1f} FFE does not pay for a single mask. Raise it.")
        before = best_of(by_size.values()) if by_size else None
        for genome, mask, score in zip(newcomers, paid, evaluate(paid) if paid else [], strict=False):
            found = Found(mask, score)
            archive[genome] = found.order
            by_size[mask.size] = best_of([found, by_size.get(mask.size, found)])
        best = best_of(by_size.values())
        alive = sorted([*alive[: settings.elites], *newcomers[: len(paid)]], key=archive.__getitem__)
        stale = stale + 1 if best is before else 0
        record = Generation(
            number=len(history),
            evaluated=len(archive),
            ffe=evaluate.spent - start,
            best=best.score.fitness,
            mean=-sum(archive[genome][0] for genome in alive) / len(alive),
            size=best.mask.size,
        )
        history.append(record)
        if progress:
            progress(record)
        if len(paid) < len(newcomers):
            why = "budget"
        elif record.number >= settings.generations:
            why = "generations"
        elif stale >= settings.patience:
            why = "patience"
        else:
            newcomers = breeder.offspring(alive, archive, stale=stale if restless else 0)
            if not newcomers:
                why = "exhausted"
    return Genetic(best, tuple(by_size[size] for size in sorted(by_size)), tuple(history), why, evaluate.spent - start)

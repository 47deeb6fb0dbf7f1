"""Fronts: score against number of suppressed heads, and score on one domain against another (NSGA-II).

    maximise (f(S), −|S|)  or  (f(S), min over kept domains k of f_k(S) − f_k(∅))       over S ⊆ {1 … H}

f, f_k: exact fitness on the search splits. Masks of which no other is better in both values. NSGA-II is Deb et al. 2002
(IEEE Trans. Evol. Comp. 6) as pymoo has it; genomes and first population are AAT-GA's (`genome.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.contract import ROUNDING, Evaluate, Left
from headwise.search.genetic import DEFAULTS
from headwise.search.genome import Breeder, GeneticSettings

if TYPE_CHECKING:
    from headwise.scoring.objectives import Score

    Scores = tuple[Score, ...]  # a mask's, one per domain

Values = tuple[float, float]


@dataclass(frozen=True, eq=False)
class Point:
    """A mask on a front.

    Arguments:
        mask: the mask.
        values: what the front trades, both to be maximised (the number of heads is negative).
        scores: the exact score on every domain.
    """

    mask: Mask
    values: Values
    scores: tuple[Score, ...]


@dataclass(frozen=True, eq=False)
class Front:
    """Masks of which none is better than another in both respects.

    Arguments:
        identity: the mask that keeps every head, for comparison.
        points: the front, best first value first.
        evaluated: how many masks were tried.
        ffe: what it cost, all domains together.
        why: `generations`, `budget` or `converged`.
    """

    identity: Point
    points: tuple[Point, ...]
    evaluated: int
    ffe: float
    why: str

    def keeping(self, max_loss: float) -> tuple[Point, ...]:
        """The points whose second value is at most `max_loss` below identity's, best first value first.

        For domains: the masks that help on new data and do not break old data.
        """
        least = self.identity.values[1] - max_loss
        return tuple(point for point in self.points if point.values[1] >= least - 1e-12)


def size_front(
    evaluate: Evaluate,
    grid: Grid,
    operator: str,
    settings: GeneticSettings = DEFAULTS,
    *,
    ranking: Sequence[Head] = (),
    heads: Sequence[Head] = (),
    seeds: Sequence[Mask] = (),
    left: Left | None = None,
) -> Front:
    """The highest fitness for every number of suppressed heads.

    Arguments:
        evaluate, grid, operator, ranking, heads, seeds: as `genetic`.
        settings: population, generations, uniform, flip, good, max_heads, budget and seed are used.
        left: FFE that may still be spent, besides the settings' own budget.

    Raises:
        HeadwiseError: pymoo is not installed, or the budget does not pay for identity.
    """

    def values(mask: Mask, scores: Scores, _: Scores) -> Values:
        return scores[0].fitness, -float(mask.size)

    return _nsga2([evaluate], values, Breeder(grid, operator, settings, ranking, heads), seeds, left)


def domain_front(
    evaluate: Evaluate,
    keep: Sequence[Evaluate],
    grid: Grid,
    operator: str,
    settings: GeneticSettings = DEFAULTS,
    *,
    ranking: Sequence[Head] = (),
    heads: Sequence[Head] = (),
    seeds: Sequence[Mask] = (),
    left: Left | None = None,
) -> Front:
    """The highest fitness on one domain for every change on others that must not get worse.

    A point's second value is the change of fitness, against identity, on the kept domain that suffers most.

    Arguments:
        evaluate: exact scores on the domain to improve.
        keep: exact scores on each domain that must not get worse.
        grid, operator, ranking, heads, seeds, left, settings: as `size_front`; the budget is for all domains together.

    Raises:
        HeadwiseError: pymoo is not installed, or the budget does not pay for identity.
    """

    def values(_: Mask, scores: Scores, identity: Scores) -> Values:
        changes = [score.fitness - base.fitness for score, base in zip(scores[1:], identity[1:], strict=True)]
        return scores[0].fitness, min(changes)

    return _nsga2([evaluate, *keep], values, Breeder(grid, operator, settings, ranking, heads), seeds, left)


def _nsga2(
    domains: list[Evaluate],
    values: Callable[[Mask, Scores, Scores], Values],
    breeder: Breeder,
    seeds: Sequence[Mask],
    left: Left | None,
) -> Front:
    algorithm, fill = _algorithm(breeder, seeds)
    budget = breeder.settings.budget
    start = sum(domain.spent for domain in domains)
    known: dict[str, Point] = {}

    def afford(masks: list[Mask]) -> list[Mask]:
        own = np.inf if budget is None else budget - (sum(domain.spent for domain in domains) - start)
        can_spend = own if left is None else min(own, left())
        while masks and sum(domain.cost(masks) for domain in domains) > can_spend + ROUNDING:
            masks = masks[:-1]
        return masks

    def learn(masks: list[Mask]) -> bool:
        """Evaluate what is not known yet; whether the budget paid for all of it."""
        new = list({mask.key: mask for mask in masks if mask.key not in known}.values())
        paid = afford(new)
        columns = [domain(paid) for domain in domains] if paid else []
        for mask, *found in zip(paid, *columns, strict=True):
            scores = tuple(found)
            identity = known["identity"].scores if known else scores  # identity is the first to be evaluated
            known[mask.key] = Point(mask, values(mask, scores, identity), scores)
        return len(paid) == len(new)

    why = "budget"
    if not learn([Mask.identity(breeder.grid)]):
        raise HeadwiseError("Front: the budget does not pay for identity on every domain. Raise it.")
    while algorithm.has_next():
        infill = algorithm.ask()
        if infill is None or len(infill) == 0:
            why = "converged"
            break
        masks = [breeder.mask(tuple(map(int, np.flatnonzero(x)))) for x in infill.get("X")]
        if not learn(masks):
            break
        fill(infill, np.array([[-value for value in known[mask.key].values] for mask in masks]))
        algorithm.tell(infills=infill)
    else:
        why = "generations"
    ffe = sum(domain.spent for domain in domains) - start
    return Front(known["identity"], _undominated(known.values()), len(known), ffe, why)


def _undominated(points) -> tuple[Point, ...]:
    """The points that no other beats in one value without losing in the other; best first value first."""
    ordered = sorted(points, key=lambda p: (-p.values[0], -p.values[1], p.mask.size, str(p.mask)))
    front: list[Point] = []
    for point in ordered:
        if not front or point.values[1] > front[-1].values[1]:
            front.append(point)
    return tuple(front)


def check_installed() -> None:
    """
    Raises:
        HeadwiseError: pymoo is not installed.
    """
    try:
        import pymoo.algorithms.moo.nsga2  # noqa: F401
    except ImportError as error:
        raise HeadwiseError("Fronts need pymoo, which is not installed: pip install 'headwise[fronts]'") from error


def _algorithm(breeder: Breeder, seeds: Sequence[Mask]):
    """NSGA-II over the breeder's grid, and a function that hands it the values to minimise."""
    check_installed()
    from pymoo.algorithms.moo.nsga2 import NSGA2
    from pymoo.core.evaluator import Evaluator
    from pymoo.core.problem import Problem
    from pymoo.core.repair import Repair
    from pymoo.operators.crossover.ux import UniformCrossover
    from pymoo.operators.mutation.bitflip import BitflipMutation
    from pymoo.problems.static import StaticProblem

    settings, size = breeder.settings, breeder.grid.size
    first = np.zeros((settings.population, size), bool)
    population = breeder.first_population(seeds)
    for row, genome in enumerate(population):
        first[row, list(genome)] = True

    barred = np.ones(size, bool)
    barred[breeder.allowed] = False

    class AtMost(Repair):
        """Keep heads that cannot have the edit, and random others until no more than `max_heads` are suppressed."""

        def _do(self, problem, X, random_state=None, **_):
            assert random_state is not None  # pymoo always passes its own
            X[:, barred] = False
            for x in X:
                on = np.flatnonzero(x)
                if len(on) > breeder.most:
                    x[random_state.permutation(on)[breeder.most :]] = False
            return X

    problem = Problem(n_var=size, n_obj=2, xl=0, xu=1, vtype=bool)
    operators = {
        "sampling": first[: len(population)],
        "crossover": UniformCrossover(prob=settings.uniform),
        "mutation": BitflipMutation(prob_var=settings.flip or 1 / size),
        "repair": AtMost(),
    }
    algorithm = NSGA2(pop_size=settings.population, eliminate_duplicates=True, **operators)
    algorithm.setup(problem, termination=("n_gen", settings.generations + 1), seed=settings.seed)
    return algorithm, lambda infill, F: Evaluator().eval(StaticProblem(problem, F=F), infill)

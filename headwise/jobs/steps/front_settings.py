"""What a front may be asked for, and what it costs: settings, the least budget, the plan of its stages.

In: settings; a prepared bench. Out: the budget with a reserve for the pick splits, and stages of `planning.py`. The job
itself is `jobs/front.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from headwise.edits.edit import canonical
from headwise.errors import HeadwiseError
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.budget import FIRST_ORDER, Budget, open_budget, starting_cost
from headwise.jobs.steps.planning import SHARED, Speed, Stage, expected, together
from headwise.jobs.steps.settings import MASK, Settings, check_level, within
from headwise.scoring import stats
from headwise.search.genome import GeneticSettings

FRONT_FFE = 200.0  # beyond the sweep, where no budget is given: half for greedy, half for NSGA-II
POINTS = 24  # of a front that the pick splits judge, where the budget pays for them
POINTS_FOUND = 5  # of a front, as a plan expects them: what the packaged model's fronts have
POINTS_SHARE = 0.3  # of a smaller budget that is kept for them


@dataclass(frozen=True)
class FrontSettings:
    """
    Arguments:
        operator: what suppressed heads emit.
        genetic: NSGA-II uses population, generations, uniform, flip and good; its seed and max_heads are those here.
        budget: most FFE of everything before the test split, all domains together: the sweep (or first-order scores),
            greedy, NSGA-II, the pick splits. None: the sweep, `FRONT_FFE` more, and what the pick splits take.
        max_minutes: most minutes of all that, on this machine; None: no limit.
        max_heads: most heads to suppress, of the masks searched; one with at most so many is chosen. None: any number.
        max_loss: choose a mask that costs every kept domain at most these points on its pick split.
        level: among kept domains: the chance of choosing a mask where none is better.
        seed: of the search and the statistics. With neither max_heads nor max_loss, no mask is chosen.

    Raises:
        HeadwiseError: an unknown operator or a value out of its range.
    """

    operator: str = "uniform"
    genetic: GeneticSettings = field(
        default_factory=lambda: GeneticSettings(population=24, generations=200, elites=1, immigrants=0)
    )
    budget: float | None = None
    max_minutes: float | None = None
    max_heads: int | None = None
    max_loss: float | None = None
    level: float = stats.LEVEL
    seed: int = 0

    def __post_init__(self) -> None:
        check_level(self.level)
        object.__setattr__(self, "operator", canonical(self.operator))
        object.__setattr__(self, "genetic", replace(self.genetic, seed=self.seed, max_heads=self.max_heads))
        within("max_loss", self.max_loss, 0, 100, "points")
        assert self.searching  # checks the others

    @property
    def searching(self) -> Settings:
        """What the front starts from, and what bounds it: settings of the main job."""
        return Settings(
            operators=(self.operator,),
            strategies=("greedy",),
            rungs=(MASK,),
            max_heads=self.max_heads,
            budget=self.budget,
            max_minutes=self.max_minutes,
            seed=self.seed,
        )

    @property
    def chooses(self) -> bool:
        """Whether a mask is to be chosen from the front."""
        return self.max_heads is not None or self.max_loss is not None


def check_front_budget(settings: FrontSettings, each: float) -> None:
    """
    Arguments:
        each: splits that a mask is judged on.

    Raises:
        HeadwiseError: a budget that does not pay for the least that a front takes.
    """
    least = FIRST_ORDER + 1.0 + each
    fewest = max(least + 2 * each, least / (1 - POINTS_SHARE))
    if settings.budget is not None and settings.budget < fewest:
        raise HeadwiseError(
            f"The budget is too small for a front: first-order scores, the start on every domain and the points on the "
            f"pick splits take {fewest:.1f} FFE. Give at least --budget {math.ceil(fewest)}."
        )


def front_budget(bench: Bench, settings: FrontSettings, rate: float, began: float) -> Budget:
    """The budget of a front on this bench, with what is kept of it for the points on the pick splits.

    Arguments:
        rate, began: as for `open_budget`.

    Raises:
        HeadwiseError: a budget, or minutes, that do not pay for the least that a front takes.
    """
    budget = open_budget(bench, settings.searching, rate, began, FRONT_FFE)
    each = 1.0 + len(bench.kept)  # splits that a mask is judged on: FFE of a point, at most
    budget.reserved = max(2 * each, min((1 + POINTS) * each, POINTS_SHARE * budget.left()))
    check_front_budget(replace(settings, budget=budget.left()), each)
    return budget


def front_stages(bench: Bench, settings: FrontSettings, budget: Budget, speed: Speed) -> list[Stage]:
    """In the order in which they are run; the last line, where a mask is to be chosen, is the test split.

    Arguments:
        bench, settings: what is to be run.
        budget: from `front_budget`.
        speed: from `planning.timing`.
    """
    domains: Sequence[Bench] = (bench, *bench.kept)
    grid, wanted, out = bench.tower.grid, settings.searching, list[Stage]()
    whole = len(bench.indices("search"))

    def add(
        name: str, about: float, most: float, scores: float, split: str, where: Sequence[Bench], bounded: bool = True
    ) -> None:
        """FFE and scores are of all these domains together, in equal parts."""
        seconds = 0.0
        for domain in where:
            share = len(domain.indices(split)) / whole
            seconds += (about * speed.ffe * share + scores * speed.score * share**2) / len(where)
        out.append(Stage(name, about, most, seconds / 60, bounded))

    left = budget.total - budget.reserved
    part, sweep = left / 2, starting_cost(bench, settings.operator)
    swept = sweep <= part
    start = sweep if swept else FIRST_ORDER + min(1 + SHARED * grid.size / 3, (part - FIRST_ORDER) / 2)
    name = "sweep" if swept else "first-order scores, first heads"
    add(f"{name} ({settings.operator})", start, start, grid.size + 1, "search", [bench])
    greedy, scores = expected(bench, wanted, "greedy", part - start)
    if settings.max_heads is not None:  # it ends there
        greedy = min(greedy, SHARED * wanted.width * settings.max_heads)
    add(f"greedy ({settings.operator})", greedy, part - start, scores, "search", [bench])
    masks = 1.0 + settings.genetic.population * (1 + settings.genetic.generations)
    rest = left - start - greedy
    about = min(rest, SHARED * masks * len(domains))
    add(f"NSGA-II ({settings.operator})", about, left - start, about / SHARED, "search", domains)
    points = min(POINTS_FOUND, POINTS if settings.max_heads is None else settings.max_heads + 1)
    points = max(1, min(points, int(budget.reserved / len(domains)) - 1))
    about = min(together(bench, points) * len(domains), budget.reserved)
    add("the front on the pick split", about, budget.reserved, (points + 1) * len(domains), "pick", domains)
    if settings.chooses:
        about = together(bench, 1) * len(domains)
        add("test split (outside the budget)", about, 2.0 * len(domains), 2 * len(domains), "test", domains, False)
    return out

"""What a comparison compares: strategies, how often, with which budget.

In: values. Out: `CompareSettings`, immutable and checked before a model or data are read.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from headwise.baselines import BASELINES
from headwise.baselines.training import FitSettings
from headwise.errors import HeadwiseError
from headwise.jobs.steps.settings import MASK, Settings, check_rungs, check_strategies, within
from headwise.jobs.steps.settings import STRATEGIES as SEARCH_STRATEGIES
from headwise.search.values import RANGES

STRATEGIES = (*SEARCH_STRATEGIES, "scale", "spectral", *BASELINES)
ROWS = ("best single head", "greedy", "ga", "bp", "bp soft")  # of searches: the first always, bp gives two
SEEDED = frozenset({"ga", "bp"})  # of searches; the others do the same for every seed
NEED_CAPTIONS = frozenset(BASELINES)
WRITABLE = ("lora", "layernorm", "projection", "svd")
BACKWARD = 3.0  # FFE of a forward and a backward pass


@dataclass(frozen=True)
class CompareSettings:
    """What to compare, and how.

    Arguments:
        strategies: searches, learned rungs and baselines, of `STRATEGIES`, or any other rung (`scale+temperature`); the
            best single head is always among the rows.
        repeats: runs of every strategy that draws random numbers, each with a seed of its own.
        search: settings of the searches and learned rungs, of which each has the whole budget; operators are compared one by one. Its
            `max_minutes` are for everything before the test split, all methods together.
        training: settings of the baselines, whose epochs the budget bounds, too.
        write: baselines, of `WRITABLE`, to leave as model folders: the seed that the pick split likes best.

    Raises:
        HeadwiseError: an unknown strategy, no repeat, or a budget that pays for nothing.
    """

    strategies: tuple[str, ...] = STRATEGIES
    repeats: int = 5
    search: Settings = field(default_factory=Settings)
    training: FitSettings = field(default_factory=FitSettings)
    write: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        rungs = {name: check_rungs((name,))[0] for name in self.strategies if set(name.split("+")) & set(RANGES)}
        check_strategies((name for name in self.strategies if name not in rungs), STRATEGIES, empty=bool(rungs))
        object.__setattr__(self, "strategies", tuple(dict.fromkeys(rungs.get(name, name) for name in self.strategies)))
        object.__setattr__(self, "search", replace(self.search, rungs=(MASK,)))
        within("repeats", self.repeats, 1, 1000)
        for name in self.write:
            if name not in WRITABLE or name not in self.strategies:
                raise HeadwiseError(
                    f"{name!r} cannot be written as a model. There are: {', '.join(WRITABLE)}, where they are compared. The "
                    "others are no weights of an ordinary model."
                )
        if self.search.budget is not None and self.search.budget < BACKWARD:
            raise HeadwiseError(
                f"budget is {self.search.budget:g} FFE; it must be at least {BACKWARD:g} FFE, one epoch of training."
            )

    def of(self, seed: int) -> Settings:
        """The searches' settings for one seed."""
        return replace(self.search, seed=seed, keep_soft=True)

    @property
    def learned(self) -> tuple[str, ...]:
        """The learned rungs that are asked for."""
        return tuple(name for name in self.strategies if name not in (*SEARCH_STRATEGIES, *BASELINES))

    @property
    def methods(self) -> tuple[str, ...]:
        """The rows that are asked for."""
        searches = {"best single head", *self.strategies, *(("bp soft",) if "bp" in self.strategies else ())}
        rows = (name for name in ROWS if name in searches)
        return (*rows, *self.learned, *(name for name in BASELINES if name in self.strategies))

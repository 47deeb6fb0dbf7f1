"""The settings of the main job."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field

from headwise.edits.operators import canonical_operator
from headwise.errors import HeadwiseError
from headwise.scoring.stats import LEVEL
from headwise.search.genome import GeneticSettings
from headwise.search.gradient import GradientSettings
from headwise.search.racing import RaceSettings
from headwise.search.screened import ScreenedSettings

STRATEGIES = ("greedy", "genetic", "screened", "taylor", "bp", "front")


def check_level(level: float) -> None:
    """
    Raises:
        HeadwiseError: not a probability.
    """
    if not 0 < level < 1:
        raise HeadwiseError(f"level is {level}; it is the chance of a false choice and lies between 0 and 1.")


@dataclass(frozen=True)
class Settings:
    """How to search and select. The defaults were chosen by measurement: docs/defaults.md.

    Arguments:
        operators: what suppressed heads emit; with several, the pick split decides.
        strategies: searches to run after the sweep, of `STRATEGIES`.
        sweep: evaluate every head alone first; without it first-order scores rank the heads.
        genetic, screened, gradient: the settings of AAT-GA, of its screened form and of AAT-BP; their seed and
            max_heads are those below.
        keep_soft: AAT-BP's soft gates are a finalist too.
        width: candidates per step of the greedy search.
        max_heads: most heads to suppress.
        finalists: most masks that the pick split compares, besides identity.
        controls: layer-matched random masks on the test split.
        race: compare the greedy search's candidates on growing subsets and drop those that cannot win; None: all
            of them are evaluated whole.
        max_loss: most points that a kept domain may lose on its pick split; only with kept domains.
        level: the chance of choosing a mask where none is better: the pick split's max-T test.
        seed: of the searches, controls and statistics.
    """

    operators: tuple[str, ...] = ("uniform",)
    strategies: tuple[str, ...] = ("greedy", "genetic")
    sweep: bool = True
    genetic: GeneticSettings = field(default_factory=lambda: GeneticSettings(population=24, budget=200.0))
    screened: ScreenedSettings = field(default_factory=ScreenedSettings)
    gradient: GradientSettings = field(default_factory=GradientSettings)
    keep_soft: bool = False
    width: int = 8
    max_heads: int | None = None
    finalists: int = 12
    controls: int = 20
    race: RaceSettings | None = None
    max_loss: float = 0.5
    level: float = LEVEL
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.operators:
            raise HeadwiseError("No operator was given. Give one or more, such as uniform,zero.")
        object.__setattr__(self, "operators", tuple(dict.fromkeys(map(canonical_operator, self.operators))))
        for name in self.strategies:
            if name not in STRATEGIES:
                raise HeadwiseError(f"{name!r} is not a strategy. There are: {', '.join(STRATEGIES)}.")
        if not 0 <= self.max_loss <= 100:
            raise HeadwiseError(f"max_loss is {self.max_loss} points; it must lie between 0 and 100.")
        check_level(self.level)
        for name, least in (("finalists", 1), ("controls", 1), ("width", 1)):
            if getattr(self, name) < least:
                raise HeadwiseError(f"{name} is {getattr(self, name)}; it must be at least {least}.")

    def as_json(self) -> dict[str, object]:
        """As JSON gives it back, so that what was saved compares equal."""
        return json.loads(json.dumps(asdict(self)))

"""The settings of the main job: every value is checked when they are made, before a model or data are read.

In: values. Out: `Settings`, immutable, or a refusal that names the value. The defaults were chosen by measurement:
docs/defaults.md.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace

from headwise.edits.edit import canonical
from headwise.edits.heads import Grid
from headwise.errors import HeadwiseError
from headwise.scoring.stats import LEVEL
from headwise.search.estimated import EstimateSettings
from headwise.search.genome import GeneticSettings
from headwise.search.gradient import GradientSettings, check_gated
from headwise.search.values import ALPHAS, STEP_MEMORY, ValueSettings, check_learn, epoch_cost, step_memory
from headwise.towers.base import Model
from headwise.wording import option

STRATEGIES = ("greedy", "ga", "bp")
FORMER = {
    "genetic": "Write ga, its name now.",
    "screened": "Write ga: it estimates by itself, as long as estimates agree with exact runs.",
    "taylor": "First-order scores are how a search starts where there is no sweep: --no-sweep, with greedy or ga.",
    "front": "Run the command `headwise front`; refine checks kept domains for every strategy.",
    "race": "Racing saved nothing and is gone.",
}
CANDIDATES = len(ALPHAS) + 1.0  # FFE of what a learned rung evaluates exactly, and of the moments it starts from
SEARCH_FFE = 100.0  # for each operator beyond what it starts from, where no budget is given
MASK = "mask"  # the first rung: suppressing heads, AAT itself
WEIGHTS = ("projection", "lora")  # the last ones, opt-in: no edits of heads, weights are trained
RULES = ("safe", "best")


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
        operators: what suppressed heads emit; with several, the pick split decides, and AAT-GA mixes them: every head
            has its own.
        strategies: searches to run, of `STRATEGIES`; each later one starts from what the earlier ones found.
        budget: most FFE of everything before the test split: what the searches start from, the searches, finalists
            on the pick split and on kept domains. None: the sweep, `SEARCH_FFE` more for each operator, and all that
            learned rungs, rungs that train weights, finalists and learning again take.
        max_minutes: most minutes of all that, on this machine; None: no limit.
        sweep: evaluate every head alone first, if the budget pays for it; otherwise first-order scores rank the
            heads.
        exact: AAT-GA runs every mask; otherwise it estimates most, as long as estimates agree with exact runs.
        genetic, estimates, gradient: the settings of AAT-GA, of its estimates and of AAT-BP; their seed, max_heads
            and budget are those here.
        keep_soft: AAT-BP's soft gates are a finalist too.
        rungs: of the ladder, smallest first: `mask` (the strategies), then what is learned of every head, such as
            `scale`, `spectral` or `scale+temperature`; the pick split compares all of them. `projection` and `lora`
            train weights: what is chosen among edits stays that, and the pick split says which is preferred.
        values: how learned rungs are learned; what and the seed are those of the rung and the run.
        anchor_weight: λ, how much learned rungs are held to anchors, in units of the loss; only with anchors.
        choose: `safe`: the fewest values within one standard error of the best; `best`: the best.
        refit: learn what was chosen once more, from search and pick images together, where the budget pays for it.
        width: candidates per step of the greedy search.
        max_heads: most heads to suppress.
        finalists: most masks that the pick split compares, besides identity.
        controls: layer-matched random masks on the test split.
        max_loss: most points that a kept domain may lose on its pick split; only with kept domains.
        level: the chance of choosing a mask where none is better: the pick split's max-T test.
        seed: of the searches, controls and statistics.

    Raises:
        HeadwiseError: a value out of its range, a strategy that there is not, or AAT-BP with an edit that is no gate.
    """

    operators: tuple[str, ...] = ("uniform",)
    strategies: tuple[str, ...] = ("greedy", "ga")
    budget: float | None = None
    max_minutes: float | None = None
    sweep: bool = True
    exact: bool = False
    genetic: GeneticSettings = field(default_factory=lambda: GeneticSettings(population=24))
    estimates: EstimateSettings = field(default_factory=EstimateSettings)
    gradient: GradientSettings = field(default_factory=GradientSettings)
    keep_soft: bool = False
    rungs: tuple[str, ...] = (MASK, "scale", "spectral")
    values: ValueSettings = field(default_factory=ValueSettings)
    anchor_weight: float = 1.0
    choose: str = "best"
    refit: bool = True
    width: int = 8
    max_heads: int | None = None
    finalists: int = 12
    controls: int = 20
    max_loss: float = 0.5
    level: float = LEVEL
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.operators:
            raise HeadwiseError("No edit was given. Give one or more, such as uniform,zero.")
        object.__setattr__(self, "operators", tuple(dict.fromkeys(map(canonical, self.operators))))
        object.__setattr__(self, "strategies", tuple(dict.fromkeys(self.strategies)))
        check_strategies(self.strategies, STRATEGIES)
        object.__setattr__(self, "rungs", check_rungs(self.rungs))
        for operator in self.searching if "bp" in self.strategies else ():
            check_gated(operator)
        if self.choose not in RULES:
            raise HeadwiseError(f"{self.choose!r} is not a rule to choose by. There are: {', '.join(RULES)}.")
        check_level(self.level)
        within("anchor_weight", self.anchor_weight, 0, math.inf, above=True)
        within("max_loss", self.max_loss, 0, 100, "points")
        within("budget", self.budget, 0, math.inf, "FFE", above=True)
        within("max_minutes", self.max_minutes, 0, math.inf, "minutes", above=True)
        within("seed", self.seed, 0, 2**32 - 1)
        for name, least, most in (("finalists", 1, 1000), ("controls", 1, 10_000), ("width", 1, 10_000)):
            within(name, getattr(self, name), least, most)
        within("max_heads", self.max_heads, 1, math.inf)

    @property
    def searching(self) -> tuple[str, ...]:
        """The edits that masks are searched with; none where there is no rung of masks."""
        return self.operators if MASK in self.rungs else ()

    def rung_ffe(self, anchored: bool) -> float:
        """What all of a learned rung takes: its epochs, its candidates and identity."""
        return self.values.epochs * epoch_cost(self.values, anchored) + CANDIDATES + 1.0

    @property
    def mixes(self) -> bool:
        """Whether AAT-GA searches all edits together, in place of each alone."""
        return len(self.searching) > 1 and "ga" in self.strategies

    @property
    def alone(self) -> tuple[str, ...]:
        """The strategies that search with each edit alone."""
        return tuple(name for name in self.strategies if name != "ga") if self.mixes else self.strategies

    @property
    def learning(self) -> tuple[str, ...]:
        """The rungs of edits that are learned."""
        return tuple(rung for rung in self.rungs if rung != MASK and rung not in WEIGHTS)

    @property
    def weights(self) -> tuple[str, ...]:
        """The rungs that train weights."""
        return tuple(rung for rung in self.rungs if rung in WEIGHTS)

    def trained_cost(self, anchored: bool) -> float:
        """FFE of an epoch of these: forward, and backward through activations and weights; as many anchors beside."""
        return (3.0 + self.values.recompute) * (1 + anchored)

    def weights_ffe(self, anchored: bool, kept: int) -> float:
        """Of one of them: its epochs, and its candidates on the pick split and on kept domains."""
        return self.values.epochs * self.trained_cost(anchored) + len(ALPHAS) * (1 + kept)

    def refit_ffe(self, anchored: bool, kept: int) -> float:
        """Most that learning again takes on as many images as the search split's: edits with their moments, and weights;
        each with its check on kept domains, edits with how far they move anchors."""
        learning = self.values.epochs * epoch_cost(self.values, anchored) + 1.0 + 2.0 * (kept + anchored)
        edits = learning if self.learning else 0.0
        weights = self.values.epochs * self.trained_cost(anchored) + 1.0 * kept if self.weights else 0.0
        return edits + weights

    def check_grid(self, grid: Grid) -> None:
        """
        Raises:
            HeadwiseError: more heads than the model has, or none that would be kept.
        """
        check_heads("max_heads", self.max_heads, grid)
        check_heads("width", self.width if self.width != Settings.width else None, grid)

    def as_json(self) -> dict[str, object]:
        """As JSON gives it back, so that what was saved compares equal."""
        return json.loads(json.dumps(asdict(self)))


def check_model(model: Model, settings: Settings) -> None:
    """What the settings ask of a model, before data are read.

    Raises:
        HeadwiseError: an edit that the tower cannot have, or more heads than it has.
    """
    for operator in settings.operators:
        model.tower.check_edit(operator)
    settings.check_grid(model.tower.grid)


def saving_memory(model: Model, settings: Settings) -> Settings:
    """The settings with activation checkpointing for learned rungs where a step of this model would take too much memory.

    It follows from the architecture, not from the machine: results and FFE are the same anywhere.
    """
    heavy = step_memory(model.tower, settings.values.batch) > STEP_MEMORY
    return replace(settings, values=replace(settings.values, recompute=True)) if heavy else settings


def check_anchor(given: bool, settings: Settings) -> None:
    """
    Raises:
        HeadwiseError: anchors without a learned rung that they could hold.
    """
    if given and not (settings.learning or settings.weights):
        raise HeadwiseError(
            f"{option('anchor', 'SOURCE')} holds learned rungs to old images, and no such rung is asked for. Add one, as "
            f"in {option('rungs', 'mask,scale')}."
        )


def check_rungs(given: Iterable[str]) -> tuple[str, ...]:
    """Rungs in their canonical names, each once.

    Raises:
        HeadwiseError: none, or one that there is not.
    """
    rungs = dict.fromkeys(
        rung if rung in (MASK, *WEIGHTS) else "+".join(check_learn(rung.split("+"))) for rung in given
    )
    if not rungs:
        raise HeadwiseError("No rung was given. Give one or more, such as mask,scale,spectral.")
    if all(rung in WEIGHTS for rung in rungs):
        raise HeadwiseError(
            f"Rungs that train weights ({', '.join(rungs)}) stand above edits of heads. Add one of those, such as mask,scale, "
            "or train weights alone with headwise compare --strategy."
        )
    return tuple(rungs)


def check_strategies(given: Iterable[str], known: Iterable[str], *, empty: bool = False) -> None:
    """
    Arguments:
        empty: there may be none.

    Raises:
        HeadwiseError: a name that there is not, with what to write in place of a former one, or no name at all.
    """
    given = list(given)
    if not given and not empty:
        raise HeadwiseError(f"No strategy was given. There are: {', '.join(known)}.")
    for name in given:
        if name not in known:
            instead = FORMER.get(name, f"There are: {', '.join(known)}.")
            raise HeadwiseError(f"{name!r} is not a strategy. {instead}")


def within(name: str, value: float | None, least: float, most: float, unit: str = "", *, above: bool = False) -> None:
    """
    Raises:
        HeadwiseError: a value that is not between `least` and `most` (or, with `above`, that is `least`). None may.
    """
    if value is None or (least <= value <= most and value < math.inf and not (above and value == least)):
        return
    bounds = f"above {least:g}" if above else f"at least {least:g}"
    if most < math.inf:
        bounds = f"between {least:g} and {most:g}"
    raise HeadwiseError(f"{name} is {value:g}{' ' + unit if unit else ''}; it must be {bounds}.")


def check_heads(name: str, value: int | None, grid: Grid) -> None:
    """
    Raises:
        HeadwiseError: more heads than there are.
    """
    if value is not None and value > grid.size:
        raise HeadwiseError(f"{name} is {value}, but the model has {grid.size} heads ({grid}).")

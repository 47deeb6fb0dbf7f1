"""Binary masks as genomes: how a genetic search makes its first population and its offspring.

In: a ranking of the heads, seeds, an archive of sort keys. Out: genomes (the numbers of suppressed heads, ascending)
that are not in the archive. Every draw comes from one generator. It never evaluates a mask; `genetic.py`,
`estimated.py` and `fronts.py` do.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.contract import Order

Genome = tuple[int, ...]  # the suppressed heads, numbered in the order of the grid, ascending
ATTEMPTS = 60  # draws for one new child before giving it up


@dataclass(frozen=True)
class GeneticSettings:
    """
    Arguments:
        population: masks alive at a time.
        generations: most generations.
        tournament: how many masks compete to become a parent.
        uniform: probability of uniform crossover: every head from either parent.
        block: probability of layer-block crossover: every layer whole from either parent. The rest are clones.
        flip: after crossover each head flips with this probability; 0: one divided by the number of heads.
        one_head: probability that exactly one head flips instead.
        swap: probability that instead a suppressed head trades places with a kept one.
        elites: best masks that survive unchanged.
        immigrants: new random combinations of good heads per generation; twice as many where nothing better is found.
        good: the share of the ranking, from its top, whose heads random combinations draw from.
        patience: stop after this many generations without a new best.
        max_heads: most heads a mask may suppress (None: all of them).
        budget: most FFE to spend, what was evaluated before not counted (None: no limit).
        seed: the same seed gives the same search.

    Raises:
        HeadwiseError: a value out of its range.
    """

    population: int = 48
    generations: int = 40
    tournament: int = 3
    uniform: float = 0.5
    block: float = 0.3
    flip: float = 0.0
    one_head: float = 0.4
    swap: float = 0.2
    elites: int = 6
    immigrants: int = 4
    good: float = 0.35
    patience: int = 8
    max_heads: int | None = None
    budget: float | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        def need(ok: bool, name: str, rule: str) -> None:
            if not ok:
                raise HeadwiseError(f"AAT-GA: {name} is {getattr(self, name)}; it must be {rule}.")

        for name in ("population", "tournament", "patience"):
            need(getattr(self, name) >= (2 if name == "population" else 1), name, "at least 1 (population: 2)")
        for name in ("uniform", "block", "flip", "one_head", "swap", "good"):
            need(0 <= getattr(self, name) <= 1, name, "between 0 and 1")
        need(self.uniform + self.block <= 1, "block", "at most 1 together with uniform")
        need(self.one_head + self.swap <= 1, "swap", "at most 1 together with one_head")
        need(self.good > 0, "good", "above 0")
        need(self.generations >= 0, "generations", "0 or more")
        need(1 <= self.elites < self.population, "elites", "at least 1 and below population")
        need(0 <= self.immigrants <= self.population - self.elites, "immigrants", "at most population - elites")
        need(self.max_heads is None or self.max_heads >= 1, "max_heads", "at least 1")
        need(self.budget is None or self.budget > 0, "budget", "above 0")

    @property
    def spec(self) -> dict[str, object]:
        """The settings as plain JSON values."""
        return asdict(self)


DEFAULTS = GeneticSettings()


class Breeder:
    """Draws genomes; every draw comes from one generator, so that a seed fixes all of them."""

    def __init__(
        self,
        grid: Grid,
        operator: str,
        settings: GeneticSettings,
        ranking: Sequence[Head],
        heads: Sequence[Head] = (),
    ):
        self.grid, self.operator, self.settings = grid, operator, settings
        self.random = random.Random(settings.seed)
        self.heads = list(grid)
        number = {head: i for i, head in enumerate(self.heads)}
        self.row = [row for row, count in enumerate(grid.rows) for _ in range(count)]  # of each head
        allowed = {number[head] for head in heads or grid}
        self.allowed = sorted(allowed)
        ranked = [number[head] for head in ranking if number[head] in allowed]
        self.ranking = ranked or self.random.sample(self.allowed, len(self.allowed))
        self.good = self.ranking[: max(2, math.ceil(settings.good * len(self.ranking)))] if ranking else self.ranking
        self.most = min(len(self.allowed), settings.max_heads or grid.size)

    def mask(self, genome: Genome) -> Mask:
        """The mask that suppresses a genome's heads."""
        return Mask.suppress(self.grid, [self.heads[i] for i in genome], self.operator)

    def genome(self, mask: Mask) -> Genome:
        """The heads that a mask suppresses, as a genome."""
        edits = [edit for row in mask.table for edit in row]
        return tuple(i for i, edit in enumerate(edits) if not edit.keeps)

    # ---- the first population

    def first_population(self, seeds: Sequence[Mask]) -> list[Genome]:
        """Identity, the seeds, the best single heads, the best heads together, then random combinations."""
        size = self.settings.population
        fits = [self.genome(mask) for mask in seeds if self._own(mask)]
        chosen: dict[Genome, None] = {(): None}
        chosen.update(dict.fromkeys(genome for genome in fits if len(genome) <= self.most))
        chosen.update(dict.fromkeys((i,) for i in self.ranking[: max(1, size // 4)]))
        together = (tuple(sorted(self.ranking[:k])) for k in range(2, min(self.most, len(self.ranking)) + 1))
        chosen.update(dict.fromkeys(islice(together, size // 4)))
        first = list(chosen)[:size]
        return first + self._new(size - len(first), dict.fromkeys(first), self.combination)

    def _own(self, mask: Mask) -> bool:
        fits = mask.grid == self.grid and mask.bare() == self.mask(self.genome(mask))
        return fits and set(self.genome(mask)) <= set(self.allowed)

    def combination(self) -> Genome:
        """A few good heads; small combinations and heads from the top of the ranking come more often."""
        most = min(self.most, len(self.good))
        count = round(math.exp(self.random.uniform(0, math.log(most + 0.49))))
        # weighted sampling without replacement (Efraimidis and Spirakis 2006), weight 1/sqrt(rank)
        draw = [(self.random.random() ** math.sqrt(rank + 1), i) for rank, i in enumerate(self.good)]
        return tuple(sorted(i for _, i in sorted(draw, reverse=True)[: max(1, count)]))

    def fresh(self, count: int, known: Sequence[Genome]) -> list[Genome]:
        """Random combinations that are not among the known."""
        return self._new(count, dict.fromkeys(known), self.combination)

    # ---- offspring

    def offspring(
        self, alive: Sequence[Genome], archive: Mapping[Genome, Order], count: int = 0, stale: int = 0
    ) -> list[Genome]:
        """Genomes that the archive does not have.

        Arguments:
            alive: possible parents.
            archive: everything evaluated so far, with its sort key.
            count: how many; by default what is missing to a full population beside the elites. Fewer come back
                where hardly any are left.
            stale: generations without a new best; from the second on twice as many immigrants come, as children of
                masks that are all near one local optimum (greedy's, often) hardly leave it.
        """
        count = count or self.settings.population - self.settings.elites
        immigrants = min(self.settings.immigrants * (2 if stale > 1 else 1), count)
        known = dict.fromkeys(archive)
        children = self._new(count - immigrants, known, lambda: self.child(alive, archive))
        known.update(dict.fromkeys(children))
        return children + self._new(count - len(children), known, self.combination)

    def _new(self, count: int, known: dict[Genome, None], draw) -> list[Genome]:
        """`count` genomes that are not known; a draw that is known is changed until it is new."""
        new: dict[Genome, None] = {}
        for _ in range(count):
            for _ in range(ATTEMPTS):
                genome = self._fit(draw())
                if genome in known or genome in new:
                    genome = self._fit(self.mutate(genome))
                if genome not in known and genome not in new:
                    new[genome] = None
                    break
        return list(new)

    def child(self, alive: Sequence[Genome], archive: Mapping[Genome, Order]) -> Genome:
        """Two parents by tournament, crossed, mutated."""
        one, two = (self._tournament(alive, archive) for _ in range(2))
        return self.mutate(self._cross(one, two))

    def _tournament(self, alive: Sequence[Genome], archive: Mapping[Genome, Order]) -> Genome:
        rivals = [self.random.choice(alive) for _ in range(self.settings.tournament)]
        return min(rivals, key=archive.__getitem__)

    def _cross(self, one: Genome, two: Genome) -> Genome:
        kind = self.random.random()
        if kind < self.settings.uniform:
            return tuple(i for i in sorted({*one, *two}) if i in (one if self.random.random() < 0.5 else two))
        if kind < self.settings.uniform + self.settings.block:
            source = [self.random.random() < 0.5 for _ in self.grid.rows]
            return tuple(i for i in sorted({*one, *two}) if i in (one if source[self.row[i]] else two))
        return one

    def mutate(self, genome: Genome) -> Genome:
        """Flip one head, swap a suppressed head for a kept one, or flip every head with a small probability."""
        kind, total = self.random.random(), len(self.allowed)
        if kind < self.settings.one_head:
            flips = {self.random.choice(self.allowed)}
        elif kind < self.settings.one_head + self.settings.swap and 0 < len(genome) < total:
            kept = [i for i in self.allowed if i not in genome]
            flips = {self.random.choice(genome), self.random.choice(kept)}
        else:
            rate = self.settings.flip or 1 / total
            flips = {i for i in self.allowed if self.random.random() < rate}
        return tuple(sorted(flips.symmetric_difference(genome)))

    def _fit(self, genome: Genome) -> Genome:
        """The genome with random heads kept again until it is no larger than allowed."""
        if len(genome) <= self.most:
            return genome
        return tuple(sorted(self.random.sample(genome, self.most)))

"""Masks as genomes: how a genetic search makes its first population and its offspring.

In: a ranking of the heads, or of heads with edits, seeds, an archive of sort keys. Out: genomes (the numbers of the
choices that a mask consists of, ascending) that are not in the archive. Every draw comes from one generator. It never evaluates a mask; `genetic.py`,
`estimated.py` and `fronts.py` do.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.alphabet import Alphabet, Choice
from headwise.search.contract import Order

Genome = tuple[int, ...]  # choices of an alphabet, at most one a head, ascending: with one edit the suppressed heads
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
        flip: after crossover each head flips with this probability; 0: one divided by the number of heads. With several
            edits it flips each of them: on, in place of another one, or off.
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

        for name, least in (("population", 2), ("tournament", 1), ("patience", 1)):
            need(getattr(self, name) >= least, name, f"at least {least}")
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
    """Draws genomes; every draw comes from one generator, so that a seed fixes all of them.

    Arguments:
        grid: the heads of the model.
        edits: what a head may carry: one edit, or several.
        settings: of the search.
        ranking: heads, or heads with edits, the best first; empty: none is preferred.
        allowed: what may be chosen, in the same form; empty: everything.
    """

    def __init__(
        self,
        grid: Grid,
        edits: str | Sequence[str],
        settings: GeneticSettings,
        ranking: Sequence[Head | Choice],
        allowed: Sequence[Head | Choice] = (),
    ):
        self.grid, self.settings = grid, settings
        self.random = random.Random(settings.seed)
        self.alphabet = alphabet = Alphabet(grid, edits, allowed)
        self.row = [row for row, count in enumerate(grid.rows) for _ in range(count)]  # of each head
        self.allowed = alphabet.allowed
        able = set(self.allowed)
        ranked = [number for number in map(alphabet.number, ranking) if number in able]
        self.ranking = ranked or self.random.sample(self.allowed, len(self.allowed))
        self.good = self.ranking[: max(2, math.ceil(settings.good * len(self.ranking)))] if ranking else self.ranking
        self.heads = len({alphabet.head(number) for number in self.allowed})  # that may be changed
        self.most = min(self.heads, settings.max_heads or grid.size)

    def mask(self, genome: Genome) -> Mask:
        """The mask of a genome's choices."""
        return self.alphabet.mask(genome)

    def _one_a_head(self, numbers: Iterable[int]) -> list[int]:
        """The first choice of every head."""
        first: dict[int, int] = {}
        for number in numbers:
            first.setdefault(self.alphabet.head(number), number)
        return list(first.values())

    # ---- the first population

    def first_population(self, seeds: Sequence[Mask]) -> list[Genome]:
        """Identity, the seeds, the best single heads, the best heads together, then random combinations."""
        size = self.settings.population
        fits = [genome for mask in seeds if (genome := self.alphabet.numbers(mask)) is not None]
        chosen: dict[Genome, None] = {(): None}
        chosen.update(dict.fromkeys(genome for genome in fits if len(genome) <= self.most))
        chosen.update(dict.fromkeys((i,) for i in self.ranking[: max(1, size // 4)]))
        best = self._one_a_head(self.ranking)
        together = (tuple(sorted(best[:k])) for k in range(2, min(self.most, len(best)) + 1))
        chosen.update(dict.fromkeys(islice(together, size // 4)))
        first = list(chosen)[:size]
        return first + self._new(size - len(first), dict.fromkeys(first), self.combination)

    def combination(self) -> Genome:
        """A few good heads; small combinations and heads from the top of the ranking come more often."""
        most = min(self.most, len(self._one_a_head(self.good)))
        count = round(math.exp(self.random.uniform(0, math.log(most + 0.49))))
        # weighted sampling without replacement (Efraimidis and Spirakis 2006), weight 1/sqrt(rank)
        draw = [(self.random.random() ** math.sqrt(rank + 1), i) for rank, i in enumerate(self.good)]
        return tuple(sorted(self._one_a_head(i for _, i in sorted(draw, reverse=True))[: max(1, count)]))

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
        ones, twos = ({self.alphabet.head(number): number for number in genome} for genome in (one, two))
        if kind < self.settings.uniform:
            source = {head: self.random.random() < 0.5 for head in sorted({*ones, *twos})}
        elif kind < self.settings.uniform + self.settings.block:
            rows = [self.random.random() < 0.5 for _ in self.grid.rows]
            source = {head: rows[self.row[head]] for head in sorted({*ones, *twos})}
        else:
            return one
        chosen = ((ones if first else twos).get(head) for head, first in source.items())
        return tuple(number for number in chosen if number is not None)

    def mutate(self, genome: Genome) -> Genome:
        """Flip one head, swap a suppressed head for a kept one, or flip every head with a small probability."""
        kind, head = self.random.random(), self.alphabet.head
        genes = {head(number): number for number in genome}
        if kind < self.settings.one_head:
            flips = [self.random.choice(self.allowed)]
        elif kind < self.settings.one_head + self.settings.swap and 0 < len(genome) < self.heads:
            kept = [i for i in self.allowed if head(i) not in genes]
            flips = [self.random.choice(genome), self.random.choice(kept)]
        else:
            rate = self.settings.flip or 1 / len(self.allowed)
            flips = [i for i in self.allowed if self.random.random() < rate]
        for number in flips:
            if genes.get(head(number)) == number:
                del genes[head(number)]
            else:
                genes[head(number)] = number
        return tuple(sorted(genes.values()))

    def _fit(self, genome: Genome) -> Genome:
        """The genome with random heads kept again until it is no larger than allowed."""
        if len(genome) <= self.most:
            return genome
        return tuple(sorted(self.random.sample(genome, self.most)))

"""A free stand-in for exact evaluation: estimates, exact where masks were run, with an idea of how wrong they are.

    prediction(S) = f(ê(S)) + optimism · σ · √d(S)       σ = root mean square of (f − f(ê)) / √d over masks run later

f: the objective; ê(S): estimated embeddings (N, E); d(S): how many heads' changes they add up without interactions,
both from `anchors.py`. In: masks. Out: scores of what is estimated. What is run exactly is decided in `estimated.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwise.edits.mask import Mask
from headwise.search.alphabet import choices_of
from headwise.search.anchors import Anchors
from headwise.search.contract import Found

if TYPE_CHECKING:
    import torch

    from headwise.scoring.objectives import Score

REMEMBERED = 200  # of the best estimates; the search finds others again if it wants them


@dataclass(frozen=True)
class Guess:
    """
    Arguments:
        mask: whose.
        fitness, loss: of the estimated embeddings; exact where the mask was run.
        distance: choices whose interactions the estimate leaves out; 0: exact.
        nearest: choices between the mask and the nearest that was run.
    """

    mask: Mask
    fitness: float
    loss: float
    distance: int = 0
    nearest: int = 0


class Surrogate:
    """Estimated scores, usable where a search expects exact ones; asking costs no FFE.

    How wrong an estimate may be is learned from the exact results of masks that were estimated before: errors are
    taken to grow with the square root of the number of heads between a mask and its anchor. A mask's estimate is made
    anew when a mask that was run comes as near as its anchor.

    Arguments:
        anchors: estimated embeddings.
        objective: embeddings → score.
    """

    spent = 0.0

    def __init__(self, anchors: Anchors, objective: Callable[[torch.Tensor], Score]):
        self.anchors, self.objective = anchors, objective
        self.count = 0  # estimates made
        self._guesses: dict[str, Guess] = {}
        self._exact: dict[str, Guess] = {}
        self._misses: list[float] = []

    def cost(self, masks: Sequence[Mask]) -> float:
        """Estimates are free: 0 FFE."""
        return 0.0

    def __call__(self, masks: Sequence[Mask]) -> list[Score]:
        import numpy as np

        from headwise.scoring.objectives import Score

        guesses, nothing = map(self._look, masks), np.zeros(0, np.float32)
        return [Score(guess.fitness, guess.loss, {}, nothing, {}) for guess in guesses]

    @property
    def spread(self) -> float:
        """Root mean square of the errors at a distance of one head."""
        return math.sqrt(sum(miss**2 for miss in self._misses) / len(self._misses)) if self._misses else 0.0

    def predict(self, mask: Mask, optimism: float = 0.0) -> float:
        """The estimated fitness plus `optimism` standard deviations; the exact one where the mask was run."""
        guess = self._look(mask)
        return guess.fitness + optimism * self.spread * math.sqrt(guess.distance)

    def learn(self, results: Sequence[Found], run: Sequence[Mask]) -> None:
        """Take in exact results.

        Arguments:
            results: masks with their scores.
            run: those of them that become anchors.
        """
        for found in results:
            guess = self._guesses.pop(found.mask.key, None)
            if guess and guess.distance:
                self._misses.append((found.score.fitness - guess.fitness) / math.sqrt(guess.distance))
            self._exact[found.mask.key] = Guess(found.mask, found.score.fitness, found.score.loss)
        self.anchors.keep(run)
        before = sorted(self._guesses.values(), key=lambda guess: (-guess.fitness, guess.mask.size, guess.mask.key))
        self._guesses = {}
        for guess in before[:REMEMBERED]:
            if any(len(choices_of(guess.mask) ^ choices_of(anchor)) <= guess.nearest for anchor in run):
                self._look(guess.mask)  # anew
            else:
                self._guesses[guess.mask.key] = guess

    def promising(self, count: int, optimism: float, exclude: Collection[str]) -> list[Mask]:
        """The known masks with the highest prediction; every second one is chosen with optimism."""
        known = {**self._guesses, **self._exact}
        open_masks = [guess.mask for key, guess in known.items() if key not in exclude]
        by_mean = sorted(open_masks, key=lambda mask: (-self.predict(mask), mask.size, mask.key))
        by_hope = sorted(open_masks, key=lambda mask: (-self.predict(mask, optimism), mask.size, mask.key))
        chosen: dict[str, Mask] = {}
        for likely, hoped in zip(by_mean, by_hope, strict=True):
            for mask in (likely, hoped):
                if len(chosen) < count:
                    chosen.setdefault(mask.key, mask)
        return list(chosen.values())

    def _look(self, mask: Mask) -> Guess:
        if mask.key in self._exact:
            return self._exact[mask.key]
        if mask.key not in self._guesses:
            self.count += 1
            score = self.objective(self.anchors.embeddings(mask))
            reach = self.anchors.distance(mask), self.anchors.nearest(mask)
            self._guesses[mask.key] = Guess(mask, score.fitness, score.loss, *reach)
        return self._guesses[mask.key]

"""Fitness functions with known optima, and an `Evaluate` that counts what it is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.scoring.objectives import Score


def bits(mask: Mask) -> np.ndarray:
    return np.array([1.0 - (edit.gate or 0.0) for row in mask.table for edit in row])


class Landscape:
    """Additive effects and pairwise interactions of suppressed heads; every mask costs one FFE.

    Most heads hurt when suppressed, a few help, and pairs of the helpful ones interact.
    """

    def __init__(self, grid: Grid, seed: int = 0, pairs: float = 0.3):
        rng = np.random.default_rng(seed)
        n = grid.size
        self.single = -np.abs(rng.normal(0, 0.02, n))
        helpful = rng.choice(n, max(3, n // 5), replace=False)
        self.single[helpful] = np.abs(rng.normal(0, 0.02, len(helpful)))
        self.pair = np.triu(rng.normal(0, 0.01, (n, n)) * (rng.random((n, n)) < pairs), 1)

    def __call__(self, mask: Mask) -> float:
        x = bits(mask)
        return float(0.5 + x @ self.single + x @ self.pair @ x)


class Counting:
    """Evaluates a function of the mask; remembers every request."""

    def __init__(self, function: Callable[[Mask], float], price: float = 1.0):
        self.function, self.price = function, price
        self.calls: list[list[Mask]] = []
        self.known: dict[str, Score] = {}
        self.spent = 0.0

    @property
    def asked(self) -> list[Mask]:
        return [mask for call in self.calls for mask in call]

    def cost(self, masks: Sequence[Mask]) -> float:
        return self.price * len({mask.key for mask in masks} - self.known.keys())

    def __call__(self, masks: Sequence[Mask]) -> list[Score]:
        self.spent += self.cost(masks)
        self.calls.append(list(masks))
        for mask in masks:
            self.known.setdefault(mask.key, score(self.function(mask)))
        return [self.known[mask.key] for mask in masks]


def score(fitness: float, loss: float = 0.0) -> Score:
    return Score(fitness, loss, {"mean_recall": fitness}, np.zeros(1, np.int64), {})

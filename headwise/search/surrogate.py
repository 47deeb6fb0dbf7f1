"""A free stand-in for exact evaluation: the estimate, corrected by a Gaussian process on what it got wrong."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from headwise.mask import Grid, Mask
from headwise.search.deltas import Deltas

if TYPE_CHECKING:
    import torch

    from headwise.objectives import Score

# Hyperparameters of the correction, in units of the residuals' root mean square; the likelihood chooses.
WEIGHTS = ((0.02, 0.1, 0.0), (0.02, 0.1, 0.3), (0.003, 0.01, 0.3), (0.003, 0.01, 1.0))  # pairs, size, nearness
NEAR = 4.0  # heads by which two masks may differ until their errors hardly tell about each other
NOISE = (0.03, 0.1, 0.3, 1.0)


class Surrogate:
    """Estimated scores, usable where a search expects exact ones; asking costs no FFE.

    The correction sees masks as sets of suppressed heads: a sum of single-head changes leaves out how heads
    interact, so its kernel counts the pairs of heads that two masks share, lets errors grow with size, and lets masks
    that differ in few heads have like errors.

    Arguments:
        grid: the heads.
        deltas: estimated embeddings.
        objective: embeddings → score.
    """

    spent = 0.0

    def __init__(self, grid: Grid, deltas: Deltas, objective: Callable[[torch.Tensor], Score]):
        self.grid, self.deltas, self.objective = grid, deltas, objective
        self._seen: dict[str, tuple[Mask, float, float]] = {}  # mask, estimated fitness and loss
        self._fit = Correction(np.zeros((0, grid.size)), np.zeros(0))
        self._corrections: dict[str, tuple[float, float]] = {}

    @property
    def count(self) -> int:
        """How many masks were estimated."""
        return len(self._seen)

    def cost(self, masks: Sequence[Mask]) -> float:
        return 0.0

    def __call__(self, masks: Sequence[Mask]) -> list[Score]:
        from headwise.objectives import Score

        nothing = np.zeros(0, np.float32)
        return [Score(self.predict(mask), self._look(mask)[2], {}, nothing, {}) for mask in masks]

    def estimate(self, mask: Mask) -> float:
        """Fitness of the estimated embeddings."""
        return self._look(mask)[1]

    def predict(self, mask: Mask, optimism: float = 0.0) -> float:
        """The estimate, corrected by what exact results taught, plus `optimism` standard deviations."""
        value = self.estimate(mask)
        if mask.key not in self._corrections:
            mean, spread = self._fit(_bits([mask]))
            self._corrections[mask.key] = float(mean[0]), float(spread[0])
        mean, spread = self._corrections[mask.key]
        return value + mean + optimism * spread

    def fit(self, exact: Sequence[tuple[Mask, float]]) -> None:
        """Learn the correction from masks and their exact fitness."""
        wrong = [fitness - self.estimate(mask) for mask, fitness in exact]
        self._fit = Correction(_bits([mask for mask, _ in exact]), np.array(wrong))
        masks = [mask for mask, _, _ in self._seen.values()]
        rows = zip(*self._fit(_bits(masks)), strict=True)
        self._corrections = {
            mask.key: (float(mean), float(spread)) for mask, (mean, spread) in zip(masks, rows, strict=True)
        }

    def promising(self, count: int, optimism: float, exclude: Collection[str]) -> list[Mask]:
        """The seen masks with the highest prediction; every second one is chosen with optimism."""
        open_masks = [mask for key, (mask, _, _) in self._seen.items() if key not in exclude]
        by_mean = sorted(open_masks, key=lambda mask: (-self.predict(mask), mask.size, mask.key))
        by_hope = sorted(open_masks, key=lambda mask: (-self.predict(mask, optimism), mask.size, mask.key))
        chosen: dict[str, Mask] = {}
        for likely, hoped in zip(by_mean, by_hope, strict=True):
            for mask in (likely, hoped):
                if len(chosen) < count:
                    chosen.setdefault(mask.key, mask)
        return list(chosen.values())

    def _look(self, mask: Mask) -> tuple[Mask, float, float]:
        if mask.key not in self._seen:
            score = self.objective(self.deltas.embeddings(mask))
            self._seen[mask.key] = (mask, score.fitness, score.loss)
        return self._seen[mask.key]


class Correction:
    """Gaussian process regression of residuals on sets of heads (Rasmussen and Williams 2006, algorithm 2.1).

    Arguments:
        x: masks, (n, heads), 1 where a head is suppressed.
        residuals: exact minus estimated fitness, (n,).
    """

    def __init__(self, x: np.ndarray, residuals: np.ndarray):
        self.x, self.scale = x, float(np.sqrt(np.mean(residuals**2))) if len(residuals) else 0.0
        if self.scale == 0.0:
            return
        y = residuals / self.scale  # (n)
        best = None
        for weights in WEIGHTS:
            base = _kernel(x, x, weights)
            for noise in NOISE:
                lower = np.linalg.cholesky(base + noise**2 * np.eye(len(x)))  # (n, n)
                alpha = np.linalg.solve(lower.T, np.linalg.solve(lower, y))  # (n)
                likelihood = -0.5 * y @ alpha - np.log(np.diag(lower)).sum()
                if best is None or likelihood > best[0]:
                    best = likelihood, weights, lower, alpha
        assert best is not None  # the grids are not empty
        _, self.weights, self.lower, self.alpha = best

    def __call__(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Expected residual and its standard deviation, (m,) each."""
        if self.scale == 0.0:
            return np.zeros(len(x)), np.zeros(len(x))
        cross = _kernel(x, self.x, self.weights)  # (m, n)
        gain = np.linalg.solve(self.lower, cross.T)  # (n, m)
        spread = np.sqrt(np.clip(_prior(x, self.weights) - (gain**2).sum(0), 0, None))  # (m)
        return self.scale * (cross @ self.alpha), self.scale * spread


def _kernel(a: np.ndarray, b: np.ndarray, weights: tuple[float, float, float]) -> np.ndarray:
    """Covariance of the residuals of masks a (m, heads) and b (n, heads): (m, n)."""
    shared = a @ b.T  # (m, n) heads that both suppress
    sizes = np.outer(a.sum(1), b.sum(1)) / max(1, a.shape[1])  # (m, n)
    apart = a.sum(1)[:, None] + b.sum(1)[None, :] - 2 * shared  # (m, n) heads by which they differ
    return weights[0] * shared * (shared - 1) / 2 + weights[1] * sizes + weights[2] * np.exp(-apart / NEAR)


def _prior(x: np.ndarray, weights: tuple[float, float, float]) -> np.ndarray:
    """The diagonal of `_kernel(x, x)`, (m,)."""
    size = x.sum(1)
    return weights[0] * size * (size - 1) / 2 + weights[1] * size**2 / max(1, x.shape[1]) + weights[2]


def _bits(masks: Sequence[Mask]) -> np.ndarray:
    """1 − gate of every head, (masks, heads)."""
    return 1.0 - np.array([[gate for row in mask.gates for gate in row] for mask in masks])

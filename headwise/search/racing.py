"""Racing: compare masks on growing subsets of the images and drop those that cannot win."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Protocol

import numpy as np

from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.contract import Evaluate, Found

if TYPE_CHECKING:
    import torch

    from headwise.evaluation.engine import Means, Pixels, Plan
    from headwise.scoring.objectives import Score
    from headwise.towers.base import Tower


Guess = Callable[[Mask], np.ndarray]  # units on all images, (N,) float


class EvaluateSubset(Protocol):
    """Per-image scores on some of the images. Subsets of one race grow, so earlier images may be kept."""

    @property
    def spent(self) -> float:
        """FFE so far, in passes over ALL images: one mask on an eighth of them is an eighth."""
        ...

    def __call__(self, masks: Sequence[Mask], indices: Sequence[int], /) -> list[np.ndarray]:
        """For each mask its units on these images, (n,) float."""
        ...


@dataclass(frozen=True)
class RaceSettings:
    """
    Arguments:
        fractions: the share of the images after each rung, ascending; survivors of the last are evaluated exactly.
            Many rungs save more than few: no image is run twice (docs/racing.md).
        alpha: the chance, over the whole race and per mask, that a mask is dropped which would have beaten the
            leader. Divided by the number of masks and rungs.
        seed: of the order in which images come.

    Raises:
        HeadwiseError: fractions that do not ascend within (0, 1), or alpha outside (0, 1).
    """

    fractions: tuple[float, ...] = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
    alpha: float = 0.02
    seed: int = 0

    def __post_init__(self) -> None:
        steps = (0.0, *self.fractions, 1.0)
        if any(a >= b for a, b in pairwise(steps)):
            raise HeadwiseError(f"Racing: the fractions {self.fractions} must ascend and lie between 0 and 1.")
        if not 0 < self.alpha < 1:
            raise HeadwiseError(f"Racing: alpha is {self.alpha}; it must lie between 0 and 1.")


DEFAULTS = RaceSettings()
LEAST = 50  # images before a mask may be dropped: units are coarse, and fewer say too little of their spread


@dataclass(frozen=True)
class Dropped:
    """A mask that left the race.

    Arguments:
        mask: the mask.
        images: how many images it was seen on.
        behind: mean per-image units by which the leader was ahead.
        p: probability of such a lead if it were no worse over all images.
    """

    mask: Mask
    images: int
    behind: float
    p: float


@dataclass(frozen=True, eq=False)
class Race:
    """
    Arguments:
        ranking: the survivors with their exact scores, best first.
        dropped: the others, in the order in which they left.
        ffe: what the race cost, exact evaluations included.
        ffe_without: what evaluating every mask exactly would have cost.
    """

    ranking: tuple[Found, ...]
    dropped: tuple[Dropped, ...]
    ffe: float
    ffe_without: float

    @property
    def winner(self) -> Found:
        return self.ranking[0]

    @property
    def saved(self) -> float:
        """FFE saved; negative where nothing could be dropped."""
        return self.ffe_without - self.ffe


def race(
    evaluate_subset: EvaluateSubset,
    evaluate: Evaluate,
    masks: Sequence[Mask],
    images: int,
    settings: RaceSettings = DEFAULTS,
    guess: Guess | None = None,
) -> Race:
    """Find the best of many masks without evaluating all of them on all images.

    After each rung every mask is compared with the leader, image by image: a one-sided paired test of the mean
    difference over ALL images, of which the rung saw a part (hence the finite-population correction). What a guess
    explains of the differences is known for all images, and only the rest is uncertain: the regression estimator
    (Cochran, Sampling Techniques, 1977, chapter 7).

    Arguments:
        evaluate_subset: per-image units on some images.
        evaluate: exact scores; survivors alone are given to it.
        masks: the competitors; duplicates count once.
        images: how many images there are.
        settings: rungs, error level and seed.
        guess: a mask's units on all images as one would guess them, (N,) float; None: no guess.

    Raises:
        HeadwiseError: no masks.
    """
    alive = list({mask.key: mask for mask in masks}.values())
    if not alive:
        raise HeadwiseError("Racing: there are no masks to compare.")
    without = evaluate.cost(alive)
    start = evaluate_subset.spent + evaluate.spent
    order = list(range(images))
    random.Random(settings.seed).shuffle(order)
    dropped: list[Dropped] = []
    critical = settings.alpha / (len(alive) * max(1, len(settings.fractions)))
    for fraction in settings.fractions:
        seen = order[: round(fraction * images)]
        if len(alive) == 1 or len(seen) < LEAST:
            continue
        units = np.stack([np.asarray(u, np.float64) for u in evaluate_subset(alive, seen)])  # (masks, n)
        first = int(units.mean(1).argmax())
        survivors = []
        for mask, own in zip(alive, units, strict=True):
            difference = units[first] - own  # (n)
            if guess is None:
                behind, p = _behind(difference, images)
            else:
                behind, p = _behind_guessed(difference, guess(alive[first]) - guess(mask), seen)
            if p < critical:
                dropped.append(Dropped(mask, len(seen), behind, p))
            else:
                survivors.append(mask)
        alive = survivors
    found = [Found(mask, score) for mask, score in zip(alive, evaluate(alive), strict=True)]
    ffe = evaluate_subset.spent + evaluate.spent - start
    return Race(tuple(sorted(found, key=lambda item: item.order)), tuple(dropped), ffe, without)


def _behind(difference: np.ndarray, images: int) -> tuple[float, float]:
    """Mean lead over n of `images` images, and the chance of it if the lead over all of them were 0 or less."""
    n = len(difference)
    mean = float(difference.mean())
    error = float(difference.std(ddof=1)) * math.sqrt((1 - n / images) / n)
    return mean, _chance(mean, error, n - 1)


def _behind_guessed(difference: np.ndarray, guessed: np.ndarray, seen: Sequence[int]) -> tuple[float, float]:
    """As `_behind`, with a guess of the differences on all images, (N,)."""
    images, n = len(guessed), len(difference)
    here = guessed[list(seen)].astype(np.float64)  # (n)
    spread = float(((here - here.mean()) ** 2).sum())
    if spread == 0.0:
        return _behind(difference, images)
    slope = float((difference - difference.mean()) @ (here - here.mean())) / spread
    mean = float(difference.mean() + slope * (guessed.mean(dtype=np.float64) - here.mean()))
    rest = difference - difference.mean() - slope * (here - here.mean())  # (n)
    error = math.sqrt(float(rest @ rest) / (n - 2) * (1 - n / images) / n)
    return mean, _chance(mean, error, n - 2)


def _chance(mean: float, error: float, degrees: int) -> float:
    """Student's chance of such a mean, or a larger one, where the true one is 0."""
    from scipy.special import stdtr

    if error == 0.0:
        return 0.0 if mean > 0 else 1.0
    return float(stdtr(degrees, -mean / error))


# ---- the engine on subsets


@dataclass
class FilledSubsets:
    """Units of some images under a mask, with the whole gallery in place.

    A retrieval rank depends on every image of the gallery. Images that a rung has not seen stand in the gallery
    with their embeddings under identity, moved by what the mask changed on average in the images that were seen,
    so that units mean the same on every rung. Embeddings of images that were seen are kept for the next rung (N·E
    floats for each mask that is alive).

    Arguments:
        tower, layout: what to run and how.
        take: image indices → their pixels, as `PixelCache.take`.
        objective: embeddings (N, E) → score.
        identity: embeddings of all images under identity, (N, E) float32.
        means: constants of operator `mean`.
    """

    tower: Tower
    layout: Plan
    take: Callable[[Sequence[int]], Pixels]
    objective: Callable[[torch.Tensor], Score]
    identity: torch.Tensor
    means: Means | None = None
    spent: float = 0.0
    _filled: dict[str, tuple[torch.Tensor, frozenset[int]]] = field(default_factory=dict)

    def __call__(self, masks: Sequence[Mask], indices: Sequence[int]) -> list[np.ndarray]:
        self._run(masks, indices)
        return [self.objective(self._gallery(mask)).units[list(indices)] for mask in masks]

    def exact(self, masks: Sequence[Mask]) -> list[Score]:
        """The masks' scores, after running the images that no rung has seen."""
        self._run(masks, range(len(self.identity)))
        return [self.objective(self._filled[mask.key][0]) for mask in masks]

    def _gallery(self, mask: Mask) -> torch.Tensor:
        """All images under a mask, (N, E), as far as is known."""
        whole, seen = self._filled[mask.key]
        here = sorted(seen)
        away = [i for i in range(len(whole)) if i not in seen]
        whole = whole.clone()
        whole[away] += (whole[here] - self.identity[here]).mean(0)  # (E)
        return whole

    def _run(self, masks: Sequence[Mask], indices: Sequence[int]) -> None:
        from headwise.evaluation.engine import embed, ffe

        groups: dict[tuple[int, ...], list[Mask]] = {}  # masks that lack the same images run together
        for mask in masks:
            _, seen = self._filled.get(mask.key, (None, frozenset()))
            groups.setdefault(tuple(i for i in indices if i not in seen), []).append(mask)
        self._filled = {mask.key: self._filled[mask.key] for mask in masks if mask.key in self._filled}
        for missing, group in groups.items():
            if not missing:
                continue
            self.spent += ffe(self.tower, group) * len(missing) / len(self.identity)
            for mask, embeddings in embed(self.tower, self.take(missing), group, self.layout, means=self.means):
                whole, seen = self._filled.get(mask.key, (self.identity, frozenset()))
                whole = whole.clone()
                whole[list(missing)] = embeddings  # (n, E)
                self._filled[mask.key] = (whole, seen.union(missing))


@dataclass(frozen=True)
class Rest:
    """Exact scores of a race's survivors: the rungs' images are not run again. Its cost is in the subsets' `spent`."""

    subsets: FilledSubsets
    spent: float = 0.0

    def cost(self, masks: Sequence[Mask]) -> float:
        """FFE of evaluating these masks whole."""
        from headwise.evaluation.engine import ffe

        return ffe(self.subsets.tower, masks)

    def __call__(self, masks: Sequence[Mask]) -> list[Score]:
        return self.subsets.exact(masks)

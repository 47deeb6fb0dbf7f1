"""A weighted sum of objectives, over one or several data sets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from headwise.errors import HeadwiseError
from headwise.scoring.objectives.score import Objective, Score


@dataclass(frozen=True, eq=False)
class Part:
    """One objective of a sum.

    Arguments:
        name: goes before its metrics: `name/acc1`.
        objective: what to score.
        start: where its images begin among all images; parts may share images.
        weight: its share, relative to the others.
    """

    name: str
    objective: Objective
    start: int = 0
    weight: float = 1.0

    @property
    def stop(self) -> int:
        return self.start + self.objective.images


@dataclass(frozen=True, eq=False)
class Combined:
    """Σ weight · fitness / Σ weight, and the losses likewise.

    Units are those of all parts, one after the other, scaled so that their mean is the fitness. (Parts that share
    images are then not independent; resample each part's own score for intervals.)

    Arguments:
        parts: at least one, with different names and positive weights.

    Raises:
        HeadwiseError: no parts, equal names, or weights that are not positive.
    """

    parts: tuple[Part, ...]
    name = "combined"

    def __post_init__(self) -> None:
        names = [part.name for part in self.parts]
        if not names or len(set(names)) != len(names):
            raise HeadwiseError(f"A sum of objectives needs parts with different names; got: {', '.join(names)}.")
        for part in self.parts:
            if not (part.weight > 0 and math.isfinite(part.weight)) or part.start < 0:
                raise HeadwiseError(f"Part {part.name!r} needs a weight above 0 and a start of at least 0.")

    @property
    def images(self) -> int:
        return max(part.stop for part in self.parts)

    @property
    def spec(self) -> dict[str, object]:
        total = sum(part.weight for part in self.parts)
        return {
            "name": self.name,
            "fitness": "fitness",
            "parts": {
                part.name: {"weight": part.weight / total, "start": part.start, **part.objective.spec}
                for part in self.parts
            },
        }

    def __call__(self, embeddings: torch.Tensor, /) -> Score:
        """
        Raises:
            HeadwiseError: a wrong shape, or a value that is not finite.
        """
        if len(embeddings) != self.images:
            raise HeadwiseError(f"The objective is about {self.images} images; {len(embeddings)} embeddings came.")
        return self._sum([part.objective(embeddings[part.start : part.stop]) for part in self.parts])

    def score_from_ranks(self, ranks: Mapping[str, np.ndarray], loss: float) -> Score:
        scores = []
        for part in self.parts:
            prefix = f"{part.name}/"
            own = {name.removeprefix(prefix): rank for name, rank in ranks.items() if name.startswith(prefix)}
            scores.append(part.objective.score_from_ranks(own, math.nan))
        return replace(self._sum(scores), loss=loss)

    def _sum(self, scores: list[Score]) -> Score:
        shares = np.array([part.weight for part in self.parts]) / sum(part.weight for part in self.parts)
        count = sum(len(score.units) for score in scores)
        metrics, ranks, units = {}, {}, []
        for part, share, score in zip(self.parts, shares, scores, strict=True):
            metrics |= {f"{part.name}/{name}": value for name, value in score.metrics.items()}
            ranks |= {f"{part.name}/{name}": rank for name, rank in score.ranks.items()}
            units.append(score.units * np.float32(share * count / len(score.units)))
        fitness = float(shares @ [score.fitness for score in scores])
        loss = float(shares @ [score.loss for score in scores])
        return Score(fitness, loss, {"fitness": fitness} | metrics, np.concatenate(units), ranks)

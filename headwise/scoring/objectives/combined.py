"""A weighted mean of objectives, over one or several data sets.

    f = Σ_p w_p · f_p(e[start_p : stop_p]) / Σ_p w_p       e (N, E): embeddings of all parts, one after the other

In: embeddings of all images. Out: a `Score` whose hits are those of the parts, each a stratum of its own, so that
images are resampled within their part. It does not know what its parts measure. This library's own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch

from headwise.errors import HeadwiseError
from headwise.scoring.design import Design, columns
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
        """Where its images end among all images."""
        return self.start + self.objective.images


@dataclass(frozen=True, eq=False)
class Combined:
    """Σ weight · fitness / Σ weight, and the losses likewise.

    Hits are those of all parts, one after the other; each part is a stratum, whose images are resampled among
    themselves. (Parts that share images are then not independent; resample each part's own score for intervals.)

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
        """N, how many images an evaluation needs, of all parts."""
        return max(part.stop for part in self.parts)

    @property
    def spec(self) -> dict[str, object]:
        """See `Objective.spec`."""
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
        """See `Objective.score_from_ranks`."""
        scores = []
        for part in self.parts:
            prefix = f"{part.name}/"
            own = {name.removeprefix(prefix): rank for name, rank in ranks.items() if name.startswith(prefix)}
            scores.append(part.objective.score_from_ranks(own, math.nan))
        return replace(self._sum(scores), loss=loss)

    def _sum(self, scores: list[Score]) -> Score:
        shares = np.array([float(share) for share in self._shares])
        metrics, ranks = {}, {}
        for part, score in zip(self.parts, scores, strict=True):
            metrics |= {f"{part.name}/{name}": value for name, value in score.metrics.items()}
            ranks |= {f"{part.name}/{name}": rank for name, rank in score.ranks.items()}
        hits = _blocks([columns(score.hits) for score in scores])
        loss = float(shares @ [score.loss for score in scores])
        fitness = self.design.value(hits)
        return Score(fitness, loss, {"fitness": fitness} | metrics, hits, ranks, self.design)

    @cached_property
    def _shares(self) -> list[Fraction]:
        weights = [Fraction(repr(float(part.weight))) for part in self.parts]
        return [weight / sum(weights) for weight in weights]

    @property
    def design(self) -> Design:
        """See `Objective.design`."""
        return self._design

    @cached_property
    def _design(self) -> Design:
        """How hits make the fitness."""
        parts = [part.objective.design for part in self.parts]
        if any(len(each.shares) != 1 for each in parts):
            raise HeadwiseError("A sum of objectives cannot have a sum of objectives among its parts.")
        own = [each.shares[0] for each in parts]
        before = np.cumsum([0, *map(len, own)])
        shares = tuple(
            tuple(
                share * own[k][p - before[k]] if before[k] <= p < before[k + 1] else Fraction(0)
                for p in range(before[-1])
            )
            for k, share in enumerate(self._shares)
        )
        stratum = np.repeat(np.arange(len(parts)), [len(each.weights) for each in parts])
        weights = _blocks([each.weights for each in parts])
        steps = tuple(
            step for each, columns_of in zip(parts, own, strict=True) for step in each.steps or (1,) * len(columns_of)
        )
        return Design(weights, shares, stratum, any(each.rounded for each in parts), steps)


def _blocks(tables: list[np.ndarray]) -> np.ndarray:
    """Tables of hits or weights down the diagonal: every part has columns of its own, 0 for other parts' images."""
    rows, width = sum(map(len, tables)), sum(table.shape[1] for table in tables)
    whole = np.zeros((rows, width), np.int64)
    row = column = 0
    for table in tables:
        whole[row : row + len(table), column : column + table.shape[1]] = table
        row, column = row + len(table), column + table.shape[1]
    return whole

"""Masks → scores on one split: the engine, an objective and the study put together.

In: masks, in any order and number. Out: a `Score` each, in that order, and the FFE that asking for them cost. What the
study holds is not run again. It does not know why a mask is asked for: searches, choices and tests call it alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch

from headwise.edits.mask import Mask
from headwise.evaluation.engine import Means, Pixels, embed, ffe, walks
from headwise.evaluation.layout import Plan
from headwise.evaluation.study import Study
from headwise.scoring.objectives import Score
from headwise.towers.base import Tower

Objective = Callable[[torch.Tensor], Score]  # embeddings (N, E) float32 → score
Progress = Callable[[float], None]  # FFE done since the last call
Observe = Callable[[Mask, torch.Tensor], object]


Launcher = Callable[
    ["Evaluator", list[list[Mask]]], Iterator[list[tuple[Mask, Score]]]
]  # sets → their scores, in order


def inline(evaluate: Evaluator, sets: list[list[Mask]]) -> Iterator[list[tuple[Mask, Score]]]:
    """Scores of every set, run in this process."""
    for batch in sets:
        options = {"means": evaluate.means, "progress": evaluate.progress}
        scores = []
        for mask, embeddings in embed(evaluate.tower, evaluate.pixels, batch, evaluate.layout, **options):
            scores.append((mask, evaluate.objective(embeddings)))
            if evaluate.observe:
                evaluate.observe(mask, embeddings)
        yield scores


@dataclass(frozen=True)
class Reached:
    """How far a search was after one call.

    Arguments:
        stage: whose call it was.
        ffe: spent until then.
        fitness: the best of all masks until then.
    """

    stage: str
    ffe: float
    fitness: float


@dataclass
class Evaluator:
    """Scores masks on one split; what the study already holds is not run again.

    Arguments:
        tower, layout: what to run and how (`layout.plan`).
        pixels: the split's images.
        objective: embeddings → score.
        study: where scores are kept; None keeps them in memory.
        split: the split's name in the study.
        means: constants of edits `mean`, per row (H, d).
        progress: called with the FFE done since the last call, run or found in the study.
        observe: gets every mask that is run, not those found in the study, with its embeddings (N, E) float32.
        launcher: what runs sets of masks: this process, or workers (`crew/`).
        spent: FFE of everything that was asked for, whether it was run or came from the study. It depends on
            the requests alone, so that a budgeted search that is resumed makes the same decisions.
        stage: what the next calls are for, in a few words.
        course: how the best fitness grew, call by call; of the requests alone, as `spent`.
    """

    tower: Tower
    layout: Plan
    pixels: Pixels
    objective: Objective
    study: Study | None = None
    split: str = "search"
    means: Means | None = None
    progress: Progress | None = None
    observe: Observe | None = None
    launcher: Launcher = inline
    spent: float = 0.0
    stage: str = ""
    course: list[Reached] = field(default_factory=list)
    _scores: dict[str, Score] = field(default_factory=dict)

    def cost(self, masks: Sequence[Mask]) -> float:
        """FFE that asking for these masks would add to `spent`."""
        return ffe(self.tower, self._new(masks))

    def __call__(self, masks: Sequence[Mask]) -> list[Score]:
        """The masks' scores, in their order.

        Raises:
            HeadwiseError: a mask that does not fit the tower, or a study that cannot be written.
        """
        new = self._new(masks)
        cost = ffe(self.tower, new)
        self.spent += cost
        if self.study and new:
            self._scores.update(self._recorded(new))
        missing = [mask for mask in new if mask.key not in self._scores]
        if self.progress:
            self.progress(cost - sum(ffe(self.tower, batch) for batch in walks(missing)))
        for scores in self.launcher(self, walks(missing)):
            if self.study:  # one transaction a walk: a resumed run repeats whole walks or nothing
                self.study.put(self.split, scores)
            self._scores.update({mask.key: score for mask, score in scores})
        if new:
            before = [self.course[-1].fitness] if self.course else []
            known = [
                score.fitness for score in (self._scores[mask.key] for mask in new) if math.isfinite(score.fitness)
            ]
            self.course.append(Reached(self.stage, self.spent, max([*before, *known], default=-math.inf)))
        return [self._scores[mask.key] for mask in masks]

    def embeddings(self, masks: Sequence[Mask]) -> Iterator[tuple[Mask, torch.Tensor]]:
        """Run masks for their embeddings (N, E) alone; neither scores nor FFE are kept."""
        return embed(self.tower, self.pixels, masks, self.layout, means=self.means)

    def _recorded(self, masks: Sequence[Mask]) -> dict[str, Score]:
        """What the study holds; how hits make the fitness is the objective's to say."""
        assert self.study is not None
        design = getattr(self.objective, "design", None)  # a plain function has none: the mean
        return {key: replace(score, design=design) for key, score in self.study.get(self.split, masks).items()}

    def _new(self, masks: Sequence[Mask]) -> list[Mask]:
        return list({mask.key: mask for mask in masks if mask.key not in self._scores}.values())

"""Racing in the main job: the candidates of a greedy step, each race remembered in the study."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property

import numpy as np

from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.evaluation.engine import embed
from headwise.evaluation.evaluator import Evaluator
from headwise.jobs.steps.bench import Bench
from headwise.scoring.objectives import Score
from headwise.search.contract import Found, best_of
from headwise.search.racing import FilledSubsets, RaceSettings, Rest, race

IDENTITY = 1.0  # FFE of identity's embeddings, which stand in for images that a race has not seen


@dataclass
class Contest:
    """The best of several masks on the search split, by a race.

    The study keeps whole evaluations only, and which masks a race dropped. A run that is resumed reads both, and
    counts the same FFE. Masks that were asked for before take part with the scores that they have.

    Arguments:
        bench, evaluate: as for a search; what the race costs is added to `evaluate.spent`.
        identity: score of the model as it is.
        singles: heads that were evaluated alone. A mask's units are guessed by adding up what its heads do alone.
        settings: rungs and error level.
        facts: what racing did so far, plain JSON values.
        subsets: what runs images; None: the engine, when the first race begins.
    """

    bench: Bench
    evaluate: Evaluator
    identity: Score
    singles: Sequence[Found]
    settings: RaceSettings
    facts: dict = field(default_factory=dict)
    subsets: FilledSubsets | None = None

    def __post_init__(self) -> None:
        self.facts.update({"alpha": self.settings.alpha, "masks": 0, "dropped": 0, "ffe": 0.0, "ffe_without": 0.0})

    def __call__(self, masks: Sequence[Mask]) -> Found:
        """The best of the masks, with its exact score.

        Raises:
            HeadwiseError: a study that cannot be written.
        """
        new = [mask for mask in masks if self.evaluate.cost([mask])]
        if len(new) < 2:
            return best_of(self._exact(masks))
        if not self.facts["masks"]:
            self.evaluate.learn([], IDENTITY)
            self.facts["ffe"] += IDENTITY
        name = self._name(new)
        result = self.bench.study.read(name) if self.bench.study else None
        assert result is None or isinstance(result, dict)
        known = result and self._recorded([mask for mask in new if mask.key not in result["dropped"]])
        if result is None or known is None:
            result = self._race(new, name)
        else:
            self.evaluate.learn(known, result["ffe"])
        self.facts["masks"] += len(new)
        self.facts["dropped"] += len(result["dropped"])
        self.facts["ffe"] += result["ffe"]
        self.facts["ffe_without"] += result["ffe_without"]
        return best_of(self._exact([mask for mask in masks if mask.key not in result["dropped"]]))

    def _exact(self, masks: Sequence[Mask]) -> list[Found]:
        return [Found(mask, score) for mask, score in zip(masks, self.evaluate(masks), strict=True)]

    def _name(self, masks: Sequence[Mask]) -> str:
        """The race's name in the study: who takes part, and how."""
        facts = [self.evaluate.split, [mask.key for mask in masks], asdict(self.settings)]
        return "race " + hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]

    def _recorded(self, masks: Sequence[Mask]) -> list | None:
        """The survivors' scores; None where one of them was damaged, so that the race has to be run again."""
        study = self.bench.study
        assert study is not None
        scores = study.get(self.evaluate.split, masks)
        if len(scores) < len(masks):
            return None
        return [(mask, scores[mask.key]) for mask in masks]

    def _race(self, masks: Sequence[Mask], name: str) -> dict:
        subsets = self._engine()
        subsets.spent = 0.0  # sums of fractions round: each race counts from 0, as in a run that is resumed
        found = race(subsets, Rest(subsets), masks, len(subsets.identity), self.settings, self._guess)
        result = {
            "dropped": [gone.mask.key for gone in found.dropped],
            "ffe": found.ffe,
            "ffe_without": found.ffe_without,
        }
        self.evaluate.learn([(item.mask, item.score) for item in found.ranking], found.ffe)
        if self.bench.study:  # after the scores: a race that is killed in between is run again
            self.bench.study.note(name, result)
        return result

    def _engine(self) -> FilledSubsets:
        if self.subsets is None:
            evaluate = self.evaluate
            images = self.bench.cache.take(self.bench.indices(evaluate.split))
            ((_, identity),) = embed(
                evaluate.tower, images, [Mask.identity(evaluate.tower.grid)], evaluate.layout, means=evaluate.means
            )
            self.subsets = FilledSubsets(
                evaluate.tower,
                evaluate.layout,
                images.take,
                evaluate.objective,
                identity,
                evaluate.means,
            )
        return self.subsets

    def _guess(self, mask: Mask) -> np.ndarray:
        """Identity's units, and what each head changes in them alone, (N,) float64."""
        base = self.identity.units
        return base + sum(self._alone.get(head, 0.0) for head in mask.heads)

    @cached_property
    def _alone(self) -> dict[Head, np.ndarray]:
        base = self.identity.units
        return {found.mask.heads[0]: found.score.units - base for found in self.singles}

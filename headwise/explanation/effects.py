"""Total effects: how every image's embedding changes when a head is removed, from the true forward pass.

    Δ_h(i) = e_i − e_i(h removed)       e (N, E), Δ (heads, N, E)

In: a tower, pixels, an operator. Out: `Effects`, memory-mapped, and scores of every removal in a study. The same walk
as a sweep, with the embeddings kept. It counts what later layers make of a head; `direct.py` does not.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from headwise.checked import array_checksum
from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.evaluation.engine import Means, Pixels, embed, walks
from headwise.evaluation.layout import Plan
from headwise.evaluation.study import Study
from headwise.explanation.store import Arrays
from headwise.scoring.objectives import Score
from headwise.towers.base import Tower

SPLIT = "check"  # what the study calls the images that labels are checked on
DONE = "explained"


@dataclass(frozen=True)
class Effects:
    """What was removed with each head, memory-mapped: row h, image i is e_i(with h) − e_i(h removed).

    Arguments:
        heads: in the order of the rows.
        total: (heads, N, E) float16.
        identity: embeddings of the whole model, (N, E) float32.
        label: how many of the images, the first ones, are for labelling; the others are for checking.
        scores: of identity and of every mask that removes one head, on the images for checking; empty where
            nothing can be measured (captions and no text tower).
    """

    heads: tuple[Head, ...]
    total: np.ndarray
    identity: np.ndarray
    label: int
    scores: Mapping[str, Score]
    keys: tuple[str, ...] = ()  # of the masks that remove each head

    def score(self, row: int) -> Score:
        """Without one head, on the images for checking."""
        return self.scores[self.keys[row]]

    def of(self, row: int) -> np.ndarray:
        """One head's effects, (N, E) float32."""
        return np.asarray(self.total[row], np.float32)

    def sizes(self) -> np.ndarray:
        """Length of every effect relative to that of the image's embedding, (heads, N) float32."""
        norm = np.linalg.norm(self.identity, axis=1).clip(1e-12)  # (N)
        return np.stack([np.linalg.norm(self.of(row), axis=1) / norm for row in range(len(self.heads))])


def total_effects(
    tower: Tower,
    pixels: Pixels,
    layout: Plan,
    operator: str,
    arrays: Arrays,
    study: Study,
    *,
    label: int,
    objective: Callable[[torch.Tensor], Score] | None = None,
    means: Means | None = None,
    progress: Callable[[float], None] | None = None,
    say: Callable[[str], object] | None = None,
) -> Effects:
    """Remove every head that can have the edit alone; effects go to the file, scores to the study, a set of masks at a time.

    A run that was interrupted repeats at most one set; what is damaged in the file is made again.

    Arguments:
        tower, pixels, layout, means, progress: as `engine.embed`; the images for labelling come first.
        operator: what a removed head emits.
        arrays: has `total` (heads, N, E) and `identity` (N, E), begun.
        study: which sets are done, and the scores.
        label: how many images are for labelling.
        objective: about the images for checking; None where nothing can be measured.
        say: told of what is damaged.

    Raises:
        HeadwiseError: an operator that the tower does not have, or a disk that is full.
    """
    heads = tower.able(operator)
    masks = {head: Mask.suppress(tower.grid, [head], operator) for head in heads}
    place = {mask.key: row for row, mask in enumerate(masks.values())}
    everything = [Mask.identity(tower.grid), *masks.values()]
    total, identity = arrays.open("total"), arrays.open("identity")
    noted, done = _intact(study, total, identity, place)
    if len(done) < noted and say:
        say(f"{noted - len(done):,} rows of {arrays.path} are damaged; they are made again.")
    if objective is not None:
        known = study.get(SPLIT, everything)
        done = {key: crc for key, crc in done.items() if key in known}
    for batch in walks(everything):
        if all(mask.key in done for mask in batch):
            continue
        scores = []
        for mask, embeddings in embed(tower, pixels, batch, layout, means=means, progress=progress):
            e = embeddings.numpy()  # (N, E)
            if mask.is_identity:
                identity[:] = e
            else:
                total[place[mask.key]] = identity - e
            if objective is not None:
                scores.append((mask, objective(embeddings[label:])))
        total.flush()
        identity.flush()
        study.put(SPLIT, scores)
        done |= {mask.key: array_checksum(identity if mask.is_identity else total[place[mask.key]]) for mask in batch}
        study.note(DONE, done)
    design = getattr(objective, "design", None)  # how hits make the fitness: a study does not keep it
    kept = {key: replace(score, design=design) for key, score in study.get(SPLIT, everything).items()}
    return Effects(heads, total, identity, label, kept if objective is not None else {}, tuple(place))


def _intact(
    study: Study, total: np.ndarray, identity: np.ndarray, place: Mapping[str, int]
) -> tuple[int, dict[str, int]]:
    """How many masks the study says are done, and those whose rows in the file have the checksum that it noted."""
    found = study.read(DONE, {})
    noted = found if isinstance(found, dict) else {}
    rows = {"identity": identity, **{key: total[row] for key, row in place.items() if key in noted}}
    return len(noted), {key: crc for key, crc in noted.items() if key in rows and array_checksum(rows[key]) == crc}

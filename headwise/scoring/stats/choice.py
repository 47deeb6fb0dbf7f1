"""Which finalist: the model stays as it is unless a finalist beats it after correction for how many there are.

    shown = {i: p_max-T(i) ≤ level};   none: identity;   else the best of them, or the fewest values with gap_i ≤ se(gap_i)

gap_i: the metric of the best that is shown minus finalist i's. In: scores of the finalists on the pick split, and their
sizes. Out: `Choice`. max-T is Westfall and Young's (1993; `flips.py`): the chance that any finalist which is no better
is shown is at most the level, so it holds for whichever of them is taken. The second half is the one-standard-error rule
of Breiman et al. (1984). It does not know what found a finalist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headwise.errors import HeadwiseError
from headwise.scoring.objectives.score import LOSS_DIGITS, rounded
from headwise.scoring.stats.comparison import Scored, differences
from headwise.scoring.stats.flips import DRAWS, PValue, max_t
from headwise.scoring.stats.resampling import standard_error

LEVEL = 0.05


@dataclass(frozen=True)
class Choice:
    """What `choose` found, per finalist in the order given.

    Arguments:
        index: the chosen finalist.
        best: of the finalists that are shown to beat identity the one with the highest metric; where none is, of all.
        delta, error: change against identity and its paired standard error.
        gap, gap_error: the best's metric minus this one's, and its paired standard error.
        p: one-sided max-T over all finalists; None for identity.
        eligible: what could have been chosen.
    """

    index: int
    best: int
    delta: tuple[float, ...]
    error: tuple[float, ...]
    gap: tuple[float, ...]
    gap_error: tuple[float, ...]
    p: tuple[PValue | None, ...]
    eligible: tuple[bool, ...]


def choose(
    scores: Sequence[Scored],
    sizes: Sequence[int],
    *,
    level: float = LEVEL,
    rule: str = "safe",
    draws: int = DRAWS,
    seed: int = 0,
) -> Choice:
    """Of the finalists that beat identity with a max-T p of at most `level` over all finalists the best (`best`), or the
    fewest values within one paired standard error of it (`safe`); identity where there are none.

    So the chance of choosing a finalist that is no better is at most `level`, however many there are.

    Arguments:
        scores: per finalist, on the pick split. Ties of the metric go to the lower loss.
        sizes: per finalist, how many values it has (of a mask, heads); the first of size 0 is identity.
        level: of the test.
        rule: `safe` or `best`.
        draws, seed: of flips, where there are too many to go through all of them.

    Raises:
        HeadwiseError: no identity, or finalists of different images.
    """
    if len(scores) != len(sizes) or 0 not in sizes:
        raise HeadwiseError("Choosing needs one size per finalist, and identity (size 0) among them.")
    identity = list(sizes).index(0)
    base, design = scores[identity], scores[identity].plan
    d = [differences([score], base) for score in scores]  # (N, P) each
    counts = np.stack([design.counts(each) for each in d])  # (F, N)
    totals = counts.sum(1).tolist()
    order = [(-totals[i], rounded(scores[i].loss, LOSS_DIGITS), sizes[i], i) for i in range(len(sizes))]
    masks = [i for i, size in enumerate(sizes) if size]
    p: list[PValue | None] = [None] * len(sizes)
    if masks:
        for i, found in zip(
            masks, max_t(counts[masks], slack=design.slack, draws=draws, seed=seed, alternative="greater"), strict=True
        ):
            p[i] = found
    shown = [
        each is not None and total > design.slack and each.p <= level for each, total in zip(p, totals, strict=True)
    ]
    best = min(order[i] for i in range(len(sizes)) if shown[i] or not any(shown))[-1]
    gap = [(totals[best] - total) / design.denominator for total in totals]
    gap_error = [standard_error(d[best] - each, design) for each in d]
    eligible = [shown[i] and gap[i] <= gap_error[i] if any(shown) else i == identity for i in range(len(sizes))]
    sized = rule == "safe"
    index = min((sizes[i] if sized else 0, *order[i]) for i in range(len(sizes)) if eligible[i])[-1]
    return Choice(
        index=index,
        best=best,
        delta=tuple(total / design.denominator for total in totals),
        error=tuple(standard_error(each, design) for each in d),
        gap=tuple(gap),
        gap_error=tuple(gap_error),
        p=tuple(p),
        eligible=tuple(eligible),
    )

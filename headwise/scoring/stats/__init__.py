"""Paired statistics over images: is a difference real, after everything that was tried?

The image is the unit. Queries are resampled against a fixed gallery: the intervals say how much a result would
move with other queries, not with another gallery. Everything is seeded, and independent of how it is chunked.
"""

from headwise.scoring.stats.choice import LEVEL, Choice, choose
from headwise.scoring.stats.comparison import CLAIM_LEVEL, FEWEST_CHANGED, Comparison, Scored, claimed, compared
from headwise.scoring.stats.flips import PValue, max_t, sign_flip
from headwise.scoring.stats.mcnemar import McNemar, mcnemar
from headwise.scoring.stats.power import expected_change, least_change, smallest_change
from headwise.scoring.stats.resampling import Interval, bootstrap, standard_error

__all__ = [
    "CLAIM_LEVEL",
    "FEWEST_CHANGED",
    "LEVEL",
    "Choice",
    "Comparison",
    "Interval",
    "McNemar",
    "PValue",
    "Scored",
    "bootstrap",
    "choose",
    "claimed",
    "compared",
    "expected_change",
    "least_change",
    "max_t",
    "mcnemar",
    "sign_flip",
    "smallest_change",
    "standard_error",
]

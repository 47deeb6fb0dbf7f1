"""What splits of a size can show at all.

    smallest change found in 80 % of cases = (1.96 + 0.84) · se       se ≈ 0.1 / √N before anything is measured

In: a standard error, a number of images, or a design. Out: a change, a fraction. It says nothing about what masks do.
"""

from __future__ import annotations

import math

from headwise.scoring.design import Design
from headwise.scoring.stats.comparison import FEWEST_CHANGED

DETECTED = 1.959964 + 0.841621  # standard errors: two-sided 5 %, found in 80 % of cases
SPREAD = 0.1  # of images' paired differences under a mask of some heads (docs/metrics.md)


def smallest_change(error: float) -> float:
    """The true change that a paired comparison of this standard error finds in 80 % of cases, a fraction."""
    return DETECTED * error


def expected_change(images: int, spread: float = SPREAD) -> float:
    """As `smallest_change`, guessed from the number of images before anything is measured."""
    return smallest_change(spread / math.sqrt(max(1, images)))


def least_change(design: Design) -> float:
    """The smallest change that can be claimed at all: the fewest images that must change, each by as little as one can."""
    return design.least * FEWEST_CHANGED

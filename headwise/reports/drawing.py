"""What all pictures have in common: matplotlib with its own defaults, whatever the user has set, and text as text."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def drawing(size: float = 10) -> Iterator[None]:
    """Inside the context matplotlib draws with its own defaults, whatever the user has set, and takes text as text.

    Arguments:
        size: of the letters, in typographic points.
    """
    import matplotlib
    from matplotlib import style

    own: Any = {"font.family": "DejaVu Sans", "font.size": size, "text.parse_math": False, "text.usetex": False}
    with style.context("default"), matplotlib.rc_context(own), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")  # a box stands for a letter without a shape
        yield

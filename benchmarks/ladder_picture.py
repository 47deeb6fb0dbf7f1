"""What a gain costs on old data: docs/ladder/*.png, a picture of every domain.

In: what was measured, by the names of `ladder.py`. Out: curves, means over seeds, and a PNG of them.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from ladder import MASKS

from headwise.reports.drawing import drawing

if TYPE_CHECKING:
    from ladder_measured import Measurements

MARKERS = "osD^vP*Xdh"


def curves(all_: Measurements, target: str, size: int, methods: Sequence[str], whole: int) -> dict[str, list]:
    """Of every learned method the mean gains (old, test) at identity and each α; of masks the best by search."""
    out = {}
    for method in methods:
        seeds = [all_.rows(target, size, seed, method) for seed in all_.seeds(target, size)]
        known = [found for found in seeds if found and len(found) > 1]
        if len(known) < whole:
            continue
        steps = min(len(found) for found in known) if method not in MASKS else 2
        points = []
        for step in range(steps):
            gains = [
                [found[step].judged()[split].fitness - found[0].judged()[split].fitness for found in known]
                for split in ("old", "test")
            ]
            points.append((float(np.mean(gains[0])), float(np.mean(gains[1]))))
        out[method] = points
    return out


def picture(target: str, curves: dict[str, list[tuple[float, float]]]) -> bytes:
    """Gain on the domain against change on old data: a curve for every learned method, over α."""
    from matplotlib import pyplot as plt

    with drawing():
        figure, axes = plt.subplots(figsize=(8.0, 4.2), layout="constrained")
        for (name, points), marker in zip(curves.items(), MARKERS, strict=False):
            axes.plot(
                [100 * x for x, _ in points], [100 * y for _, y in points], marker=marker, markersize=4, label=name
            )
        axes.axhline(0, color="black", linewidth=0.6)
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_xlabel("change on old data, points")
        axes.set_ylabel(f"gain on {target}, points")
        axes.set_title(f"{target}: mean over seeds, α from 0 to 1")
        figure.legend(fontsize=8, frameon=False, loc="outside right upper")
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=110, metadata={"Software": None})
        return stream.getvalue()

"""What a gain costs on old data: docs/ladder/*.png, a picture of every domain.

In: the curves that `ladder_page.py` averaged. Out: PNG.
"""

from __future__ import annotations

import io

from headwise.reports.drawing import drawing


def picture(target: str, curves: dict[str, list[tuple[float, float]]]) -> bytes:
    """Gain on the domain against change on old data: a curve for every learned method, over α."""
    from matplotlib import pyplot as plt

    with drawing():
        figure, axes = plt.subplots(figsize=(8.0, 4.2), layout="constrained")
        for (name, points), marker in zip(curves.items(), "osD^vP*Xdh", strict=False):
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

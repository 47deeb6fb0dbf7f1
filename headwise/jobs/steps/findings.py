"""What jobs hand back: plain JSON values that also know how to show themselves in a notebook.

In: results. Out: the same, as a dictionary with a short repr, sentences, a table, a picture. What is shown is made in
`reports/notebook.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Picture:
    """A picture that a notebook shows; `png` are its bytes."""

    png: bytes = field(repr=False)

    def _repr_png_(self) -> bytes:
        return self.png

    def save(self, path: str | Path) -> Path:
        """Write it as a PNG file.

        Raises:
            HeadwiseError: the file cannot be written.
        """
        from headwise.files import write_files

        path = Path(path)
        write_files(path.parent, {path.name: self.png})
        return path


class Findings(dict[str, Any]):
    """Results as their JSON file holds them."""

    def summary(self) -> str:
        """What they say, in a sentence or two."""
        from headwise.reports.notebook import summary

        return summary(self)

    def to_pandas(self) -> pandas.DataFrame:
        """The table of heads, metrics, methods, masks or points, fractions as they are (0.01 is a point).

        Raises:
            HeadwiseError: there is no table, or pandas is not installed.
        """
        from headwise.evaluation.shown import frame
        from headwise.reports.notebook import rows_of

        return frame(rows_of(self))

    def plot(self) -> Picture:
        """The heat map of every head, or the chart of a comparison, a transfer or a front.

        Raises:
            HeadwiseError: there is no picture of these.
        """
        from headwise.reports.notebook import picture_png

        return Picture(picture_png(self))

    def __repr__(self) -> str:
        from headwise.plain import line
        from headwise.reports.notebook import kind_of, summary

        return f"<{kind_of(self)}: {line(summary(self))[:400]}>"

    def _repr_html_(self) -> str:
        from headwise.reports.notebook import html

        return html(self)

"""A study, and any rows, in a notebook: HTML whose every value is escaped, a data frame, a sentence.

In: rows of plain values under short names; what a study holds. Out: text, HTML, a data frame. It imports pandas only where
one is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from headwise.errors import HeadwiseError
from headwise.plain import line

if TYPE_CHECKING:
    import pandas

SHOWN = 12  # rows of a table in a cell
LONGEST = 120  # characters of a cell


def evaluation_rows(evaluations: Iterable[Any]) -> list[dict[str, Any]]:
    """A row for every mask and split: what it is, and all its metrics.

    Arguments:
        evaluations: `study.Evaluation`s.
    """
    return [
        {
            "split": one.split,
            "mask": str(one.mask),
            "heads": one.mask.size,
            "fitness": one.score.fitness,
            "loss": one.score.loss,
            **{name: value for name, value in one.score.metrics.items() if name != "fitness"},
        }
        for one in evaluations
    ]


def frame(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Rows as a data frame.

    Raises:
        HeadwiseError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise HeadwiseError("Tables as data frames need pandas: pip install pandas") from error
    return pandas.DataFrame(list(rows))


def table_html(rows: Sequence[Mapping[str, Any]]) -> str:
    """The first rows as a table, and how many there are."""
    if not rows:
        return ""
    head = "".join(f'<th scope="col">{escape(line(name))}</th>' for name in rows[0])
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row.values()) + "</tr>" for row in rows[:SHOWN]
    )
    more = f"<p>{len(rows):,} rows; the first {SHOWN} are shown.</p>" if len(rows) > SHOWN else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{more}"


def _cell(value: object) -> str:
    if value is None:
        return "—"
    text = f"{value:.4g}" if isinstance(value, float) else line(value)
    return text if len(text) <= LONGEST else text[: LONGEST - 1] + "…"

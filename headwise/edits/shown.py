"""Edits in a notebook: a small table. In: a grid and its edits. Out: HTML; every text in it is of our own."""

from __future__ import annotations

from collections.abc import Sequence

from headwise.edits.edit import Edit
from headwise.edits.heads import Grid

MOST = 48  # heads of a row that are shown


def edits_html(grid: Grid, table: Sequence[Sequence[Edit]], title: str) -> str:
    """A row for each row of the grid, a cell a head: empty where the head is kept, else what is done to it."""
    lines = []
    for row, edits in enumerate(table):
        cells = "".join(_cell(str(grid.head(row, i)), edit) for i, edit in enumerate(edits[:MOST]))
        more = "<td>…</td>" if len(edits) > MOST else ""
        lines.append(f'<tr><th scope="row">{grid.row_name(row)}</th>{cells}{more}</tr>')
    return f"<table><caption>{title}</caption><tbody>{''.join(lines)}</tbody></table>"


def _cell(name: str, edit: Edit) -> str:
    if edit.keeps:
        return f'<td title="{name}">·</td>'
    return f'<td title="{name}"><b>{edit}</b></td>'

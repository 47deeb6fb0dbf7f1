"""A mask in a notebook: a small table of its gates. In: a grid and gates. Out: HTML; every text in it is of our own."""

from __future__ import annotations

from collections.abc import Sequence

from headwise.edits.heads import Grid

MOST = 48  # heads of a row that are shown


def gates_html(grid: Grid, gates: Sequence[Sequence[float]], title: str) -> str:
    """A row for each row of the grid, a cell a head: empty where the head is whole, else its gate."""
    lines = []
    for row, values in enumerate(gates):
        cells = "".join(_cell(str(grid.head(row, i)), gate) for i, gate in enumerate(values[:MOST]))
        more = "<td>…</td>" if len(values) > MOST else ""
        lines.append(f'<tr><th scope="row">{grid.row_name(row)}</th>{cells}{more}</tr>')
    return f"<table><caption>{title}</caption><tbody>{''.join(lines)}</tbody></table>"


def _cell(name: str, gate: float) -> str:
    if gate == 1.0:
        return f'<td title="{name}">·</td>'
    return f'<td title="{name}"><b>{gate:.2g}</b></td>'

"""report on the command line: a command's folder → `jobs.report` → where the page is.

In: the folder, and the pairs if they have moved. Out: one sentence; the page is in the folder.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwise.cli.command import grouped
from headwise.cli.options import SplitColumns


@grouped
def report(
    folder: Annotated[
        Path, typer.Argument(help="The output folder of refine, sweep, explain, compare, transfer or front.")
    ],
    pairs: Annotated[
        str | None, typer.Argument(help="The pairs of that run, where they are now; by default where they were.")
    ] = None,
    *,
    columns: SplitColumns,
) -> None:
    """report.html of what a command wrote: one page to open, send or print.

    Example: headwise report refined/
    """
    from headwise.cli import console
    from headwise.cli.telling import Terminal
    from headwise.jobs.report import report as run

    path = run(folder, pairs, reporter=Terminal(), **columns.keywords)
    console.say(f"Written to {path}")

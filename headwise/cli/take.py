"""take on the command line: a run's folder → `jobs.take` → a mask of its own.

In: the folder, which finalist, and the pairs if they have moved. Out: what the test split says of it, or results as JSON.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwise.cli.command import grouped
from headwise.cli.options import (
    Aim,
    CacheOption,
    DeviceOption,
    JsonOption,
    OutOption,
    SplitColumns,
    machine,
)


@grouped
def take(
    run: Annotated[Path, typer.Argument(help="The output folder of a finished refine.")],
    pairs: Annotated[
        str | None, typer.Argument(help="The pairs of that run, where they are now; by default where they were.")
    ] = None,
    *,
    mask: Annotated[
        str,
        typer.Option("--mask", help="Which finalist: what found it (ga, greedy, bp), its number, or the mask itself."),
    ],
    out: OutOption,
    device: DeviceOption = "auto",
    cache_size: CacheOption = None,
    as_json: JsonOption = False,
    columns: SplitColumns,
    aim: Aim,
) -> None:
    """Any finalist of a finished run: its mask with a complete card, and the merged model.

    Example: headwise take refined/ --mask greedy -o taken/
    """
    from headwise.cli import console
    from headwise.cli.telling import Terminal
    from headwise.jobs.take import take as go
    from headwise.reports.words import taken_sentence, verdict

    found = go(
        run,
        mask,
        out,
        pairs=pairs,
        goal=aim.goal,
        machine=machine("auto", device, None, cache_size),
        reporter=Terminal(quiet=as_json),
        **columns.keywords,
    )
    if as_json:
        console.print_json(found.results)
        return
    console.say(verdict(found.results))
    console.say(taken_sentence(found.results))
    console.say(f"Written to {out}: head_mask.json, README.md{', model/' if found.merged else ''}")

"""cache on the command line: options → `jobs.cache` → a table of what lies there.

In: perhaps how much may stay. Out: a row for each part, what was removed, or JSON.
"""

from __future__ import annotations

from typing import Annotated

import typer

from headwise.cli.command import grouped
from headwise.cli.options import JsonOption


@grouped
def cache(
    prune: Annotated[
        str | None,
        typer.Option("--prune", help="Most that may stay, such as 2GB, or 0: what was used least recently goes first."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """What headwise keeps between runs, and how much room it takes; with --prune, make room.

    Example: headwise cache --prune 2GB
    """
    from headwise.cli import console
    from headwise.data.cache import parse_size
    from headwise.jobs.cache import cache as run

    keep = None if prune is None else 0 if prune.strip() == "0" else parse_size(prune)
    found = run(keep=keep)
    if as_json:
        console.print_json(found)
        return
    rows = [
        (one["name"], one["what"], f"{one['entries']:,}", _size(one["bytes"]), _ago(one["days"]))
        for one in found["parts"]
    ]
    rows.append(("all", "", "", _size(found["bytes"]), ""))
    console.print_table(found["folder"], ("", "what", "entries", "size", "last used"), rows, text=True)
    if keep is not None:
        gone = found["removed"]
        console.say(
            f"Removed: {gone['entries']:,} entries, {_size(gone['bytes'])}. The next run that needs them makes them."
        )


def _size(count: float) -> str:
    for unit in ("bytes", "kB", "MB", "GB"):
        if count < 1000 or unit == "GB":
            return f"{count:,.0f} {unit}" if unit == "bytes" else f"{count:,.1f} {unit}"
        count /= 1000
    return ""


def _ago(days: float | None) -> str:
    if days is None:
        return ""
    return "today" if days < 1 else f"{days:,.0f} days ago"

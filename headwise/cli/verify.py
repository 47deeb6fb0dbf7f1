"""verify on the command line: a folder and edits → `jobs.verify` → a table, and exit code 1 where a check fails.

In: options. Out: a table, or JSON.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from headwise.cli.command import grouped
from headwise.cli.options import CheckOption, DeviceOption, JsonOption, Loading, machine


@grouped
def verify(
    folder: Annotated[Path, typer.Argument(help="The shipped model: a folder that merge or export wrote.")],
    edits: Annotated[str, typer.Option("--edits", help="A mask's folder, or text such as L10.H3=zero, L11.H0=zero.")],
    base: Annotated[str | None, typer.Option("--base", help="The base model, where the edits do not name it.")] = None,
    check_weights: CheckOption = True,
    device: DeviceOption = "cpu",
    as_json: JsonOption = False,
    *,
    loading: Loading,
) -> None:
    """Check that a shipped model is its base model with its edits, and nothing else."""
    from headwise.cli import console
    from headwise.jobs.verify import verify as run

    where = machine("float32", device, None, overrides=loading.overrides)
    checks = run(folder, edits=edits, base=base, machine=where, check_weights=check_weights)
    if as_json:
        console.print_json([asdict(check) for check in checks])
    else:
        rows = [(check.name, "yes" if check.passed else "NO", check.said) for check in checks]
        console.print_table(str(folder), ("check", "passed", "found"), rows, text=True)
    if not all(check.passed for check in checks):
        raise typer.Exit(1)

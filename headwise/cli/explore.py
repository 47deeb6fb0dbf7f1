"""explore on the command line: a run's folder → `jobs.explore` → an address to open; Ctrl-C ends it.

In: the folder, and the pairs if they have moved. Out: the address on standard output; the rest is in the browser.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwise.cli.command import grouped
from headwise.cli.options import Aim, CacheOption, ChunkOption, DeviceOption, DtypeOption, SplitColumns
from headwise.cli.options import machine as machine_of


@grouped
def explore(
    folder: Annotated[Path, typer.Argument(help="The output folder of a finished refine.")],
    pairs: Annotated[
        str | None, typer.Argument(help="The pairs of that run, where they are now; by default where they were.")
    ] = None,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 0,
    most_images: Annotated[int, typer.Option("--most-images", help="Most images of the search split.")] = 1000,
    dtype: DtypeOption = "auto",
    device: DeviceOption = "auto",
    chunk: ChunkOption = None,
    cache_size: CacheOption = None,
    *,
    columns: SplitColumns,
    aim: Aim,
) -> None:
    """The heads of a finished run, live: switch them off and on in a browser of this machine, and see what changes.

    Example: headwise explore refined/
    """
    from headwise.cli import console
    from headwise.cli.telling import Terminal
    from headwise.jobs.explore import explore as run

    run(
        folder,
        pairs,
        port=port,
        most_images=most_images,
        goal=aim.goal,
        machine=machine_of(dtype, device, chunk, cache_size),
        reporter=Terminal(),
        opened=_say,
        **columns.keywords,
    )
    console.say("Stopped.")


def _say(address: str) -> None:
    import sys

    from headwise.cli import console

    console.say(f"Open {address}   (Ctrl-C ends it)")
    sys.stdout.flush()

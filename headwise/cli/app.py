"""The command line: its commands, and how an error leaves it.

In: arguments. Out: an exit code: 0 when all is well, 1 for bad input, 2 for wrong usage, 130 when interrupted. Each
command is a file of its own here; it parses, calls a job, prints.
"""

from __future__ import annotations

from typing import Annotated

import typer
import typer.core

from headwise.cli import (
    batch,
    cache,
    compare,
    evaluate,
    explain,
    explore,
    export,
    front,
    look,
    merge,
    refine,
    report,
    sweep,
    take,
    transfer,
    verify,
)
from headwise.errors import Stopped
from headwise.wording import command_line


class Commands(typer.core.TyperGroup):
    """An interrupt is told to the guard; the parser itself would end without a word."""

    def invoke(self, ctx: typer.Context) -> object:
        """Run a command; an interrupt in it becomes `Stopped`."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            raise Stopped from stop


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find the attention heads of a CLIP image encoder that hurt on your data or fall short, edit them, prove that it helped.",
)


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Called before every command: `--version`, and messages that name options as they are typed."""
    context.with_resource(command_line())  # messages name options as they are typed here
    if show:
        from headwise.version import __version__

        print(__version__)
        raise typer.Exit


app.command()(refine.refine)
app.command()(refine.demo)
app.command()(sweep.sweep)
app.command()(evaluate.evaluate)
app.command()(explain.explain)
app.command()(merge.merge)
app.command()(export.export)
app.command()(verify.verify)
app.command()(take.take)
app.command()(compare.compare)
app.command()(transfer.transfer)
app.command()(front.front)
app.command()(batch.batch)
app.command()(report.report)
app.command()(explore.explore)
app.command()(look.inspect)
app.command()(look.models)
app.command()(cache.cache)
app.add_typer(look.data, name="data")

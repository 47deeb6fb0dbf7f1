"""The command line: its commands, and how an error leaves it.

In: arguments. Out: an exit code: 0 when all is well, 1 for bad input, 2 for wrong usage, 130 when interrupted. Each
command is a file of its own here; it parses, calls a job, prints.
"""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from headwise.cli import compare, evaluate, explain, front, look, merge, refine, sweep, transfer
from headwise.cli.options import refuse_former
from headwise.errors import HeadwiseError
from headwise.wording import command_line

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Find the attention heads that hurt a CLIP image encoder on your pairs, suppress them, prove that it helped.",
)


@app.callback(invoke_without_command=True)
def version(
    context: typer.Context,
    show: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
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
app.command()(compare.compare)
app.command()(transfer.transfer)
app.command()(front.front)
app.command()(look.inspect)
app.command()(look.models)
app.add_typer(look.data, name="data")


def main() -> None:
    """Entry point: 0 when all is well, 1 for bad input (a sentence, no traceback), 2 for wrong usage."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # read when torch is imported, which no module of the command line does before its command runs: threads that wait
    # sleep instead of spinning, so that a shared machine is not several times slower (docs/performance.md)
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    try:
        refuse_former(sys.argv[1:])
        app()
    except HeadwiseError as error:
        print(f"headwise: {error}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("headwise: interrupted; the same command continues where it stopped.", file=sys.stderr)
        sys.exit(130)

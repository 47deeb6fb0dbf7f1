"""Options of commands that run many masks: who runs them, and whether that is timed.

In: options. Out: a `Machine` with its staff, a reporter whose stages are timed, the trace and its table.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headwise.cli.options import Where
from headwise.errors import HeadwiseError

if TYPE_CHECKING:
    from headwise.cli.telling import Terminal
    from headwise.evaluation.profile import Profile
    from headwise.jobs.steps.opening import Machine

WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        help="Processes that run masks; by default one for each of several GPUs, else none beside this one.",
    ),
]
ProfileOption = Annotated[
    Path | None,
    typer.Option("--profile", help="A file for a trace of where the time goes (Perfetto, Chrome); a table is printed."),
]
RayOption = Annotated[
    str | None,
    typer.Option("--ray", help="A Ray cluster's address, or auto: the one that is there, or a new one here."),
]
MixedOption = Annotated[
    bool, typer.Option("--mixed-workers", help="Take workers on other kinds of machine, which round differently.")
]


@dataclass(frozen=True)
class Crewed(Where):
    """`Where`, for commands that run many masks: who runs them."""

    workers: WorkersOption = None
    ray: RayOption = None
    mixed_workers: MixedOption = False
    profile: ProfileOption = None

    @property
    def machine(self) -> Machine:
        """Where to run, who, and whether that is timed.

        Raises:
            HeadwiseError: `--profile` beside `--workers` or `--ray`.
        """
        from headwise.evaluation.crew import Staff

        if self.profile is not None and (self.workers or self.ray):
            raise HeadwiseError("--profile times this process alone; leave --workers and --ray out.")
        staff = Staff(0 if self.profile is not None else self.workers, self.ray, self.mixed_workers)
        return replace(super().machine, staff=staff, profile=self._timing)

    @property
    def reporter(self) -> Terminal:
        """Where progress goes; its stages are timed where that was asked for."""
        shown = super().reporter
        return self._timing.reporter(shown) if self._timing else shown

    @cached_property
    def _timing(self) -> Profile | None:
        from headwise.evaluation.profile import Profile

        return None if self.profile is None else Profile()

    def finish(self) -> None:
        """Write the trace and print the table, once the command is through."""
        if self._timing and self.profile is not None:
            from headwise.cli.console import print_profile

            self._timing.write(self.profile)
            print_profile(self._timing.rows(), self.profile)

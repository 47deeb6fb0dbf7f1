"""How a command tells what it does: bars on a terminal, lines elsewhere, all of it with the time in a log file.

In: stages and sentences of jobs; `-q`, `-v`, `--log-file`. Out: standard error, never standard output. Where nobody
sees a bar (a log of a cluster's job), a stage says its share and the time left at least every 30 s.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from typing import IO, Any, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from headwise.errors import HeadwiseError
from headwise.plain import line, terminal

EVERY = 30.0  # seconds
BAR = 12  # characters, so that a bar's title, numbers and time fit a line of 80
NUMBERS = 43


class _Stderr:
    """Standard error, as it is at the moment; progress that cannot be shown (a full disk) costs no result."""

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            sys.stderr.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stderr, name)


# nothing that is printed is markup: it holds paths, captions and names
PLAIN: Mapping[str, Any] = {"markup": False, "emoji": False, "highlight": False}
err = Console(file=cast("IO[str]", _Stderr()), **PLAIN)


@dataclass(frozen=True)
class Voice:
    """How much is said, and where else.

    Arguments:
        quiet: nothing on standard error but errors.
        verbose: also when a stage begins, and what is used.
        log: a file that is open for text.
    """

    quiet: bool = False
    verbose: bool = False
    log: IO[str] | None = None

    def note(self, text: str) -> None:
        """A line, or lines, of the log file, with the time."""
        if self.log is None:
            return
        with suppress(OSError, ValueError):
            for part in terminal(text).splitlines() or [""]:
                self.log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {part}\n")
            self.log.flush()


_VOICE: ContextVar[Voice | None] = ContextVar("voice", default=None)


def _at_once(path: str, flags: int) -> int:
    """Opens without waiting: a pipe that nobody reads is an error, not a command that never begins."""
    file = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
    os.set_blocking(file, True)
    return file


@contextmanager
def voice(quiet: bool, verbose: bool, log_file: Path | None) -> Iterator[Voice]:
    """Inside, `Terminal` says so much; what ends a command with an error is in the log file, too.

    Raises:
        HeadwiseError: quiet and verbose at once, or a log file that cannot be written.
    """
    if quiet and verbose:
        raise HeadwiseError("--quiet and --verbose contradict each other; give one of them.")
    try:
        log = log_file and open(log_file, "a", encoding="utf-8", errors="backslashreplace", opener=_at_once)  # noqa: SIM115
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise HeadwiseError(f"The log file {log_file} cannot be written: {reason}. Give another place.") from error
    said = Voice(quiet, verbose, log)
    token = _VOICE.set(said)
    try:
        yield said
    except BaseException as error:
        if not isinstance(error, SystemExit):
            said.note(f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        raise
    finally:
        _VOICE.reset(token)
        if log:
            log.close()


@dataclass
class Meter:
    """How far a stage is."""

    title: str
    total: float | None
    unit: str
    began: float = field(default_factory=time.monotonic)
    done: float = 0.0

    def so_far(self) -> str:
        """Share, amount and time left, on one line."""
        seconds = time.monotonic() - self.began
        amount = self._amount(self.done)
        if not self.total:
            return f"{self.title}: {amount} {self.unit}, {duration(seconds)} so far"
        share = min(1.0, self.done / self.total)
        left = f", about {duration(seconds * (1 - share) / share)} left" if share > 0 else ", time left not known yet"
        return f"{self.title}: {share:.0%}, {amount} of {self._amount(self.total)} {self.unit}{left}"

    def ended(self) -> str:
        """Amount and time taken."""
        return f"{self.title}: {self._amount(self.done)} {self.unit} in {duration(time.monotonic() - self.began)}"

    def _amount(self, value: float) -> str:
        return f"{value:,.1f}" if self.unit == "FFE" else f"{value:,.0f}"


def duration(seconds: float) -> str:
    """75 → `1 min 15 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


class _Rate(ProgressColumn):
    """Work done, of how much, and how much a second."""

    def render(self, task: Task) -> Text:
        unit = task.fields.get("unit", "")
        of = f"/{task.total:,.0f}" if task.total else ""
        speed = task.finished_speed or task.speed
        rate = "" if not speed else f", {speed:,.2f}/s" if speed < 10 else f", {speed:,.0f}/s"
        done = f"{task.completed:,.1f}" if unit == "FFE" else f"{task.completed:,.0f}"
        return Text(f"{done}{of} {unit}{rate}")


class Terminal:
    """A `Reporter`: bars with rate and time left on a terminal, lines elsewhere; the log file gets the lines, too."""

    def __init__(self, quiet: bool = False):
        self.voice = _VOICE.get() or Voice()
        self.quiet = quiet or self.voice.quiet

    @contextmanager
    def stage(self, title: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
        """See `Reporter.stage`."""
        meter, drawn = Meter(line(title), total, unit), not self.quiet and err.is_terminal
        if self.voice.verbose and not drawn:
            self._line(f"{meter.title} begins")
        else:
            self.voice.note(f"{meter.title} begins")
        over = Event()

        def beat() -> None:
            while not over.wait(EVERY):
                self._line(meter.so_far(), drawn)

        Thread(target=beat, daemon=True).start()
        try:
            with _bar(meter) if drawn else _lines(meter) as advance:
                yield advance
        finally:
            over.set()
        self._line(meter.ended(), drawn and not self.voice.verbose)

    def say(self, text: str) -> None:
        """A line beside the progress, never on standard output."""
        self._line(text)

    def _line(self, text: str, only_log: bool = False) -> None:
        self.voice.note(text)
        if not (self.quiet or only_log):
            err.print(terminal(text), soft_wrap=True)


@contextmanager
def _lines(meter: Meter) -> Iterator[Callable[[float], None]]:
    def advance(amount: float) -> None:
        meter.done += amount

    yield advance


@contextmanager
def _bar(meter: Meter) -> Iterator[Callable[[float], None]]:
    def single() -> Column:
        return Column(no_wrap=True)

    columns = (
        SpinnerColumn(table_column=single()),
        TextColumn("{task.description}", markup=False, table_column=single()),
        BarColumn(BAR, table_column=single()),
        _Rate(table_column=single()),
        TimeRemainingColumn(table_column=single()),
    )
    room = max(12, min(32, err.width - BAR - NUMBERS))
    shown = meter.title if len(meter.title) <= room else f"{meter.title[: room - 1]}…"
    with Progress(*columns, console=err, refresh_per_second=4) as progress:
        task = progress.add_task(f"{shown:{room}}", total=meter.total, unit=meter.unit)

        def advance(amount: float) -> None:
            meter.done += amount
            progress.advance(task, amount)

        yield advance
        progress.update(task, total=meter.done or 1, completed=meter.done or 1)

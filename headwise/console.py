"""What the command line shows: progress on standard error, results on standard output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from headwise.report import words

out = Console(width=None if sys.stdout.isatty() else 120)  # wide enough for a table in a log

err = Console(stderr=True)


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
    """A `Reporter` that draws bars with rate and time left on standard error."""

    def __init__(self, quiet: bool = False):
        self.quiet = quiet

    @contextmanager
    def stage(self, title: str, total: float | None, unit: str) -> Iterator[Callable[[float], None]]:
        if self.quiet:
            yield lambda amount: None
            return
        columns = (SpinnerColumn(), TextColumn("{task.description:32}"), BarColumn(30), _Rate(), TimeRemainingColumn())
        with Progress(*columns, console=err, refresh_per_second=4) as progress:
            task = progress.add_task(title, total=total, unit=unit)
            yield lambda amount: progress.advance(task, amount)
            progress.update(task, total=progress.tasks[0].completed or 1, completed=progress.tasks[0].completed or 1)

    def say(self, text: str) -> None:
        if not self.quiet:
            err.print(text, highlight=False, soft_wrap=True)


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def print_metrics(title: str, metrics: Mapping[str, float]) -> None:
    print_table(title, ("metric", "%"), [(name, words.points(value)) for name, value in metrics.items()])


def print_refined(results: Mapping, folder: object) -> None:
    """The outcome of a refine: the test table, the verdict, where it was written."""
    rows = []
    for row in results["test"]:
        metrics = row["metrics"]
        name = row["what"] + (f" ({row['count']} masks)" if row["count"] > 1 else "")
        recalls = ("image_retrieval_recall@1", "text_retrieval_recall@1", "mean_recall")
        tested = ("", "", "")
        if row["size"]:
            tested = (words.change(row["delta"]), words.interval(row["interval"]), words.p_value(row["p"]))
        rows.append((name, str(row["size"]), *(words.points(metrics[key]) for key in recalls), *tested))
    title = f"Test split: {words.size_of(results['data']['splits']['test'])}; recall in %, change in points"
    columns = ("", "heads", "t2i R@1", "i2t R@1", "mean recall", "change", "95 % interval", "p")
    print_table(title, columns, rows)
    out.print(words.verdict(results), highlight=False, soft_wrap=True)
    if results["test_reads"] > 1:
        out.print(
            f"Warning: this study has read its test split for {results['test_reads']} different masks; the p above "
            "does not account for that.",
            highlight=False,
            soft_wrap=True,
        )
    out.print(f"Written to {folder}: report.md, heads.png, head_mask.json, results.json, model/", highlight=False)

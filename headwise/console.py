"""What the command line shows: progress on standard error, results on standard output."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

out = Console()
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


def points(fraction: float, sign: bool = False) -> str:
    """A fraction in points: 0.1234 → 12.34."""
    return f"{100 * fraction:+.2f}" if sign else f"{100 * fraction:.2f}"


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = Table(title=title, title_justify="left", title_style="bold")
    for i, column in enumerate(columns):
        table.add_column(column, justify="left" if i == 0 else "right", overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def print_metrics(title: str, metrics: Mapping[str, float]) -> None:
    print_table(title, ("metric", "%"), [(name, points(value)) for name, value in metrics.items()])


def print_refined(results: Mapping, folder: object) -> None:
    """The outcome of a refine: the test table, the chosen heads, one plain sentence."""
    data = results["data"]["splits"]["test"]
    rows = [
        (
            row["what"] + (f" ({row['count']} masks)" if row["count"] > 1 else ""),
            str(row["size"]),
            points(row["metrics"]["image_retrieval_recall@1"]),
            points(row["metrics"]["text_retrieval_recall@1"]),
            points(row["metrics"]["mean_recall"]),
            "" if row["what"] == "identity" else points(row["delta"], sign=True),
            ""
            if row["what"] == "identity"
            else f"[{points(row['interval'][0], True)}, {points(row['interval'][1], True)}]",
            "" if row["what"] == "identity" else f"{row['p']:.4f}",
        )
        for row in results["test"]
    ]
    title = f"Test split: {data['images']:,} images, {data['captions']:,} captions (recall in %)"
    columns = ("", "heads", "t2i R@1", "i2t R@1", "mean recall", "change", "95 % interval", "p")
    print_table(title, columns, rows)
    out.print(sentence(results), highlight=False, soft_wrap=True)
    if results["test_reads"] > 1:
        out.print(
            f"Warning: this study has read its test split for {results['test_reads']} different masks; the p above "
            "does not account for that.",
            highlight=False,
            soft_wrap=True,
        )
    out.print(f"Written to {folder}: report.md, heads.png, head_mask.json, results.json, model/", highlight=False)


def sentence(results: Mapping) -> str:
    """What was found, in one honest sentence."""
    chosen, row = results["chosen"], results["test"][-1]
    if not chosen["size"]:
        return "No harmful heads were found: no mask beat the unchanged model on the pick split."
    change = f"{points(row['delta'], True)} points of mean recall on the test split"
    heads = f"Suppressing {', '.join(chosen['heads'])} ({chosen['operator']})"
    if row["interval"][0] > 0:
        return f"{heads} changed it by {change}; the interval excludes 0."
    return f"{heads} changed it by {change}, but the interval includes 0: an improvement is not shown."

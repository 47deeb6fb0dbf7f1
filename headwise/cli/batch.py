"""batch on the command line: a file of jobs → each command in a process of its own → a table.

In: a YAML file, a folder. Out: the folder of `jobs.batch`; exit code 1 where a job failed. Options are checked as the
commands themselves would, all jobs' before the first is run.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from headwise.cli import compare, explain, front, refine, sweep, transfer
from headwise.cli.command import grouped
from headwise.cli.options import JsonOption, refuse_former
from headwise.errors import HeadwiseError

COMMANDS: dict[str, Callable[..., None]] = {
    "refine": refine.refine,
    "sweep": sweep.sweep,
    "compare": compare.compare,
    "transfer": transfer.transfer,
    "front": front.front,
    "explain": explain.explain,
}


@grouped
def batch(
    jobs: Annotated[Path, typer.Argument(help="A YAML file: `jobs`, a list of commands with their options.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Output folder. The same command continues there.")],
    as_json: JsonOption = False,
) -> None:
    """Many jobs, one after the other, and one page that sums them up.

    Example: headwise batch jobs.yaml -o all/
    """
    from headwise.cli import console
    from headwise.cli.telling import Terminal
    from headwise.jobs.batch import batch as run
    from headwise.jobs.batch import read_jobs

    listed = read_jobs(jobs)
    for job in listed:
        check(f"{jobs}, {job.name}", job.command, arguments(job.command, job.options, out / job.name))
    reporter = Terminal(quiet=as_json)
    rows = run(listed, out, _in_a_process, reporter.say)
    if as_json:
        console.print_json({"jobs": rows})
    else:
        console.print_table(
            f"{len(rows)} jobs",
            ("job", "command", "state", "what was found"),
            [(row["name"], row["command"], row["state"], row.get("summary") or row["reason"]) for row in rows],
            text=True,
        )
        console.say(f"Written to {out}: batch.md, batch.json, and a folder for each job")
    if failed := [row["name"] for row in rows if row["state"] == "failed"]:
        raise HeadwiseError(
            f"{len(failed)} of {len(rows)} jobs failed: {', '.join(failed)}. The same command tries them again."
        )


def arguments(command: str, options: Any, out: Path) -> list[str]:
    """A job as it would be typed after `headwise`."""
    rest, words = dict(options), [command]
    for parameter in _parsed(command).params:
        if parameter.param_type_name == "argument" and parameter.name in rest:
            value = rest.pop(parameter.name)
            words += [str(one) for one in (value if isinstance(value, list) else [value])]
    opposites = {opt: other for p in _parsed(command).params for opt in p.opts for other in p.secondary_opts[:1]}
    for key, value in rest.items():
        if value is False and (opposite := opposites.get(f"--{key}")):
            words.append(opposite)
        for one in value if isinstance(value, list) else [value]:
            if one is True:
                words.append(f"--{key}")
            elif one is not False and one is not None:
                words.append(f"--{key}={one}")
    return [*words, "--out", str(out)]


def check(where: str, command: str, words: list[str]) -> None:
    """
    Raises:
        HeadwiseError: an option that the command does not have, a value it does not take, or an argument that is missing.
    """
    refuse_former(words)
    try:
        _parsed(command).make_context(command, list(words[1:]))
    except Exception as error:
        if not hasattr(error, "format_message"):  # what the parser says of wrong usage
            raise
        raise HeadwiseError(f"{where}: {error.format_message()}") from error  # type: ignore[attr-defined]


def _parsed(command: str) -> Any:
    app = typer.Typer(add_completion=False)
    app.command()(COMMANDS[command])
    return typer.main.get_command(app)


def _in_a_process(job: Any, folder: Path, log: Path) -> str | None:
    """Run a job; what it prints goes into its log. The last line there says why it failed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    words = arguments(job.command, job.options, folder)
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "headwise", *words], stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT
        )
        try:
            code = process.wait()
        except BaseException:  # an interrupt reaches the job, too; it puts its things in order
            process.terminate()
            process.wait()
            raise
    if code == 0:
        return None
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    said = next((text for text in reversed(lines) if text.startswith("headwise: ")), lines[-1] if lines else "")
    return said.removeprefix("headwise: ") or f"it ended with code {code}"

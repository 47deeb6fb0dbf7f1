"""batch: a list of commands, one after the other, each in a folder of its own, and one page that sums them up.

In: a YAML file of jobs, a folder. Out: a folder and a log for each job, `batch.json` (what was done, as what) and `batch.md`.
The same call goes on: what is done stays done, what was interrupted continues in its folder. Whether a job's options are
those of its command is the command line's matter, and so is how one is run.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from headwise.errors import HeadwiseError, cause
from headwise.files import write_files
from headwise.jobs.steps.findings import Findings
from headwise.jobs.steps.opening import dump
from headwise.plain import line, markdown
from headwise.reading import check_regular

RESULTS = {  # of the commands that a job may be: what each leaves
    "refine": "results.json",
    "sweep": "sweep.json",
    "compare": "compare.json",
    "transfer": "transfer.json",
    "front": "front.json",
    "explain": "explanation.json",
}
NAME = re.compile(r"[\w][\w.-]{0,99}")
RECORD = "batch.json"
PAGE = "batch.md"
LONGEST = 1 << 20  # bytes of a file of jobs


@dataclass(frozen=True)
class Job:
    """A command to run.

    Arguments:
        name: of its folder.
        command: one of `RESULTS`.
        options: as on the command line, without dashes before them.
    """

    name: str
    command: str
    options: Mapping[str, object]


def read_jobs(path: Path) -> list[Job]:
    """The jobs of a file; its `defaults` are options of every job that does not give them itself.

    Raises:
        HeadwiseError: the file cannot be read or does not have this form.
    """
    try:
        check_regular(path)
        with path.open("rb") as file:
            content = file.read(LONGEST + 1)
        if len(content) > LONGEST:
            raise HeadwiseError(f"{path} is larger than {LONGEST:,} bytes; that is no list of jobs.")
        found = yaml.safe_load(content)
    except OSError as error:
        raise HeadwiseError(f"{path} cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        raise HeadwiseError(f"{path} is not YAML: {cause(error)}") from error
    if not isinstance(found, dict) or not isinstance(found.get("jobs"), list) or not found["jobs"]:
        raise HeadwiseError(f"{path} has no `jobs:`, a list of commands with their options (docs/batch.md).")
    if others := sorted(set(map(str, found)) - {"jobs", "defaults"}):
        raise HeadwiseError(f"{path}: {others[0]!r} is not known there; a file of jobs has `defaults` and `jobs`.")
    defaults = found.get("defaults") or {}
    if not isinstance(defaults, dict):
        raise HeadwiseError(f"{path}: `defaults` is a list of options and their values.")
    jobs = [_job(path, number, given, defaults) for number, given in enumerate(found["jobs"], 1)]
    names = [job.name.casefold() for job in jobs]
    if twice := [job.name for job in jobs if names.count(job.name.casefold()) > 1]:
        raise HeadwiseError(f"{path}: two jobs are called {twice[0]}; each needs a folder of its own.")
    taken = {RECORD, PAGE, *(f"{name}.log" for name in names)}
    if own := [job.name for job in jobs if job.name.casefold() in taken]:
        raise HeadwiseError(f"{path}: a job cannot be called {own[0]!r}: the batch writes a file of this name.")
    return jobs


def _job(path: Path, number: int, given: object, defaults: Mapping) -> Job:
    where = f"{path}, job {number}"
    if not isinstance(given, dict):
        raise HeadwiseError(f"{where} is no list of options and their values.")
    command, name = given.get("command"), str(given.get("name", number))
    if command not in RESULTS:
        raise HeadwiseError(f"{where}: the command {command!r} is none of {', '.join(RESULTS)}.")
    if not NAME.fullmatch(name):
        raise HeadwiseError(f"{where}: {name!r} is no name of a folder; use letters, digits, points and dashes.")
    given = {
        "on" if key is True else str(key): value for key, value in (*defaults.items(), *given.items())
    }  # YAML's `on`
    options = {key.replace("_", "-"): value for key, value in given.items() if key not in ("command", "name")}
    for key in ("out", "json"):
        if key in options:
            raise HeadwiseError(f"{where}: {key!r} is the batch's own; every job writes into the folder of its name.")
    for key, value in options.items():
        flat = value if isinstance(value, list) else [value]
        if not all(isinstance(one, str | int | float | bool | None) for one in flat):
            raise HeadwiseError(f"{where}: {key!r} is a text, a number, true, false, or a list of these.")
    return Job(name, command, options)


Runner = Callable[[Job, Path, Path], str | None]  # job, its folder, its log → None, or why it failed


def batch(jobs: Sequence[Job], out: Path, run: Runner, say: Callable[[str], None] = lambda text: None) -> list[dict]:
    """Run what is not done yet, in order; one that fails does not keep the others from running.

    Arguments:
        jobs: from `read_jobs`.
        out: the folder of all of them.
        run: runs one.
        say: gets a sentence for each.

    Returns:
        For every job `name`, `command`, `options`, `state` (done, failed), `seconds`, and `summary` or `reason`.

    Raises:
        HeadwiseError: the folder cannot be written, or holds something else.
    """
    known = _known(out)
    rows: list[dict] = []
    for number, job in enumerate(jobs, 1):
        asked = {"name": job.name, "command": job.command, "options": json.loads(json.dumps(job.options))}
        title, before = f"{number}/{len(jobs)} {job.name} ({job.command})", known.get(job.name, {})
        done = before.get("state") == "done" and all(before.get(key) == value for key, value in asked.items())
        if done and (out / job.name / RESULTS[job.command]).is_file():
            say(f"{title}: done before.")
            rows.append(before)
        else:
            say(f"{title}: running; its log is {out / job.name}.log")
            began = time.monotonic()
            failed = run(job, out / job.name, out / f"{job.name}.log")
            row = {**asked, "state": "failed" if failed else "done", "seconds": round(time.monotonic() - began, 1)}
            row |= {"reason": failed} if failed else {"summary": _summary(out / job.name / RESULTS[job.command])}
            rows.append(row)
            say(f"{title}: {row['state']}. {row.get('reason') or row['summary']}")
        rest = [known[later.name] for later in jobs[number:] if later.name in known]
        write_files(out, {RECORD: dump({"format": 1, "jobs": [*rows, *rest]}), PAGE: _page(rows, len(jobs))})
    return rows


def _known(out: Path) -> dict[str, dict]:
    try:
        return {row["name"]: row for row in json.loads((out / RECORD).read_text(encoding="utf-8"))["jobs"]}
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise HeadwiseError(
            f"{out / RECORD} cannot be read: {cause(error)}. Move it away, or give another folder."
        ) from error
    return {}


def _summary(path: Path) -> str:
    try:
        return line(Findings(json.loads(path.read_text(encoding="utf-8"))).summary())
    except (OSError, ValueError) as error:
        return f"{path.name} cannot be read: {cause(error)}"


def _page(rows: Sequence[Mapping], count: int) -> str:
    """`batch.md`: a line for each job."""
    done = sum(row["state"] == "done" for row in rows)
    lines = [
        f"# {count} jobs, {done} done",
        "",
        "| job | command | state | minutes | what was found |",
        "|---|---|---|---:|---|",
    ]
    for row in rows:
        found = markdown(row.get("summary") or row.get("reason", ""))
        name = f"[{markdown(row['name'])}]({row['name']}/)"
        lines.append(f"| {name} | {row['command']} | {row['state']} | {row['seconds'] / 60:.1f} | {found} |")
    return "\n".join([*lines, ""])

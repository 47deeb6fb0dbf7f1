"""What faults do to a run: killed, out of space, with a bit flipped in a file that it reads back.

    python benchmarks/chaos.py --seed 0 --trials 10

Every trial spoils a small command of the packaged model (`chaos_files.py` has them) in one way, drawn by the seed, and
gives the same command again without the fault. The table says how often the result was the same to the byte (all files that the run
writes, but the study, whose pages depend on history), how often the command refused with a sentence, how often it left
out what was damaged and said so (`report` alone), and how often it ended with another result and no word: `silent` must
be 0, as must `traceback` and `leftover` (temporary files that stay). Exit code 1 where one of these is not 0.

A bit is flipped in every kind of file that a run reads back (`FILES` there); a kind that no run wrote is named at the
end, and a file that no kind names is an error: whoever adds one says there where it lies.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from chaos_files import COMMANDS, FILES, WRITTEN, digests, write_pairs
from faults import arm

OUTCOMES = ("tried", "same", "refused", "left out", "silent", "traceback", "leftover", "said")
SAYS = ("damaged", "corrupt", "malformed")  # words of a sentence about damage


def main() -> int:
    """Draw, spoil, repeat, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=10, help="of every kind")
    parser.add_argument("--only", help="kinds, comma-separated")
    parser.add_argument("--commands", default=",".join(COMMANDS), help="of these, comma-separated")
    parser.add_argument("--minutes", type=float, default=1e9, help="no new round of all kinds after these")
    asked = parser.parse_args()
    import headwise.jobs.compare
    import headwise.jobs.explain
    import headwise.jobs.refine  # noqa: F401 (a fork has it at once)

    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="headwise-chaos-") as place:
        table, small_disks = write_pairs(Path(place) / "pairs"), mounts(Path(place))
        (Path(place) / "texts").write_text("a face\na circle\nan arrow\n", encoding="utf-8")
        kinds: dict[str, list[Callable[[Path, random.Random], Counter]]] = {}
        for name in asked.commands.split(","):
            whole = finished(name, table, Path(place) / name)
            print(f"{name}, without a fault: {whole.seconds:.0f} s, {whole.operations} file operations.", flush=True)
            for kind, trial in trials(whole, small_disks=small_disks).items():
                kinds.setdefault(kind, []).append(trial)
        if missing := [name for name in FILES if f"bit: {name}" not in kinds]:
            print(f"No run wrote: {', '.join(missing)}.", flush=True)
        if asked.only:
            kinds = {kind: ways for kind, ways in kinds.items() if any(part in kind for part in asked.only.split(","))}
        counts = {kind: Counter() for kind in kinds}
        for number in range(asked.trials):  # all kinds in turn: after any time each was tried as often
            if number and time.monotonic() - began > 60 * asked.minutes:
                break
            for kind, ways in kinds.items():
                draw, trial = random.Random(f"{asked.seed} {kind} {number}"), Path(place) / "trial"
                counts[kind] += ways[number % len(ways)](trial, draw)
                shutil.rmtree(trial, ignore_errors=True)
    print(f"\n| kind (seed {asked.seed}) | " + " | ".join(OUTCOMES) + " |\n|---|" + "---:|" * len(OUTCOMES))
    total = sum(counts.values(), Counter())
    print("\n".join(row(name, one) for name, one in [*counts.items(), ("all", total)]))
    return int(any(total[name] for name in ("silent", "traceback", "leftover")))


def row(name: str, counts: Counter) -> str:
    return f"| {name} | " + " | ".join(str(counts[outcome]) for outcome in OUTCOMES) + " |"


# ---- the commands


@dataclass(frozen=True)
class Ended:
    """How a command ended: its code (below 0: by this signal), and all that it printed."""

    code: int
    printed: str


@dataclass(frozen=True)
class Whole:
    """A command that ended well: what it wrote, and what it took.

    Arguments:
        before: what was there before it, None: nothing.
    """

    name: str
    table: Path
    folder: Path
    before: Path | None
    expected: dict[str, str]
    operations: int
    seconds: float


def finished(name: str, table: Path, folder: Path) -> Whole:
    """A run without a fault.

    Raises:
        SystemExit: it failed, or wrote a file that `FILES` does not name.
    """
    before = None
    for command in COMMANDS[name][:-1]:
        if run(command, table, folder).code:
            raise SystemExit(f"{command} failed without a fault:\n{printed_by(folder).read_text(errors='replace')}")
        before = folder.with_name(folder.name + " before")
    if before:
        shutil.copytree(folder, before)
    began = time.monotonic()
    ended = run(COMMANDS[name][-1], table, folder, arming=lambda: arm(folder, 0))
    if ended.code:
        raise SystemExit(f"{name} failed without a fault:\n{ended.printed}")
    unknown = [
        str(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        and not any(fnmatch(str(path.relative_to(folder)), known) for known in (*FILES.values(), *WRITTEN))
    ]
    if unknown:
        raise SystemExit(f"{name} wrote files of no known kind: {', '.join(unknown)}. Name them in FILES or WRITTEN.")
    operations = int(ended.printed.rsplit("operations: ", 1)[1])
    return Whole(name, table, folder, before, digests(folder / "out"), operations, time.monotonic() - began)


def printed_by(trial: Path) -> Path:
    """The file of what a trial's last command printed."""
    return trial.with_name(trial.name + ".printed")


def run(
    command: str, table: Path, trial: Path, *, arming: Callable[[], object] | None = None, seconds: float | None = None
) -> Ended:
    """One of the commands in a fork of this process, which has imported everything already.

    Arguments:
        command: which.
        table: the pairs.
        trial: its folder: `out`, `cache` and what is printed.
        arming: called in the fork before the command, to set up a fault.
        seconds: kill it after these.
    """
    trial.mkdir(parents=True, exist_ok=True)
    printed = printed_by(trial)
    places = {"out": trial / "out", "pairs": table, "texts": table.parent.with_name("texts")}
    words = [word.format(**places) for word in command.split()]
    child = os.fork()
    if not child:
        with printed.open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.environ["HEADWISE_CACHE"] = str(trial / "cache")
            tempfile.tempdir = str(trial.parent)
            sys.argv = ["headwise", *words]
            code, counted = 0, None
            try:
                from headwise.cli.guard import main as headwise

                counted = arming() if arming else None
                headwise()
            except SystemExit as end:
                code = end.code if isinstance(end.code, int) else 1
            except BaseException as error:  # the guard let something through
                print(f"Traceback of the guard: {error!r}", file=sys.stderr, flush=True)
                code = 99
            gc.collect()  # a process that ends closes its studies
            if callable(counted):
                print("operations:", counted(), flush=True)
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, 9)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), printed.read_text(errors="replace"))


# ---- faults


def trials(whole: Whole, *, small_disks: bool) -> dict[str, Callable[[Path, random.Random], Counter]]:
    """Every way to spoil one command: its kind → a trial."""
    kinds: dict[str, Callable[[Path, random.Random], Counter]] = {}
    for how in ("kill", "full", "interrupt", "terminate"):
        kinds[f"{how} at operation n"] = lambda trial, draw, how=how: stopped(
            whole, trial, lambda: arm(trial, draw.randint(1, whole.operations), how)
        )
    kinds["kill at a moment"] = lambda trial, draw: stopped(whole, trial, None, draw.random() * whole.seconds)
    kinds["no file above n bytes"] = lambda trial, draw: stopped(
        whole, trial, lambda: limit(int(10 ** draw.uniform(2, 6.7)))
    )
    if small_disks:
        there = sum(path.stat().st_size for path in whole.before.rglob("*") if path.is_file()) if whole.before else 0
        kinds["disk of n bytes"] = lambda trial, draw: on_a_small_disk(
            whole, trial, (1 << 16) + 2 * there + int(10 ** draw.uniform(4.5, 7))
        )
    for name, pattern in FILES.items():
        if list(whole.folder.glob(pattern)) and not (whole.before and pattern.startswith("cache/")):
            kinds[f"bit: {name}"] = lambda trial, draw, pattern=pattern: flipped(whole, trial, pattern, draw)
    return kinds


def stopped(whole: Whole, trial: Path, arming: Callable[[], object] | None, seconds: float | None = None) -> Counter:
    """A run with a fault, then the same command without one."""
    command = COMMANDS[whole.name][-1]
    if whole.before:
        shutil.copytree(whole.before, trial)
    first = run(command, whole.table, trial, arming=arming, seconds=seconds)
    return verdict(whole, trial, run(command, whole.table, trial), first, changed=False)


def flipped(whole: Whole, trial: Path, pattern: str, draw: random.Random) -> Counter:
    """A finished run, one bit of a file turned, then the same command. A damaged cache is met by a new study, and a page
    is made from nothing."""
    shutil.copytree(whole.folder, trial)
    path = draw.choice(sorted(trial.glob(pattern)))
    data = bytearray(path.read_bytes())
    place = draw.randrange(len(data))
    data[place] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    if whole.before:
        (trial / "out" / "report.html").unlink()
    elif pattern.startswith("cache/"):
        shutil.rmtree(trial / "out")
    return verdict(whole, trial, run(COMMANDS[whole.name][-1], whole.table, trial), None, changed=True)


def on_a_small_disk(whole: Whole, trial: Path, size: int) -> Counter:
    """A run on a file system of so many bytes, which then grows."""
    trial.mkdir(parents=True)
    command = COMMANDS[whole.name][-1]
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", trial], check=True, capture_output=True)
    try:
        if whole.before:
            shutil.copytree(whole.before, trial, dirs_exist_ok=True)
        first = run(command, whole.table, trial)
        subprocess.run(["mount", "-o", "remount,size=500m", trial], check=True, capture_output=True)
        return verdict(whole, trial, run(command, whole.table, trial), first, changed=False)
    finally:
        subprocess.run(["umount", trial], check=False, capture_output=True)


def limit(size: int) -> None:
    """No file of this process gets longer."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


def mounts(place: Path) -> bool:
    """Whether this process may mount a file system."""
    (place / "small").mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", place / "small"], capture_output=True)
    if done.returncode == 0:
        subprocess.run(["umount", place / "small"], check=True)
    return done.returncode == 0


# ---- outcomes


def verdict(whole: Whole, trial: Path, last: Ended, first: Ended | None, *, changed: bool) -> Counter:
    """One trial as counts; `said`: of damaged files, how often a sentence told of the damage."""
    found = Counter(tried=1)
    printed = (first.printed if first else "") + last.printed
    if "Traceback" in printed or "Unexpected" in printed or "Fatal Python" in printed or last.code not in (0, 1):
        found["traceback"] = 1
    now = digests(trial / "out")
    found["said"] = int(changed and any(word in last.printed for word in SAYS))
    if last.code == 0:
        left_out = found["said"] and whole.name == "report"
        pages = ["report.html"] if changed and whole.before else {*now, *whole.expected}  # a report writes nothing else
        same = all(now.get(name) == whole.expected.get(name) for name in pages)
        found["same" if same else "left out" if left_out else "silent"] = 1
    elif last.code == 1:
        found["refused"] = 1
    found["leftover"] = int(any(path.name.startswith(".headwise-") for path in trial.rglob("*")))
    if found["silent"] or found["traceback"] or found["leftover"]:
        differ = sorted(name for name in {*now, *whole.expected} if now.get(name) != whole.expected.get(name))
        print(f"  {whole.name} {dict(found)}: {', '.join(differ)}\n  {printed[-1500:]}", file=sys.stderr, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())

"""What faults do to a run: killed, out of space, with a bit flipped in a file that it reads back.

    python benchmarks/chaos.py --seed 0 --trials 10

Every trial spoils a small `headwise refine` of the packaged model in one way, drawn by the seed, and gives the same
command again without the fault. The table says how often the result was the same to the byte (all files that the run
writes, but the study, whose pages depend on history), how often the command refused with a sentence, and how often it
ended with another result and no word: `silent` must be 0, as must `traceback` and `leftover` (temporary files that
stay). Exit code 1 where one of these is not 0.

A bit is flipped in every kind of file that is found; a kind that another version adds is tried without a change here.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from faults import arm

SETTINGS = ["--operator", "zero", "--strategy", "greedy,ga,bp", "--width", "1", "--controls", "1", "--finalists", "2", "--budget", "9",
            "--max-heads", "2", "--epochs", "1", "--device", "cpu"]  # fmt: skip
OUTCOMES = ("tried", "same", "refused", "silent", "traceback", "leftover", "said")
KINDS = {  # of files that are read back: where they lie below a trial's folder
    "study": "out/study.sqlite",
    "head changes": "out/deltas-*.safetensors",
    "learned gates": "out/bp-*.safetensors",
    "pixels": "cache/pixels/*/pixels",
    "index of pixels": "cache/pixels/*/shard.json",
    "caption embeddings": "cache/texts/*",
    "verdict on images": "cache/checked/*",
    "mask": "out/head_mask.json",
    "merged weights": "out/model/model.safetensors",
}


@dataclass(frozen=True)
class Ended:
    """How a command ended: its code (below 0: by this signal), and all that it printed."""

    code: int
    printed: str


def main() -> int:
    """Draw, spoil, repeat, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=10, help="of every kind")
    parser.add_argument("--only", help="kinds, comma-separated")
    parser.add_argument("--minutes", type=float, default=1e9, help="no new trial after these")
    asked = parser.parse_args()
    import headwise.jobs.refine  # noqa: F401 (a fork has it at once)

    began, counts = time.monotonic(), {}
    with tempfile.TemporaryDirectory(prefix="headwise-chaos-") as place:
        table = write_pairs(Path(place) / "pairs")
        whole = Path(place) / "whole"
        ended = refine(table, whole, arming=lambda: arm(whole, 0))
        if ended.code:
            raise SystemExit(f"The run without a fault failed:\n{ended.printed}")
        operations, expected = int(ended.printed.rsplit("operations: ", 1)[1]), digests(whole / "out")
        print(f"A run without a fault: {time.monotonic() - began:.0f} s, {operations} file operations.", flush=True)
        kinds: dict[str, Callable[[Path, random.Random], Counter]] = {}
        for how in ("kill", "full", "interrupt"):
            kinds[f"{how} at operation n"] = lambda trial, draw, how=how: stopped(
                table, trial, expected, lambda: arm(trial, draw.randint(1, operations), how)
            )
        kinds["kill at a moment"] = lambda trial, draw: stopped(table, trial, expected, None, draw.random())
        kinds["no file above n bytes"] = lambda trial, draw: stopped(
            table, trial, expected, lambda: limit(int(10 ** draw.uniform(2, 6.7)))
        )
        if mounts(Path(place)):
            kinds["disk of n bytes"] = lambda trial, draw: on_a_small_disk(
                table, trial, expected, int(10 ** draw.uniform(4.5, 7))
            )
        for name, pattern in KINDS.items():
            if list(whole.glob(pattern)):
                kinds[f"bit: {name}"] = lambda trial, draw, pattern=pattern: flipped(
                    table, whole, trial, expected, pattern, draw
                )
        for name, spoil in kinds.items():
            if asked.only and not any(part in name for part in asked.only.split(",")):
                continue
            counts[name] = Counter()
            for number in range(asked.trials):
                if time.monotonic() - began > 60 * asked.minutes:
                    break
                trial = Path(place) / "trial"
                counts[name] += spoil(trial, random.Random(f"{asked.seed} {name} {number}"))
                shutil.rmtree(trial, ignore_errors=True)
            print(row(name, counts[name]), flush=True)
    print("\n| kind | " + " | ".join(OUTCOMES) + " |\n|---|" + "---:|" * len(OUTCOMES))
    total = sum(counts.values(), Counter())
    print("\n".join(row(name, one) for name, one in [*counts.items(), ("all", total)]))
    return int(any(total[name] for name in ("silent", "traceback", "leftover")))


def row(name: str, counts: Counter) -> str:
    return f"| {name} | " + " | ".join(str(counts[outcome]) for outcome in OUTCOMES) + " |"


# ---- the command


def refine(
    table: Path, trial: Path, *, arming: Callable[[], object] | None = None, seconds: float | None = None
) -> Ended:
    """`headwise refine` in a fork of this process, which has imported everything already.

    Arguments:
        table: the pairs.
        trial: its folder: `out`, `cache` and what is printed.
        arming: called in the fork before the command, to set up a fault.
        seconds: kill it after these.
    """
    trial.mkdir(parents=True, exist_ok=True)
    printed = trial.with_name(trial.name + ".printed")
    child = os.fork()
    if not child:
        with printed.open("w") as log:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
            os.environ["HEADWISE_CACHE"] = str(trial / "cache")
            tempfile.tempdir = str(trial.parent)
            sys.argv = ["headwise", "refine", "demo", str(table), "-o", str(trial / "out"), *SETTINGS]
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
            if callable(counted):
                print("operations:", counted(), flush=True)
            os._exit(code)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, 9)
    _, status = os.waitpid(child, 0)
    return Ended(os.waitstatus_to_exitcode(status), printed.read_text(errors="replace"))


# ---- faults


def stopped(
    table: Path, trial: Path, expected: dict, arming: Callable[[], object] | None, share: float | None = None
) -> Counter:
    """A run with a fault, then the same command without one."""
    seconds = None if share is None else share * 10
    first = refine(table, trial, arming=arming, seconds=seconds)
    return verdict(trial, expected, refine(table, trial), first, changed=False)


def flipped(table: Path, whole: Path, trial: Path, expected: dict, pattern: str, draw: random.Random) -> Counter:
    """A finished run, one bit of a file turned, then the same command. A damaged cache is met by a new study."""
    shutil.copytree(whole, trial)
    path = draw.choice(sorted(trial.glob(pattern)))
    data = bytearray(path.read_bytes())
    place = draw.randrange(len(data))
    data[place] ^= 1 << draw.randrange(8)
    path.write_bytes(data)
    if pattern.startswith("cache/"):
        shutil.rmtree(trial / "out")
    return verdict(trial, expected, refine(table, trial), None, changed=True)


def on_a_small_disk(table: Path, trial: Path, expected: dict, size: int) -> Counter:
    """A run on a file system of so many bytes, which then grows."""
    trial.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", trial], check=True, capture_output=True)
    try:
        first = refine(table, trial)
        subprocess.run(["mount", "-o", "remount,size=500m", trial], check=True, capture_output=True)
        return verdict(trial, expected, refine(table, trial), first, changed=False)
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


def verdict(trial: Path, expected: dict, last: Ended, first: Ended | None, *, changed: bool) -> Counter:
    """One trial as counts; `said`: of damaged files, how often a sentence told of the damage."""
    found = Counter(tried=1)
    printed = (first.printed if first else "") + last.printed
    if "Traceback" in printed or "Unexpected" in printed or "Fatal Python" in printed or last.code not in (0, 1):
        found["traceback"] = 1
    if last.code == 0:
        found["same" if digests(trial / "out") == expected else "silent"] = 1
    elif last.code == 1:
        found["refused"] = 1
    found["leftover"] = int(any(path.name.startswith(".headwise-") for path in trial.rglob("*")))
    found["said"] = int(changed and any(word in last.printed for word in ("damaged", "corrupt", "malformed")))
    if found["silent"] or found["traceback"] or found["leftover"]:
        now = digests(trial / "out")
        differ = sorted(name for name in {*now, *expected} if now.get(name) != expected.get(name))
        print(f"  {dict(found)}: {', '.join(differ)}\n  {printed[-1500:]}", file=sys.stderr, flush=True)
    return found


def digests(out: Path) -> dict[str, str]:
    """The hash of every file that a run writes, but the study's."""
    return {
        str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(out.rglob("*"))
        if path.is_file() and ".sqlite" not in path.name and not path.name.startswith(".headwise-")
    }


def write_pairs(folder: Path, images: int = 12) -> Path:
    """Some of the packaged pairs as picture files and a table."""
    import pyarrow.parquet as parquet

    from headwise.demo import pairs_file

    (folder / "images").mkdir(parents=True)
    rows: Sequence[dict] = parquet.read_table(pairs_file()).slice(0, images).to_pylist()
    with (folder / "pairs.jsonl").open("w", encoding="utf-8") as file:
        for i, one in enumerate(rows):
            (folder / "images" / f"{i}.png").write_bytes(one["image"]["bytes"])
            file.write(json.dumps({"image": f"images/{i}.png", "captions": one["captions"]}) + "\n")
    return folder / "pairs.jsonl"


if __name__ == "__main__":
    sys.exit(main())

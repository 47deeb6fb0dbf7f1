"""What another number of threads and another vector width change: the same refine, each in a process of its own.

    python benchmarks/same_bytes.py --images 60

Prints the largest difference of any number in results.json to that of one thread, and whether the choice is equal.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from headwise.demo import pairs_file

WAYS = {
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "1 thread again": {"OMP_NUM_THREADS": "1"},
    "2 threads": {"OMP_NUM_THREADS": "2"},
    "1 thread, AVX2": {"OMP_NUM_THREADS": "1", "ATEN_CPU_CAPABILITY": "avx2"},
    "2 threads, AVX2": {"OMP_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "avx2"},
}
OPTIONS = [
    "--operator",
    "zero,mean",
    "--budget",
    "30",
    "--population",
    "10",
    "--controls",
    "4",
    "--finalists",
    "4",
    "--json",
]


def differences(one: object, other: object, name: str = "") -> Iterator[tuple[float, str]]:
    """Every number that differs, with its place; what is no number and differs counts as infinite."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from differences(one[key], other[key], key)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for first, second in zip(one, other, strict=True):
            yield from differences(first, second, name)
    elif one != other:
        both = isinstance(one, float) and isinstance(other, float)
        yield (abs(one - other) if both else float("inf")), name  # type: ignore[operator]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60)
    count = parser.parse_args().images
    first = None
    with tempfile.TemporaryDirectory() as folder:
        pairs = Path(folder) / "pairs.parquet"
        pq.write_table(pq.read_table(pairs_file()).slice(0, count), pairs)
        for number, (way, environment) in enumerate(WAYS.items()):
            out = Path(folder) / str(number)
            command = [sys.executable, "-m", "headwise", "refine", "demo", str(pairs), "-o", str(out), *OPTIONS]
            environment = {**os.environ, **environment, "HEADWISE_CACHE": str(out) + ".cache"}
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            results = json.loads(done.stdout)
            first = first or results
            found = sorted(differences(first, results), reverse=True)
            chosen = [one["finalists"] for one in (first, results)]
            equal = [next(f["mask"] for f in finalists if f["chosen"]) for finalists in chosen]
            names = ", ".join(sorted({name for _, name in found})) or "nothing"
            print(
                f"{way}: differ: {names}; largest {found[0][0] if found else 0:.1e}; chosen "
                f"{'the same' if equal[0] == equal[1] else ' / '.join(equal)}",
                flush=True,
            )


if __name__ == "__main__":
    main()

"""What the command line sets for its process, and what that saves: the same images with and without it, turn by turn.

    python benchmarks/process.py waiting
    python benchmarks/process.py waiting --busy 2
    python benchmarks/process.py memory

`waiting`: threads that wait sleep instead of spinning (`OMP_WAIT_POLICY=PASSIVE`). `memory`: freed blocks stay with the
process, and large tensors lie on large pages (`headwise.memory`). A ViT-B/32 of random weights and the packaged model embed
the same images; a fresh interpreter for each measurement, because both are read once. Reported: the median over rounds of
(seconds without) / (seconds with) with its quartiles; above 1 the setting is faster. `--busy`: with so many other processes
that never rest. One JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack

from headwise.memory import HUGE_PAGES
from headwise.processor import machine

SETTINGS = {
    "waiting": {"OMP_WAIT_POLICY": "PASSIVE"},
    # what `keep_memory` tells glibc, by the names that it reads when a process begins
    "memory": {"MALLOC_MMAP_THRESHOLD_": str(1 << 30), "MALLOC_TRIM_THRESHOLD_": str(1 << 30), **HUGE_PAGES},
}

TIMED = """
import json, sys, time
import torch
from headwise import load
from inference import build
torch.set_num_threads(int(sys.argv[1]))
found = {}
for name, tower, count in (("ViT-B/32", build("B/32"), 8), ("packaged model", load("demo").tower, 64)):
    images = torch.randn(count, 3, tower.resolution, tower.resolution)
    with torch.inference_mode():
        tower.encode(images)
        start = time.perf_counter()
        for _ in range(int(sys.argv[2])):
            tower.encode(images)
        found[name] = time.perf_counter() - start
print(json.dumps(found))
"""


def timed(threads: int, repeats: int, settings: dict[str, str]) -> dict[str, float]:
    """Seconds by model, in a fresh interpreter."""
    own = {"OMP_NUM_THREADS", *(name for one in SETTINGS.values() for name in one)}
    environment = {name: value for name, value in os.environ.items() if name not in own} | settings
    environment |= {"PYTHONPATH": os.pathsep.join([os.path.dirname(os.path.abspath(__file__)), *sys.path])}
    line = [sys.executable, "-c", TIMED, str(threads), str(repeats)]
    return json.loads(subprocess.run(line, env=environment, capture_output=True, check=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("setting", choices=list(SETTINGS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--repeats", type=int, default=12, help="of the images, each round")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--busy", type=int, default=0)
    options = parser.parse_args()
    ratios: dict[str, list[float]] = {}
    with ExitStack() as stack:
        for _ in range(options.busy):
            other = stack.enter_context(subprocess.Popen([sys.executable, "-c", "while True: pass"]))
            stack.callback(other.kill)
        for number in range(options.rounds):
            seconds = {}
            for given in (True, False) if number % 2 else (False, True):
                seconds[given] = timed(options.threads, options.repeats, SETTINGS[options.setting] if given else {})
            for name, without in seconds[False].items():
                ratios.setdefault(name, []).append(without / seconds[True][name])
    found = {
        name: {
            "median": round(statistics.median(one), 3),
            "quartiles": [round(q, 3) for q in statistics.quantiles(one)],
        }
        for name, one in ratios.items()
    }
    print(
        json.dumps(
            {"machine": machine(), "busy": options.busy, "setting": options.setting, "seconds without / with": found},
            indent=1,
        )
    )


if __name__ == "__main__":
    main()

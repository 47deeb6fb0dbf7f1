"""What it costs that threads wait without spinning: the same images with `OMP_WAIT_POLICY` PASSIVE and unset, turn by turn.

    python benchmarks/waiting.py
    python benchmarks/waiting.py --busy 2

A ViT-B/32 of random weights and the packaged model embed the same images in two threads; a fresh interpreter for each
measurement, because the policy is read once. Reported: the median over rounds of (seconds unset) / (seconds passive) with
its quartiles; above 1 passive waiting is faster. `--busy`: with so many other processes that never rest. One JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from contextlib import ExitStack

from headwise.processor import machine

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


def timed(threads: int, repeats: int, policy: str | None) -> dict[str, float]:
    """Seconds by model, in a fresh interpreter."""
    environment = {k: v for k, v in os.environ.items() if k not in ("OMP_WAIT_POLICY", "OMP_NUM_THREADS")}
    environment |= {"PYTHONPATH": os.pathsep.join([os.path.dirname(os.path.abspath(__file__)), *sys.path])}
    environment |= {"OMP_WAIT_POLICY": policy} if policy else {}
    line = [sys.executable, "-c", TIMED, str(threads), str(repeats)]
    return json.loads(subprocess.run(line, env=environment, capture_output=True, check=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
            order = ["PASSIVE", None] if number % 2 else [None, "PASSIVE"]
            seconds = {policy: timed(options.threads, options.repeats, policy) for policy in order}
            for name, spinning in seconds[None].items():
                ratios.setdefault(name, []).append(spinning / seconds["PASSIVE"][name])
    found = {
        name: {
            "median": round(statistics.median(one), 3),
            "quartiles": [round(q, 3) for q in statistics.quantiles(one)],
        }
        for name, one in ratios.items()
    }
    print(json.dumps({"machine": machine(), "busy": options.busy, "seconds unset / passive": found}, indent=1))


if __name__ == "__main__":
    main()

"""What `import headwise` costs beyond torch's own import, in fresh interpreters.

    python benchmarks/import_time.py --runs 9

Each run is a new interpreter that imports torch first and is timed from there: the package, then every public name
(names are imported when they are first used, so the second is what a program pays that uses them all). The median of
the runs, in wall clock and in processor time. The limit is 0.3 s; the exit status says whether it holds.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

OPTIONAL = ("transformers", "open_clip", "timm", "sentence_transformers", "datasets", "matplotlib", "peft", "pymoo")
LIMIT = 0.3
PROBE = """
import json, sys, time

def now():
    return time.perf_counter(), time.process_time()

started = now()
import torch
loaded = now()
import headwise
imported = now()
for name in headwise.__all__:
    getattr(headwise, name)
used = now()
steps = {"import torch": (started, loaded), "import headwise": (loaded, imported), "every public name": (loaded, used)}
times = {step: [b - a for a, b in zip(*ends)] for step, ends in steps.items()}
print(json.dumps({"times": times, "modules": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9, help="fresh interpreters, after one that warms the disk cache")
    runs = parser.parse_args().runs
    found = []
    for _ in range(runs + 1):
        done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, check=True)
        found.append(json.loads(done.stdout))
    slow = False
    for step in found[0]["times"]:
        wall, cpu = (statistics.median(one["times"][step][clock] for one in found[1:]) for clock in (0, 1))
        slow = slow or (step != "import torch" and cpu > LIMIT)
        print(json.dumps({"step": step, "runs": runs, "wall s": round(wall, 4), "cpu s": round(cpu, 4)}))
    print(json.dumps({"optional libraries imported": [name for name in OPTIONAL if name in found[0]["modules"]]}))
    sys.exit(int(slow))


if __name__ == "__main__":
    main()

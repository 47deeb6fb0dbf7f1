"""What a kept domain costs and saves: refine with and without it, and the front between the two domains.

    python benchmarks/fronts.py -o kept/ --keep-domain pairs-openmoji/pairs.parquet

On the packaged model and pairs, or on --model and --pairs. All runs share one study in the output folder, so what two
of them ask for runs once; the same command continues there. The test split is read for each run's choice: this compares
settings, it is not how to choose one.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from headwise.cli.telling import Terminal
from headwise.jobs.front import FrontSettings, front
from headwise.jobs.refine import refine
from headwise.jobs.steps.settings import Settings
from headwise.reports.front import COLUMNS, shown_rows
from headwise.reports.kept import table
from headwise.reports.words import change, interval, points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", "-o", type=Path, required=True)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--pairs", default="demo")
    parser.add_argument("--keep-domain", required=True)
    parser.add_argument("--max-loss", type=float, default=0.5)
    parser.add_argument("--budget", type=float, default=120.0, help="FFE of each run before the test split")
    parser.add_argument("--quiet", action="store_true")
    args = parser.parse_args()
    reporter, base = Terminal(quiet=args.quiet), Settings()
    # masks alone, as in the front; it is measured and limits nothing
    free = replace(base, rungs=("mask",), budget=args.budget, controls=1, max_loss=100.0)
    runs = {"no limit": free, f"limit {args.max_loss:g}": replace(free, max_loss=args.max_loss)}
    rows = []
    keep = [args.keep_domain]
    for name, settings in runs.items():
        found = refine(args.model, args.pairs, args.out, settings=settings, keep=keep, reporter=reporter).results
        chosen, (kept,) = found["test"][-1], found["kept"]["domains"]
        checked = found["kept"]["checked"]
        passed = f"{sum(row['passed'] for row in checked)} of {len(checked)}"
        new = f"{change(chosen['delta'])} ({interval(chosen['interval'])})"
        old = f"{change(kept['delta'])} ({interval(kept['interval'])})"
        rows.append((name, passed, found["chosen"]["found_by"], str(found["chosen"]["size"]), new, old))
    print("\n".join(table(("refine", "masks passed", "found by", "heads", "new, test", "kept, test"), rows)))
    settings = replace(FrontSettings(), budget=args.budget, max_loss=args.max_loss)
    traded = front(args.model, args.pairs, args.out, keep=keep, settings=settings, reporter=reporter).results
    base_pick = points(traded["identity"]["pick"]["mean_recall"])
    print(f"\n`headwise front`, changes in points against identity ({base_pick} on the pick split):\n")
    print("\n".join(table(COLUMNS["domains"], shown_rows(traded))))


if __name__ == "__main__":
    main()

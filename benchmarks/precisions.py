"""How far the packaged model's scores differ between float32 and bfloat16, where the same masks are scored in both.

    python benchmarks/precisions.py
    python benchmarks/precisions.py --images 200

Identity and every single head, on all pairs of the demo. What counts is the change against identity in the same
precision: that is what searches rank and what tests compare. One JSON object.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from scipy.stats import rankdata

from headwise.edits.mask import Mask
from headwise.jobs.steps.bench import prepare
from headwise.jobs.steps.opening import Machine, load_model, read_pairs, whole
from headwise.jobs.steps.progress import Silent
from headwise.processor import machine
from headwise.scoring import stats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int)
    parser.add_argument("--operator", default="uniform")
    args = parser.parse_args()
    model, pairs = load_model("demo", Machine()), read_pairs("demo", Silent(), {})
    pairs = pairs.subset(range(args.images or len(pairs)))
    scores = {}
    for dtype in ("float32", "bfloat16"):
        evaluate = prepare(model, pairs, whole(pairs), dtype=dtype).evaluator("search")
        grid = model.tower.grid
        scores[dtype] = evaluate([Mask.identity(grid), *(Mask.suppress(grid, [head], args.operator) for head in grid)])
    fitness = {dtype: np.array([score.fitness for score in found]) for dtype, found in scores.items()}
    changes = {dtype: 100 * (found[1:] - found[0]) for dtype, found in fitness.items()}
    apart = np.abs(changes["float32"] - changes["bfloat16"])
    base, *others = scores["float32"]
    errors = [100 * stats.standard_error(score.hits - base.hits, base.plan) for score in others]
    correlation = np.corrcoef(*(rankdata(found) for found in changes.values()))[0, 1]  # Spearman's
    print(
        json.dumps(
            {
                "machine": machine(),
                "images": len(pairs),
                "heads": len(apart),
                "identity, %": {dtype: round(100 * float(found[0]), 3) for dtype, found in fitness.items()},
                "changes apart, points": {"mean": round(float(apart.mean()), 4), "most": round(float(apart.max()), 4)},
                "their standard error, points, median": round(float(np.median(errors)), 4),
                "rank correlation of the changes": round(float(correlation), 4),
                "same most harmful head": bool(np.argmax(changes["float32"]) == np.argmax(changes["bfloat16"])),
                "ten most harmful heads in common": len(
                    set(np.argsort(-changes["float32"])[:10]) & set(np.argsort(-changes["bfloat16"])[:10])
                ),
            },
            indent=1,
        )
    )


if __name__ == "__main__":
    main()

"""How often a mask is chosen, and how often it is called better, where no mask is: two rates, both have to be small.

Every run invents the hits of an unchanged model and of its finalists on a pick and a test split. Under the null a
finalist changes some images, and what it makes of them is drawn as the unchanged model's hits were: neither is
better. Finalists are nested, as those of a search are: each shares most of the changed images with the one before.

    python benchmarks/null_rates.py --rule best --runs 200

writes the table of docs/metrics.md. `--gain 0.02` makes every finalist better by two points and shows the power.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from headwise.scoring.objectives import Score
from headwise.scoring.recall import KS, retrieval_design
from headwise.scoring.stats import LEVEL, choose, compared

RIGHT = (0.45, 0.55)  # chance of a hit, text → image and image → text
CHANGED = 0.15  # share of the images that a finalist changes
SHARED = 0.8  # of the changed images that the next finalist changes in the same way


def simulate(
    runs: int,
    finalists: int,
    images: tuple[int, int],
    *,
    captions: int | None = 1,
    level: float = LEVEL,
    gain: float = 0.0,
    rule: str = "safe",
    seed: int = 0,
    draws: int = 2000,
) -> dict[str, float]:
    """Rates over runs, fractions.

    Arguments:
        runs: how many.
        finalists: masks that the pick split compares with identity.
        images: of the pick and the test split.
        captions: of every image; None: 1 to 9, drawn for each.
        level: of the choice.
        gain: true gain of every finalist.
        rule: of the choice, `safe` or `best`.
        seed, draws: of the simulation and of the max-T flips.

    Returns:
        `chosen`: a mask was chosen; `claimed`: it was, and the test split calls it better; `best claimed`: the test
        split calls the best finalist better, chosen or not; `one-standard-error`: the rule of old would have chosen.
    """
    rng = np.random.default_rng(seed)
    counted = {"chosen": 0, "claimed": 0, "best claimed": 0, "one-standard-error": 0}
    for run in range(runs):
        pick, test = (_scores(rng, finalists, size, captions, gain) for size in images)
        choice = choose(pick, [0, *range(1, finalists + 1)], level=level, rule=rule, draws=draws, seed=run)
        best = choice.best or 1
        better = [compared(one, test[0], seed=run).claim == "better" for one in (test[choice.index], test[best])]
        counted["chosen"] += choice.index > 0
        counted["claimed"] += choice.index > 0 and better[0]
        counted["best claimed"] += better[1]
        counted["one-standard-error"] += choice.gap[0] > choice.gap_error[0]
    return {name: count / runs for name, count in counted.items()}


def _scores(rng: np.random.Generator, finalists: int, images: int, captions: int | None, gain: float) -> list[Score]:
    """Identity and the finalists on one split."""
    counts = rng.integers(1, 10, images) if captions is None else np.full(images, captions)
    design = retrieval_design(np.repeat(np.arange(images), counts), None, images)

    def hits(rates: Sequence[float]) -> np.ndarray:
        both = [rng.binomial(n, rate, images) for n, rate in zip((counts, 1), rates, strict=True)]
        return len(KS) * np.stack(both, axis=1)  # (N, 2): right at every k or at none

    identity = hits(RIGHT)
    rows, changed, values = [identity], rng.random(images) < CHANGED, identity
    raised = [min(1.0, rate + gain / CHANGED) for rate in RIGHT]
    for number in range(finalists):
        fresh = rng.random(images) < CHANGED
        keep = (rng.random(images) < SHARED) & (number > 0)
        changed = np.where(keep, changed, fresh)
        values = np.where(keep[:, None], values, hits(raised))
        rows.append(np.where(changed[:, None], values, identity))
    return [Score(design.value(row), 0.0, {}, row, {}, design) for row in rows]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=500)
    parser.add_argument("--gain", type=float, default=0.0, help="true gain of every finalist, a fraction")
    parser.add_argument("--rule", default="safe", choices=("safe", "best"))
    parser.add_argument("--level", type=float, default=LEVEL)
    options = parser.parse_args()
    print(
        f"{options.runs:,} runs a row, rule {options.rule}, level {options.level:g}, true gain {100 * options.gain:g} points\n"
    )
    print(
        "| pick / test images | captions an image | finalists | chosen | claimed better | one-standard-error rule alone |"
    )
    print("|---|---|---:|---:|---:|---:|")
    for images in ((60, 90), (300, 450)):
        for captions in (1, None):
            for finalists in (1, 12):
                found = simulate(
                    options.runs,
                    finalists,
                    images,
                    captions=captions,
                    level=options.level,
                    gain=options.gain,
                    rule=options.rule,
                )
                shares = [f"{100 * found[name]:.1f} %" for name in ("chosen", "claimed", "one-standard-error")]
                said = "1 to 9" if captions is None else str(captions)
                print(f"| {images[0]} / {images[1]} | {said} | {finalists} | " + " | ".join(shares) + " |", flush=True)


if __name__ == "__main__":
    main()

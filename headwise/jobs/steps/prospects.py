"""What these splits can show at all, said before the search and in the report; and what to be wary of.

In: a bench, later the choice and the test table. Out: fractions (`scoring/stats/power.py`), and sentences. Nothing is
refused for it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from headwise.edits.mask import Mask
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.results import Picked
from headwise.scoring import stats
from headwise.scoring.chance import chance
from headwise.scoring.objectives import Score

TINY = 100  # images of a split


def power_before(bench: Bench) -> dict[str, float]:
    """The smallest changes that can be shown on pick and test, before anything is measured, fractions."""
    sizes = {name: len(bench.objective(name).design.weights) for name in ("pick", "test")}
    least = stats.least_change(bench.objective("test").design)
    return {
        "pick_expected": stats.expected_change(sizes["pick"]),
        "test_expected": max(least, stats.expected_change(sizes["test"])),
        "test_least": least,
    }


def say_before(bench: Bench) -> None:
    """The power and the warnings that need no score, for the terminal."""
    power = power_before(bench)
    bench.reporter.say(
        f"What these splits can show: about {100 * power['pick_expected']:.2f} points on the "
        f"{len(bench.indices('pick')):,} pick images and {100 * power['test_expected']:.2f} on the "
        f"{len(bench.indices('test')):,} test images (80 % of changes of that size are found; guessed before anything "
        f"is measured); nothing below {100 * power['test_least']:.2f} points can be claimed."
    )
    for warning in warnings(bench, None):
        bench.reporter.say(f"Warning: {warning}")


def power_json(bench: Bench, picked: Picked, table: Sequence[dict]) -> dict[str, object]:
    """As `power_before`, and what the masks that were compared in fact could have shown."""
    errors = {
        "pick": [e for e, f in zip(picked.choice.error, picked.finalists, strict=True) if f.mask.size],
        "test": [row["se"] for row in table if row["what"] != "random heads" and row["size"] and row["se"] is not None],
    }
    found: dict[str, object] = dict(power_before(bench))
    for name, own in errors.items():
        known = [error for error in own if 0 < error < float("inf")]
        found[name] = stats.smallest_change(float(np.median(known))) if known else None
    return found


def warnings(bench: Bench, identity: Score | None, chosen: Mask | None = None, trained: bool = False) -> list[str]:
    """What to be wary of with these data, as sentences.

    Arguments:
        identity: the unchanged model on the search split, once it is known.
        chosen: what the pick split chose, once it is known.
        trained: it prefers trained weights.
    """
    found = []
    for name in ("search", "pick", "test"):
        count = len(bench.indices(name))
        if name == "test" and count < stats.FEWEST_CHANGED:
            found.append(
                f"The test split has {count} images; nothing is claimed of fewer than {stats.FEWEST_CHANGED} changed ones, "
                "so that nothing can be claimed here."
            )
            continue
        if count < TINY:
            found.append(f"The {name} split has {count} images; with fewer than {TINY} little can be shown.")
    pairs = bench.pairs
    if pairs.repeated:
        told = "they count as one text, right with any of these images"
        if pairs.equal_captions == "own":
            told = "each counts as a text of its own, for which the other images are wrong (ties count against it)"
        found.append(
            f"{pairs.repeated:,} captions are word for word those of another image too: {told} (--equal-captions)."
        )
        if len(set(pairs.texts)) == 1:
            found.append("All captions are the same: nothing can be retrieved by them.")
    expected = chance(bench.objective("search"))
    if identity is not None and expected is not None:
        error = stats.standard_error(identity.hits, identity.plan)
        if identity.fitness <= expected + 2 * error:
            found.append(
                f"The unchanged model scores {100 * identity.fitness:.2f} on the search split, where chance is "
                f"{100 * expected:.2f}: it does not know these data, and a gain would mean little."
            )
    moved = [
        *(["chosen edits"] if chosen is not None and not chosen.is_identity else []),
        *(["trained weights"] if trained else []),
    ]
    if moved and not bench.kept and not bench.anchored:
        found.append(
            f"What the {' and '.join(moved)} do to other data was not measured; gains on new data are often paid for on old "
            "ones. Where the model has to stay good, give some of those: --keep-domain PAIRS bounds the loss there, --anchor IMAGES holds "
            "learned edits to them."
        )
    return found

"""After the choice: what was learned and chosen is learned once more, from the images of search and pick split together.

In: a bench, what was searched and picked. Out: `Refit`: edits of the same rung and α, which are tested and handed out in place of
those that the pick split judged. Whether to edit at all, and how far to go, stays its choice: only values are learned anew, from
more images, as scikit-learn's `refit` after a search over settings. Masks are searched, not learned: they stay.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace

from headwise.edits.mask import Mask
from headwise.evaluation.engine import Means
from headwise.jobs.steps.anchoring import how_far
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.keeping import Change, check, passes
from headwise.jobs.steps.learning import learned_values
from headwise.jobs.steps.results import Picked, Refit
from headwise.jobs.steps.searching import Searched
from headwise.jobs.steps.settings import Settings
from headwise.search.values import epoch_cost


def joined(bench: Bench) -> Bench:
    """The bench with the images of search and pick split as its search split."""
    both = tuple(sorted({*bench.splits.search, *bench.splits.pick}))
    key = hashlib.sha256(f"{bench.key} search and pick {both}".encode()).hexdigest()
    return replace(bench, splits=replace(bench.splits, search=both), key=key)


def refit(
    bench: Bench, searched: Sequence[Searched], picked: Picked, settings: Settings, means: Means | None
) -> Refit | None:
    """Learn the chosen edits again; None where they were searched, or nothing was chosen.

    Arguments:
        means: what operator `mean` needs, for the kept domains.
    """
    found = _learned(searched, picked.chosen.mask)
    if found is None:
        return None
    rung, alpha = found
    whole, old = joined(bench), bench.anchored
    share = len(whole.splits.search) / len(bench.splits.search)
    epochs = settings.values.epochs
    cost = share * epochs * epoch_cost(settings.values, bool(old))
    with bench.reporter.stage(f"Learning {rung} again, from search and pick split", cost, "FFE") as advance:
        learned = learned_values(whole, rung, settings, epochs, lambda spent: advance(share * spent), "-refit")
    mask = learned.mask.shrunk(alpha)
    spent = share * (learned.spent + 1.0)  # the moments are taken in a pass
    kept: tuple[Change, ...] = ()
    moved = None
    if old:
        far = how_far(old, bench.tower, bench.layout, [mask], means, bench.reporter)
        (moved,), spent = far.means, spent + far.ffe
    if bench.kept:
        checked = check(bench, [mask], means)
        kept, spent = checked.changes[0], spent + checked.ffe
    taken = not mask.is_identity and all(passes(one, settings.max_loss) for one in kept)
    return Refit(mask, rung, alpha, len(whole.splits.search), kept, taken, spent, moved)


def _learned(searched: Sequence[Searched], mask: Mask) -> tuple[str, float] | None:
    """The rung and α of a mask; None where it was not learned."""
    for strategy in (strategy for one in searched for strategy in one.strategies):
        for alpha, found in zip(strategy.alphas, strategy.masks, strict=False):
            if found.mask.key == mask.key:
                return strategy.name, alpha
    return None

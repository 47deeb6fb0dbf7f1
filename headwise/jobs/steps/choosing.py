"""After the searches: the pick split chooses, the test split is read once.

In: what the searches found. Out: `Picked`, the finalists with the choice among them; then the rows of the test table.
The rule itself is `scoring/stats/choice.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import asdict
from itertools import zip_longest

import numpy as np

from headwise.edits.edit import unbound
from headwise.edits.mask import Mask
from headwise.evaluation.engine import Means
from headwise.jobs.steps.anchoring import how_far
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.budget import SPARE
from headwise.jobs.steps.keeping import check
from headwise.jobs.steps.progress import metered
from headwise.jobs.steps.results import BEFORE_REFIT, Finalist, Guard, Picked
from headwise.jobs.steps.searching import Searched
from headwise.jobs.steps.settings import Settings
from headwise.scoring import stats
from headwise.search.contract import Found, best_of
from headwise.search.controls import controls


def pick(bench: Bench, searched: Sequence[Searched], settings: Settings) -> Picked:
    """The pick split decides between identity and the searches' best masks, by `stats.choose`.

    Masks that lose too much on a kept domain never get there; more of them are tried, so that some remain.
    """
    if bench.kept:
        spare = candidates(searched, SPARE, settings.searching)[: SPARE * settings.finalists]
        best, guard = guarded(bench, spare, settings)
    else:
        best, guard = candidates(searched, 1, settings.searching), None
    best = best[: settings.finalists]
    identity = Mask.identity(bench.tower.grid)
    evaluate = bench.evaluator("pick")
    evaluate.means = _means(bench, settings.searching)
    with metered(bench.reporter, evaluate, "Finalists on the pick split", None):
        scores = evaluate([identity, *(found.mask for _, found in best)])
    finalists = [Finalist(identity, "identity", searched[0].start.identity, scores[0])]
    for (found_by, found), score in zip(best, scores[1:], strict=True):
        finalists.append(Finalist(found.mask, found_by, found.score, score))
    choice = stats.choose(
        [f.pick for f in finalists],
        [f.mask.values for f in finalists],
        level=settings.level,
        rule=settings.choose,
        seed=settings.seed,
    )
    moved = None
    if bench.anchored:
        everyone = [finalist.mask for finalist in finalists]
        moved = how_far(bench.anchored, bench.tower, bench.layout, everyone, evaluate.means, bench.reporter)
    return Picked(tuple(finalists), choice, guard, evaluate.spent, moved)


def candidates(searched: Sequence[Searched], each: int, edits: Collection[str]) -> list[tuple[str, Found]]:
    """What the searches found, with what found it: every search's best first, then every search's second, and so on.

    So each has places of its own: a nested chain of one search cannot take all of them. Of a search at most `each`
    masks of these edits and of one size take part; of a mask that several found, the first has the place.
    """
    chains: list[list[tuple[str, Found]]] = []
    for result in searched:
        own: dict[str, list[Found]] = {}
        for found_by, found in result.candidates():
            own.setdefault(found_by, []).append(found)
        chains += [[(name, found) for found in of_every_size(masks, each, edits)] for name, masks in own.items()]
    seen: set[str] = set()
    best = []
    for turn in zip_longest(*chains):
        for found_by, found in sorted((item for item in turn if item is not None), key=lambda item: item[1].order):
            if found.mask.key not in seen:
                seen.add(found.mask.key)
                best.append((found_by, found))
    return best


def of_every_size(found: Sequence[Found], each: int, edits: Collection[str]) -> list[Found]:
    """The masks, best first, at most `each` of one size; of learned edits, which all change every head, all.

    Arguments:
        edits: those that were searched with, as texts; a mask with another was learned.
    """
    places: Counter[int] = Counter()
    best = []
    for item in sorted(found, key=lambda item: item.order):
        if places[item.mask.size] < each or not has_only(item.mask, edits):
            places[item.mask.size] += 1
            best.append(item)
    return best


def has_only(mask: Mask, edits: Collection[str]) -> bool:
    """Whether every edited head has one of these edits, as texts: what a search with them makes, and no learning."""
    return all(str(edit) in edits for edit in mask.edits.values())


def guarded(bench: Bench, found: list[tuple[str, Found]], settings: Settings) -> tuple[list[tuple[str, Found]], Guard]:
    """Those of the masks that lose at most `settings.max_loss` points on every kept domain's pick split."""
    checked = check(bench, [item.mask for _, item in found], _means(bench, settings.searching))
    passed = [checked.passes(i, settings.max_loss) for i in range(len(found))]
    rows = [
        {
            "mask": str(item.mask),
            "found_by": found_by,
            "size": item.mask.size,
            "delta": [each.delta for each in changes],
            "se": [each.error for each in changes],
            "passed": ok,
        }
        for (found_by, item), changes, ok in zip(found, checked.changes, passed, strict=True)
    ]
    return [item for item, ok in zip(found, passed, strict=True) if ok], Guard(rows, checked.ffe)


def read_test(
    bench: Bench, searched: Sequence[Searched], picked: Picked, settings: Settings, again: Mask | None = None
) -> dict:
    """Read the test split once: identity, random heads, each search's best mask and the chosen mask.

    Arguments:
        again: what was chosen, learned again: then that is the chosen one, and the other is shown beside it.
    """
    chosen = picked.chosen.mask if again is None else again
    singles = [found for result in searched for found in result.start.singles]
    bests = {"best single head": best_of(singles)} if singles else {}
    for name in dict.fromkeys(s.name for result in searched for s in result.strategies):
        bests[name] = best_of(s.best for result in searched for s in result.strategies if s.name == name)
    # with no chosen heads the controls still answer what as many heads as the searches' best mask do by chance
    matched = chosen if chosen.size else max((f.mask for f in bests.values()), key=lambda mask: mask.size)
    random_masks = controls(matched, settings.controls, settings.seed) if matched.size else ()
    identity = Mask.identity(bench.tower.grid)
    evaluate = bench.evaluator("test")
    evaluate.means = _means(bench, settings.searching)
    everything = [identity, picked.chosen.mask, chosen, *random_masks, *(found.mask for found in bests.values())]
    with metered(bench.reporter, evaluate, "Test split, read once", evaluate.cost(everything)):
        evaluate(everything)
    base = evaluate([identity])[0]

    def row(what: str, masks: Sequence[Mask], size: int) -> dict:
        scores = evaluate(masks)
        metrics = {name: float(np.mean([s.metrics[name] for s in scores])) for name in base.metrics}
        return {
            "what": what,
            "mask": str(masks[0]) if len(masks) == 1 else None,
            "size": size,
            "count": len(masks),
            "metrics": metrics,
            **stats.compared(scores, base, seed=settings.seed).json(),
        }

    table = [row("identity", [identity], 0)]
    if random_masks:
        table.append(row("random heads", random_masks, matched.size))
    table += [row(name, [found.mask], found.mask.size) for name, found in bests.items() if found.mask.size]
    if again is not None:
        table.append(row(BEFORE_REFIT, [picked.chosen.mask], picked.chosen.mask.size))
    table.append(row("chosen", [chosen], chosen.size))
    after = evaluate([chosen])[0]
    change = None
    if "text_retrieval" in base.ranks:
        change = asdict(stats.mcnemar(base.ranks["text_retrieval"], after.ranks["text_retrieval"]))
    return {"table": table, "mcnemar": change, "ffe": evaluate.spent}


def _means(bench: Bench, operators: Sequence[str]) -> Means | None:
    return bench.means if unbound(operators) else None


def remember_test(bench: Bench, mask: Mask, beside: str = "") -> int:
    """For how many different choices this study has read its test split; more than one is not honest.

    Arguments:
        mask: what was chosen now.
        beside: the key of trained weights that are shown together with it.
    """
    if bench.study is None:
        return 1
    seen = bench.study.read("test_read_for", [])
    assert isinstance(seen, list)
    if mask.key + beside not in seen:
        seen = [*seen, mask.key + beside]
        bench.study.note("test_read_for", seen)
    return len(seen)

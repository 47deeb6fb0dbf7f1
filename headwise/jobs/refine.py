"""The main job: split → sweep → search → pick → test → artefacts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from headwise import stats
from headwise.engine import with_means
from headwise.evaluator import Evaluator
from headwise.jobs.bench import Bench
from headwise.jobs.settings import Settings
from headwise.mask import Mask
from headwise.objectives import Score
from headwise.search.contract import Found, best_of
from headwise.search.controls import controls
from headwise.search.genetic import Genetic, genetic
from headwise.search.greedy import Greedy, greedy
from headwise.search.sweep import Sweep, sweep

TEST_ROWS = ("best single head", "greedy", "genetic")


@dataclass(frozen=True)
class Searched:
    """What the searches of one operator found on the search split."""

    sweep: Sweep
    greedy: Greedy | None
    genetic: Genetic | None

    def candidates(self) -> Iterator[tuple[str, Found]]:
        """Every mask worth comparing on the pick split, and which search found it."""
        yield "best single head", self.sweep.best
        if self.greedy:
            yield from (("greedy", found) for found in self.greedy.path if found.mask.size)
        if self.genetic:
            yield from (("genetic", found) for found in self.genetic.front if found.mask.size)


@dataclass(frozen=True)
class Finalist:
    """A mask that the pick split judges."""

    mask: Mask
    found_by: str
    search: Score
    pick: Score


@dataclass(frozen=True)
class Picked:
    """All finalists, identity first, and the chosen one."""

    finalists: tuple[Finalist, ...]
    chosen: Finalist

    @property
    def identity(self) -> Finalist:
        return self.finalists[0]


def search(bench: Bench, evaluate: Evaluator, operator: str, settings: Settings) -> Searched:
    """Sweep and every strategy, with one operator, on the search split."""
    grid = bench.tower.grid
    with metered(
        bench, evaluate, f"Sweep ({operator})", evaluate.cost([Mask.suppress(grid, [h], operator) for h in grid])
    ):
        swept = sweep(evaluate, grid, operator)
    grown, bred = None, None
    if "greedy" in settings.strategies:
        with metered(bench, evaluate, f"Greedy ({operator})", None):
            grown = greedy(evaluate, grid, operator, swept.ranking, width=settings.width, max_heads=settings.max_heads)
    if "genetic" in settings.strategies:
        options = replace(settings.genetic, seed=settings.seed, max_heads=settings.max_heads)
        with metered(bench, evaluate, f"AAT-GA ({operator})", options.budget):
            seeds = [found.mask for found in grown.path] if grown else []
            bred = genetic(evaluate, grid, operator, options, ranking=swept.ranking, seeds=seeds)
    return Searched(swept, grown, bred)


@contextmanager
def metered(bench: Bench, evaluate: Evaluator, title: str, total: float | None) -> Iterator[None]:
    """Shows the evaluator's work as one stage."""
    with bench.reporter.stage(title, total, "FFE") as advance:
        evaluate.progress = advance
        try:
            yield
        finally:
            evaluate.progress = None


def pick(bench: Bench, searched: Sequence[Searched], settings: Settings) -> Picked:
    """The pick split decides between identity and the searches' best masks, by the one-standard-error rule."""
    named: dict[tuple[str, int], tuple[str, Found]] = {}  # the best of every operator and size
    for result in searched:
        for found_by, found in result.candidates():
            place = (found.mask.operator, found.mask.size)
            if place not in named or found.order < named[place][1].order:
                named[place] = (found_by, found)
    best = sorted(named.values(), key=lambda item: item[1].order)[: settings.finalists]
    identity = Mask.identity(bench.tower.grid)
    evaluate = bench.evaluator("pick")
    evaluate.means = _means(bench, settings.operators)
    with metered(bench, evaluate, "Finalists on the pick split", None):
        scores = evaluate([identity, *(found.mask for _, found in best)])
    finalists = [Finalist(identity, "identity", searched[0].sweep.identity, scores[0])]
    for (found_by, found), score in zip(best, scores[1:], strict=True):
        finalists.append(Finalist(found.mask, found_by, found.score, score))
    choice = stats.choose(
        [f.pick.units for f in finalists], [f.mask.size for f in finalists], [f.pick.loss for f in finalists]
    )
    return Picked(tuple(finalists), finalists[choice.index])


def test(bench: Bench, searched: Sequence[Searched], picked: Picked, settings: Settings) -> dict:
    """Read the test split once: identity, random heads, each search's best mask and the chosen mask."""
    chosen = picked.chosen.mask
    bests = {"best single head": best_of(result.sweep.best for result in searched)}
    for name, results in (
        ("greedy", [r.greedy.best for r in searched if r.greedy]),
        ("genetic", [r.genetic.best for r in searched if r.genetic]),
    ):
        if results:
            bests[name] = best_of(results)
    # with no chosen heads the controls still answer what as many heads as the searches' best mask do by chance
    matched = chosen if chosen.size else max((f.mask for f in bests.values()), key=lambda mask: mask.size)
    random_masks = controls(matched, settings.controls, settings.seed) if matched.size else ()
    identity = Mask.identity(bench.tower.grid)
    evaluate = bench.evaluator("test")
    evaluate.means = _means(bench, settings.operators)
    everything = [identity, chosen, *random_masks, *(found.mask for found in bests.values())]
    with metered(bench, evaluate, "Test split, read once", evaluate.cost(everything)):
        evaluate(everything)
    base = evaluate([identity])[0]

    def row(what: str, masks: Sequence[Mask], size: int) -> dict:
        scores = evaluate(masks)
        units = np.mean([score.units for score in scores], axis=0, dtype=np.float64)  # (N)
        difference = units - base.units
        interval = stats.paired_bootstrap(difference, seed=settings.seed)
        metrics = {name: float(np.mean([s.metrics[name] for s in scores])) for name in base.metrics}
        return {
            "what": what,
            "mask": str(masks[0]) if len(masks) == 1 else None,
            "size": size,
            "count": len(masks),
            "metrics": metrics,
            "delta": metrics["mean_recall"] - base.metrics["mean_recall"],
            "interval": [interval.low, interval.high],
            "p": stats.sign_flip(difference, seed=settings.seed),
        }

    table = [row("identity", [identity], 0)]
    if random_masks:
        table.append(row("random heads", random_masks, matched.size))
    table += [row(name, [found.mask], found.mask.size) for name, found in bests.items() if found.mask.size]
    table.append(row("chosen", [chosen], chosen.size))
    after = evaluate([chosen])[0]
    change = stats.mcnemar(base.ranks["text_retrieval"], after.ranks["text_retrieval"])
    return {
        "table": table,
        "mcnemar": {"gained": change.gained, "lost": change.lost, "p": change.p},
        "ffe": evaluate.spent,
    }


def _means(bench: Bench, operators: Sequence[str]):
    return bench.means if "mean" in operators else None


def find(bench: Bench, settings: Settings) -> tuple[Mask, dict]:
    """The main job on a prepared bench.

    Arguments:
        bench: from `headwise.jobs.bench.prepare`.
        settings: how to search and select.

    Returns:
        The chosen mask, carrying its provenance (identity when nothing beats it), and the results as plain
        JSON values (CONTRACT: `docs/results-format.md`). Equal inputs give equal results, also after a resume.

    Raises:
        HeadwiseError: an operator that the tower cannot use, or a study that cannot be written.
    """
    for operator in settings.operators:
        bench.tower.check_operator(operator)
    evaluate = bench.evaluator("search")
    evaluate.means = _means(bench, settings.operators)
    searched = [search(bench, evaluate, operator, settings) for operator in settings.operators]
    picked = pick(bench, searched, settings)
    reads = _remember_test(bench, picked.chosen.mask)
    tested = test(bench, searched, picked, settings)
    chosen = picked.chosen
    results = _results(bench, settings, evaluate.spent, searched, picked, tested, reads)
    mask = with_means(chosen.mask, bench.means) if chosen.mask.operator == "mean" else chosen.mask
    return mask.with_provenance(
        base_model=bench.model.name,
        weights_hash=bench.model.tower.weights_hash,
        found_by=chosen.found_by,
        data={"source": bench.pairs.name, "hash": bench.pairs.hash, "split": bench.splits.hash},
        settings=results["settings"],
        scores={"search": chosen.search.metrics, "pick": chosen.pick.metrics, "test": tested["table"][-1]},
    ), results


def _remember_test(bench: Bench, mask: Mask) -> int:
    """For how many different chosen masks this study has read its test split; more than one is not honest."""
    if bench.study is None:
        return 1
    seen = bench.study.read("test_read_for", [])
    assert isinstance(seen, list)
    if str(mask) not in seen:
        seen = [*seen, str(mask)]
        bench.study.note("test_read_for", seen)
    return len(seen)


def _results(
    bench: Bench,
    settings: Settings,
    search_ffe: float,
    searched: Sequence[Searched],
    picked: Picked,
    tested: dict,
    reads: int,
) -> dict:
    from headwise import __version__

    pairs = bench.pairs
    chosen, identity = picked.chosen, picked.identity
    search_delta = chosen.search.fitness - identity.search.fitness
    test_delta = tested["table"][-1]["delta"]

    def part(name: str) -> dict[str, int]:
        subset = bench.indices(name)
        return {"images": len(subset), "captions": sum(len(pairs.captions[i]) for i in subset)}

    return {
        "format": 1,
        "headwise_version": __version__,
        "model": bench.model_json(),
        "data": {
            "source": pairs.name,
            "hash": pairs.hash,
            "images": len(pairs),
            "captions": len(pairs.texts),
            "split_how": bench.splits.how,
            "split_hash": bench.splits.hash,
            "splits": {name: part(name) for name in ("search", "pick", "test")},
            "skipped": pairs.skipped,
        },
        "settings": {
            **settings.as_json(),
            "dtype": bench.layout.dtype,
            "device": bench.layout.device,
            "chunk": bench.layout.chunk,
            "objective": bench.objective("search").spec,
        },
        "sweep": [sweep_json(result.sweep, settings.seed) for result in searched],
        "finalists": [_finalist(f, identity, f is chosen) for f in picked.finalists],
        "chosen": {
            "mask": str(chosen.mask),
            "found_by": chosen.found_by,
            "size": chosen.mask.size,
            "operator": chosen.mask.operator,
            "heads": [str(head) for head in chosen.mask.heads],
            "gates": {str(head): chosen.mask.gate(head) for head in chosen.mask.heads},
        },
        "test": tested["table"],
        "test_reads": reads,
        "gap": {"search_delta": search_delta, "test_delta": test_delta, "gap": search_delta - test_delta},
        "mcnemar_i2t_r1": tested["mcnemar"],
        "ffe": {
            "sweep": _ffe_of_sweeps(bench, searched),
            "greedy": sum(r.greedy.ffe for r in searched if r.greedy),
            "genetic": sum(r.genetic.ffe for r in searched if r.genetic),
            "search": search_ffe,
            "test": tested["ffe"],
        },
    }


def _ffe_of_sweeps(bench: Bench, searched: Sequence[Searched]) -> float:
    from headwise.engine import ffe

    grid = bench.tower.grid
    return sum(ffe(bench.tower, [Mask.identity(grid), *(e.found.mask for e in r.sweep.heads)]) for r in searched)


def sweep_json(swept: Sweep, seed: int) -> dict:
    """A sweep as plain JSON values, with max-T p over all its heads."""
    differences = np.stack([e.found.score.units - swept.identity.units for e in swept.heads])  # (heads, N)
    p = stats.max_t(differences, seed=seed)
    return {
        "operator": swept.operator,
        "identity": swept.identity.metrics,
        "heads": [
            {"head": str(e.head), "delta": e.delta, "loss_delta": e.loss_delta, "p_max_t": float(p[i])}
            for i, e in enumerate(swept.heads)
        ],
    }


def _finalist(finalist: Finalist, identity: Finalist, chosen: bool) -> dict:
    difference = finalist.pick.units.astype(np.float64) - identity.pick.units
    return {
        "mask": str(finalist.mask),
        "found_by": finalist.found_by,
        "size": finalist.mask.size,
        "search": finalist.search.metrics,
        "pick": finalist.pick.metrics,
        "pick_delta": finalist.pick.fitness - identity.pick.fitness,
        "pick_se": stats.paired_error(difference),
        "chosen": chosen,
    }

"""front: a search for the masks of which none is better in both, score and price (NSGA-II).

In: a model, pairs, perhaps kept domains. Out: the front on the search split, its points on the pick split, and, where a
limit is given, one mask that is tested once. The search is `search/fronts.py`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from headwise.data.splits import check_split_by
from headwise.edits.edit import unbound
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import with_means
from headwise.files import put_aside, write_files
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.choosing import remember_test
from headwise.jobs.steps.clean import seen_by
from headwise.jobs.steps.findings import Findings, Picture
from headwise.jobs.steps.front_settings import FrontSettings, check_front_budget, front_budget, front_stages
from headwise.jobs.steps.keeping import Change, change, check, evaluators, passes, read_kept_tests, test_json, with_kept
from headwise.jobs.steps.opening import (
    Machine,
    ModelLike,
    PairsLike,
    check_folder,
    dump,
    kept_benches,
    load_model,
    prepared,
    read_pairs,
    split_for,
)
from headwise.jobs.steps.planning import plan_json, plan_text, timing
from headwise.jobs.steps.progress import Reporter, metered, usual
from headwise.jobs.steps.prospects import say_before
from headwise.jobs.steps.reads import remember_reads
from headwise.jobs.steps.searching import search
from headwise.jobs.steps.settings import check_model
from headwise.jobs.steps.tasks import Goal
from headwise.scoring import stats
from headwise.scoring.objectives import Score
from headwise.search.contract import ROUNDING
from headwise.search.fronts import Front, Point, check_installed, domain_front, size_front
from headwise.towers.probes import described

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Fronted:
    """What `front` found.

    Arguments:
        mask: the chosen mask; None where none was asked for.
        results: everything that was measured, as in `front.json`.
        folder: where the artefacts are; None when none were asked for.
    """

    mask: Mask | None
    results: Findings
    folder: Path | None

    def summary(self) -> str:
        """What was chosen, and what the test split says of it."""
        return self.results.summary()

    def to_pandas(self) -> pandas.DataFrame:
        """The points: heads, and changes as fractions on the search and the pick split."""
        return self.results.to_pandas()

    def plot(self) -> Picture:
        """The front."""
        return self.results.plot()

    def __repr__(self) -> str:
        return f"Fronted({self.mask!r}, folder={None if self.folder is None else str(self.folder)!r})"

    def _repr_html_(self) -> str:
        return self.results._repr_html_()


@dataclass(frozen=True)
class _Picked:
    """A point of the front on the pick splits: its score, what it gains, what it does to each kept domain."""

    point: Point
    score: Score
    gain: Change
    kept: tuple[Change, ...]


def front(
    model: ModelLike,
    pairs: PairsLike,
    out: str | Path | None = None,
    *,
    keep: Sequence[PairsLike] = (),
    settings: FrontSettings | None = None,
    goal: Goal | None = None,
    machine: Machine | None = None,
    split_by: str = "auto",
    dry_run: bool = False,
    reporter: Reporter | None = None,
    **columns: object,
) -> Fronted:
    """The masks of which none is better in both: score and number of heads, or score here and loss elsewhere.

    Arguments:
        keep: pairs of other domains. With them the front trades the score on `pairs` against the change on the
            kept domain that suffers most; without them, against the number of suppressed heads.
        settings: how to search, and which mask to choose.
        out: a folder for `front.md`, `front.json`, `front.png`, the studies and, for a chosen mask, `mask/`.
        dry_run: measure how fast the model runs here and say what each stage would cost; nothing is searched or
            written, and the results are the plan (`planning.plan_json`).
        others: as for `refine`.

    Raises:
        HeadwiseError: pymoo is not installed, bad input of any kind, or `max_loss` without kept domains.
    """
    from headwise.reports.front import front_png, front_text

    check_installed()
    began = time.monotonic()
    reporter, settings, machine = reporter or usual(), settings or FrontSettings(), machine or Machine()
    if settings.max_loss is not None and not keep:
        raise HeadwiseError("--max-loss limits what a kept domain may lose; give one with --keep-domain.")
    check_split_by(split_by)
    check_front_budget(settings, 1.0 + len(keep))
    folder = Path(out) if out is not None else None
    if folder is not None:
        check_folder(folder)
    if dry_run:
        folder = None
    ready = load_model(model, machine)
    check_model(ready, settings.searching)
    given = read_pairs(pairs, reporter, columns)
    splits = split_for(given, goal, split_by, settings.seed)
    reporter.say(f"{given.name}: {len(given):,} images, {given.text_count:,} captions; split {splits.how}.")
    bench = prepared(ready, given, splits, folder and folder / "study.sqlite", goal, machine, reporter)
    domains = kept_benches(ready, keep, given, folder, settings.seed, machine, reporter, split_by, columns)
    bench = with_kept(bench, domains)
    if dry_run:
        say_before(bench)
        speed = timing(bench)
        budget = front_budget(bench, settings, speed.ffe, began)
        plan = plan_json(front_stages(bench, settings, budget, speed), budget.total, budget.minutes)
        return Fronted(None, Findings(plan), None)
    mask, results = trade(bench, settings, began)
    if folder is not None:
        if mask is not None:
            mask.save_pretrained(folder / "mask")
        elif former := put_aside(folder / "mask"):
            reporter.say(former)
        files = {"front.png": front_png(results), "front.md": front_text(results), "front.json": dump(results)}
        write_files(folder, files)
    return Fronted(mask, Findings(results), folder)


def trade(bench: Bench, settings: FrontSettings, began: float | None = None) -> tuple[Mask | None, dict]:
    """The job on a prepared bench: the chosen mask with its provenance, and the results as plain JSON values.

    Arguments:
        bench, settings: what to work on, and how.
        began: `time.monotonic()` from when minutes count; by default now.
    """
    from headwise.version import __version__

    say_before(bench)
    operator, grid = settings.operator, bench.tower.grid
    bench.tower.check_edit(operator)
    means = bench.means if unbound([operator]) else None
    wanted = settings.searching
    began = time.monotonic() if began is None else began
    speed = timing(bench)
    budget = front_budget(bench, settings, speed.ffe, began)
    plan = front_stages(bench, settings, budget, speed)
    bench.reporter.say(plan_text(plan, f"{budget.total:.1f} FFE", budget.minutes))
    evaluate = budget.watch(bench.evaluator("search"))
    evaluate.means = means
    start = search(bench, evaluate, operator, wanted, budget.share(2))
    before = evaluate.spent
    options = {
        "ranking": start.start.ranking,
        "heads": bench.tower.able(operator),
        "seeds": [found.mask for strategy in start.strategies for found in strategy.masks],
    }
    with metered(bench.reporter, evaluate, f"NSGA-II ({operator})", None):
        if bench.kept:
            keep = [budget.watch(each) for each in evaluators(bench, "search", means)]
            found = domain_front(evaluate, keep, grid, operator, settings.genetic, left=budget.share(1), **options)
        else:
            found = size_front(evaluate, grid, operator, settings.genetic, left=budget.share(1), **options)
    judge = budget.watch(bench.evaluator("pick"))
    judge.means = means
    points = _paid(found.points, budget.left() / (1 + len(bench.kept)))
    masks = [point.mask for point in points]
    with metered(bench.reporter, judge, "The front on the pick split", None):
        base, *scores = judge([Mask.identity(grid), *masks])
    checked = check(bench, masks, means)
    changes = checked.changes if bench.kept else ((),) * len(masks)
    picked = [
        _Picked(point, score, change(score, base), kept)
        for point, score, kept in zip(points, scores, changes, strict=True)
    ]
    chosen = _choose(picked, found.identity, base, settings, bool(bench.kept)) if settings.chooses else None
    ffe = {"sweep and greedy": before, "front": found.ffe, "pick": judge.spent + checked.ffe}
    tested = _test(bench, chosen.point.mask, means, settings) if chosen else None
    results = {
        "format": 1,
        "headwise_version": __version__,
        "kind": "domains" if bench.kept else "size",
        "model": bench.model_json(),
        "data": bench.data_json(),
        "kept": [{"data": domain.data_json(), "fitness": domain.task.fitness} for domain in bench.kept],
        "settings": {
            **json.loads(json.dumps(asdict(settings))),
            "dtype": bench.layout.dtype,
            "device": bench.layout.device,
            "chunk": bench.layout.chunk,
            "objective": bench.objective("search").spec,
        },
        "identity": {"search": found.identity.scores[0].metrics, "pick": base.metrics},
        "points": [_row(item, found, item is chosen) for item in picked],
        "chosen": tested,
        "evaluated": found.evaluated,
        "why": found.why,
        "ffe": {**ffe, **({"test": tested["ffe"]} if tested else {})},
    }
    if chosen is None or tested is None:
        return None, results
    mask = with_means(chosen.point.mask, means) if means is not None else chosen.point.mask
    return mask.with_provenance(
        base_model=bench.model.name,
        weights_hash=bench.model.tower.weights_hash,
        functions=described(bench.model),
        **({"overrides": bench.model.overrides.given} if bench.model.overrides.given else {}),
        found_by="front",
        data={"source": bench.pairs.name, "hash": bench.pairs.hash, "split": bench.splits.hash},
        seen=seen_by(bench, kept_searched=True),
        kept=[domain.pairs.name for domain in bench.kept],
        settings=results["settings"],
        scores={"search": chosen.point.scores[0].metrics, "pick": chosen.score.metrics, "test": tested["test"]},
    ), results


def _paid(points: Sequence[Point], left: float) -> list[Point]:
    """Points that the rest of the budget judges on the pick splits, each at most one FFE beside identity's; evenly
    chosen of all, both ends among them."""
    count = max(1, int(left + ROUNDING) - 1)
    if len(points) <= count:
        return list(points)
    places = [round(i * (len(points) - 1) / max(1, count - 1)) for i in range(count)]
    return [points[i] for i in dict.fromkeys(places)]


def _choose(picked: Sequence[_Picked], identity: Point, base: Score, settings: FrontSettings, domains: bool) -> _Picked:
    """By size: the front's own point. Among domains: `stats.choose` on the pick split."""
    stay = next(
        (item for item in picked if item.point.mask.is_identity),
        _Picked(identity, base, Change(0.0, 0.0), tuple(Change(0.0, 0.0) for _ in identity.scores[1:])),
    )
    if not domains:
        return max(picked, key=lambda item: item.point.mask.size, default=stay)
    limit = 100.0 if settings.max_loss is None else settings.max_loss
    allowed = [item for item in picked if all(passes(each, limit) for each in item.kept)]
    allowed = [stay, *(item for item in allowed if item.point.mask.size)]
    choice = stats.choose(
        [item.score for item in allowed],
        [item.point.mask.size for item in allowed],
        level=settings.level,
        seed=settings.seed,
    )
    return allowed[choice.index]


def _test(bench: Bench, mask: Mask, means, settings: FrontSettings) -> dict:
    """The chosen mask on the test splits, read here and nowhere else."""
    reads = remember_test(bench, mask)
    evaluate = bench.evaluator("test")
    evaluate.means = means
    identity = Mask.identity(bench.tower.grid)
    with metered(bench.reporter, evaluate, "Test split, read once", evaluate.cost([identity, mask])):
        before, after = evaluate([identity, mask])
    kept = read_kept_tests(bench, mask, means, settings.seed)
    return {
        "mask": str(mask),
        "size": mask.size,
        "heads": [str(head) for head in mask.heads],
        "test": test_json(before, after, settings.seed),
        "kept": kept.domains,
        "test_reads": reads,
        "test_reads_cache": remember_reads(bench, "test", [mask]),
        "ffe": evaluate.spent + kept.ffe,
    }


def _row(item: _Picked, found: Front, chosen: bool) -> dict:
    """A point as plain JSON values; changes are against identity."""
    bases = found.identity.scores
    search = [score.fitness - base.fitness for score, base in zip(item.point.scores, bases, strict=True)]
    return {
        "mask": str(item.point.mask),
        "size": item.point.mask.size,
        "search": {"fitness": item.point.scores[0].fitness, "delta": search[0], "kept": search[1:]},
        "pick": {
            "fitness": item.score.fitness,
            "delta": item.gain.delta,
            "se": item.gain.error,
            "kept": [each.delta for each in item.kept],
            "kept_se": [each.error for each in item.kept],
        },
        "chosen": chosen,
    }

"""compare: all searches, learned rungs and baselines on the same splits, in one table.

In: a model, pairs, perhaps other data. Out: one row per method: change on the test split with its interval, cost, what
it does to the other data. The runs themselves are in `steps/contest.py` and `steps/trained.py`, the rows in
`steps/standings.py`.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headwise.baselines import BASELINES, check
from headwise.data.splits import check_split_by, evaluation_part
from headwise.errors import HeadwiseError
from headwise.files import write_files
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.budget import check_budget, total_of
from headwise.jobs.steps.clean import apart
from headwise.jobs.steps.contest import captions_or_none, rate_of, run_learned, run_searches
from headwise.jobs.steps.contest_plan import contest_stages
from headwise.jobs.steps.contest_settings import NEED_CAPTIONS, CompareSettings
from headwise.jobs.steps.findings import Findings
from headwise.jobs.steps.opening import (
    Machine,
    ModelLike,
    PairsLike,
    check_folder,
    dump,
    load_model,
    prepared,
    read_pairs,
    split_for,
    whole,
)
from headwise.jobs.steps.pace import epochs_within, paced
from headwise.jobs.steps.planning import plan_json, plan_text, timing
from headwise.jobs.steps.progress import Reporter, usual
from headwise.jobs.steps.prospects import say_before
from headwise.jobs.steps.reads import remember_reads
from headwise.jobs.steps.settings import check_model, saving_memory
from headwise.jobs.steps.standings import Domain, Standings
from headwise.jobs.steps.tasks import Goal
from headwise.jobs.steps.trained import Place, run_baseline, write_baseline
from headwise.scoring.objectives import Retrieval
from headwise.search.gradient import GATED


def compare(
    model: ModelLike,
    pairs: PairsLike,
    out: str | Path,
    *,
    settings: CompareSettings | None = None,
    keep: Sequence[PairsLike] = (),
    goal: Goal | None = None,
    machine: Machine | None = None,
    split_by: str = "auto",
    dry_run: bool = False,
    reporter: Reporter | None = None,
    **columns: object,
) -> Findings:
    """Run every search, every learned rung and every baseline on the same splits and write one table.

    Arguments:
        model, pairs, goal, machine, split_by, reporter, columns: as for `refine`. The split is that of
            `settings.search.seed`; repeats of the strategies have seeds of their own.
        out: folder for `compare.md`, `compare.json`, `compare.png` and the study; the same call continues there.
        settings: what to compare, and which baselines to write as model folders (`baselines/lora/`).
        dry_run: measure how fast the model runs here and return what each method would cost (`planning.plan_json`);
            nothing is searched or written.
        keep: pairs of other domains; what every change does to them (their test images, where they have splits).

    Returns:
        What `compare.json` holds: docs/results-format.md.

    Raises:
        HeadwiseError: bad input of any kind; the message says what to do.
    """
    from headwise.reports.card import tuned_card
    from headwise.reports.compare import comparison_png, comparison_text

    began = time.monotonic()
    reporter, settings, folder = reporter or usual(), settings or CompareSettings(), Path(out)
    check_split_by(split_by)
    check_budget(replace(settings.search, operators=settings.search.operators[:1]), 0)
    check_folder(folder)
    machine = machine or Machine()
    ready = load_model(model, machine)
    check_model(ready, settings.search)
    settings = replace(settings, search=saving_memory(ready, settings.search))
    given = read_pairs(pairs, reporter, columns)
    splits = split_for(given, goal, split_by, settings.search.seed)
    study = None if dry_run else folder / "study.sqlite"
    bench = prepared(ready, given, splits, study, goal, machine, reporter)
    domains, same = [], replace(machine, dtype=bench.layout.dtype)  # their scores go into the same study
    for source in keep:
        rule = {**columns, "equal_captions": given.equal_captions}
        other = apart(evaluation_part(read_pairs(source, reporter, rule, beside=True)), given, reporter)
        domains.append(Domain(other, prepared(ready, other, whole(other), None, None, same, reporter)))
    say_before(bench)
    settings, left_out = _possible(bench, domains, settings)
    speed = timing(bench)
    settings, pace = paced(bench, settings, speed.ffe, began)
    each = max(total_of(bench, replace(settings.search, operators=(o,))) for o in settings.search.operators)
    found = contest_stages(bench, [domain.bench for domain in domains], settings, speed)
    if dry_run:
        return Findings(plan_json(found, each, pace.minutes))
    reporter.say(plan_text(found, f"{each:.1f} FFE of each method", pace.minutes))
    runs = run_searches(bench, settings, pace) + run_learned(bench, settings, pace)
    places = _places(bench, domains)
    baselines, trainings = [], {}
    for name in BASELINES:
        for seed in range(settings.repeats if name in settings.strategies else 0):
            training = replace(settings.training, epochs=epochs_within(settings, pace.share()))
            trainings[name, seed] = training
            baselines.append(run_baseline(bench, name, seed, training, places, settings.search.level))
    table = Standings(bench, domains, settings, runs, baselines)
    results = {
        "format": 1,
        "model": bench.model_json(),
        "data": {
            "source": given.name,
            "hash": given.hash,
            "split_how": splits.how,
            "split_hash": splits.hash,
            "equal_captions": {"rule": given.equal_captions, "captions": given.repeated},
            **bench.task.told,
            "splits": {name: len(bench.indices(name)) for name in ("search", "pick", "test")},
            "keep_domain": [{"source": d.pairs.name, "images": len(d.pairs)} for d in domains],
        },
        "settings": {
            "strategies": list(settings.strategies),
            "repeats": settings.repeats,
            "budget": each,
            "max_minutes": pace.minutes,
            "operators": list(settings.search.operators),
            "dtype": bench.layout.dtype,
            "device": bench.layout.device,
            "seconds_per_ffe": rate_of(bench),
            "fitness": bench.task.fitness,
        },
        "left_out": left_out,
        "test_reads_cache": remember_reads(
            bench, "test", [mask for run in runs for mask in (run.chosen, run.best.mask)]
        ),
        "rows": table.rows(),
    }
    write_files(
        folder,
        {
            "compare.png": comparison_png(results),
            "compare.md": comparison_text(results),
            "compare.json": dump(results),
        },
    )
    for name in settings.write:
        best = max((run for run in baselines if run.method == name), key=lambda run: run.scores["pick"].fitness)
        place = write_baseline(bench, best, trainings[name, best.seed], places, tuned_card(results, name))
        reporter.say(f"{name} as a model, trained with seed {best.seed}: {place}")
    return Findings(results)


def _possible(
    bench: Bench, domains: Sequence[Domain], settings: CompareSettings
) -> tuple[CompareSettings, list[dict[str, str]]]:
    """The strategies that these data and edits allow, and why the others are left out.

    Raises:
        HeadwiseError: none is left.
    """
    plain = all(isinstance(d.bench.objective("search"), Retrieval) for d in domains)
    captioned, out = captions_or_none(bench) is not None and plain, {}
    for name in settings.strategies:
        if name in NEED_CAPTIONS and not captioned:
            out[name] = "needs captions, and a source here has none"
        elif name == "bp" and (ungated := [each for each in settings.search.operators if each not in GATED]):
            out[name] = f"learns gates, and '{ungated[0]}' is none"
        elif name in BASELINES:
            try:
                check(name, bench.model.tower)
            except HeadwiseError as error:
                out[name] = str(error).rstrip(".")
    left = tuple(name for name in settings.strategies if name not in out)
    if not left:
        whys = "; ".join(f"{name}: {why}" for name, why in out.items())
        raise HeadwiseError(f"Nothing is left to compare: {whys}. Name a search with --strategy, too.")
    if lost := [name for name in settings.write if name in out]:
        raise HeadwiseError(f"{lost[0]} cannot be written: {out[lost[0]]}.")
    return replace(settings, strategies=left), [{"method": name, "why": why} for name, why in out.items()]


def _places(bench: Bench, domains: Sequence[Domain]) -> dict[str, Place]:
    """Where baselines are scored: the splits, and the other data."""
    where = {name: (bench, name) for name in ("search", "pick", "test")}
    where |= {domain.split: (domain.bench, "search") for domain in domains}  # all of a domain's images are one split
    places = {}
    for key, (place, name) in where.items():
        target = place.objective(name)
        if isinstance(target, Retrieval):
            places[key] = Place(place.cache.take(place.indices(name)), target)
    return places

"""refine, the main job: split → search → pick → test → write.

In: a model and pairs. Out: the chosen mask, everything that was measured, and a folder with report, mask and merged
model. Each step has its file in `steps/`: opening, searching, choosing, results.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headwise.data.splits import check_split_by
from headwise.edits.mask import Mask
from headwise.evaluation.engine import with_means
from headwise.jobs.explain import explain_bench
from headwise.jobs.steps.artefacts import write_artefacts
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.budget import anchoring_cost, check_budget, open_budget, parts
from headwise.jobs.steps.choosing import _means, pick, read_test, remember_test
from headwise.jobs.steps.clean import seen_by
from headwise.jobs.steps.findings import Findings, Picture
from headwise.jobs.steps.keeping import read_kept_tests, with_kept
from headwise.jobs.steps.learning import learn
from headwise.jobs.steps.opening import (
    Machine,
    ModelLike,
    PairsLike,
    anchor_images,
    check_folder,
    kept_benches,
    load_model,
    prepared,
    read_pairs,
    split_for,
)
from headwise.jobs.steps.planning import plan_json, plan_text, stages, timing
from headwise.jobs.steps.progress import Reporter, usual
from headwise.jobs.steps.prospects import power_json, say_before, warnings
from headwise.jobs.steps.reads import remember_reads
from headwise.jobs.steps.refitting import refit
from headwise.jobs.steps.results import results_json
from headwise.jobs.steps.searching import Searched, search
from headwise.jobs.steps.settings import Settings, check_anchor, check_model, saving_memory
from headwise.jobs.steps.tasks import Goal
from headwise.jobs.steps.together import search_together
from headwise.jobs.steps.weights import check_captions, check_weights, weigh, weights_json
from headwise.search.contract import Left
from headwise.towers.probes import described

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True, repr=False)
class Refined:
    """What `refine` found.

    Arguments:
        mask: the chosen mask; identity when none was shown to be better.
        results: everything that was measured, as in `results.json`.
        folder: where the artefacts are; None when none were asked for.
    """

    mask: Mask
    results: Findings
    folder: Path | None

    def summary(self) -> str:
        """The verdict, in a sentence or two."""
        return self.results.summary()

    def to_pandas(self) -> pandas.DataFrame:
        """The sweep's table: a row for each head and operator, changes as fractions, and whether it was chosen."""
        return self.results.to_pandas()

    def plot(self) -> Picture:
        """The heat map of the sweep, with the chosen heads outlined."""
        return self.results.plot()

    def __repr__(self) -> str:
        return f"Refined({self.mask!r}, folder={None if self.folder is None else str(self.folder)!r})"

    def _repr_html_(self) -> str:
        return self.results._repr_html_()


def refine(
    model: ModelLike,
    pairs: PairsLike,
    out: str | Path | None = None,
    *,
    settings: Settings | None = None,
    goal: Goal | None = None,
    machine: Machine | None = None,
    split_by: str = "auto",
    keep: Sequence[PairsLike] = (),
    anchor: PairsLike | None = None,
    dry_run: bool = False,
    explain: bool = False,
    reporter: Reporter | None = None,
    **columns: object,
) -> Refined:
    """Find the heads that hurt a model on these pairs, prove it on held-out pairs, write the refined model.

    Arguments:
        model: a name (`hf:openai/clip-vit-base-patch32`, a folder, `demo`) or what `load` or `wrap` gave.
        pairs: a source as `headwise.read` takes it.
        out: the output folder: `head_mask.json` and its card `README.md`, `model/` where the mask folds, `results.json`,
            `splits.json`, `report.md`, `report.html`, `heads.png`, `study.sqlite`, `tuned-model/` where trained weights are
            preferred. The same call on the same folder continues where it was interrupted.
        settings: how to search and select.
        goal: what to maximise; by default mean recall for captions, accuracy for labels.
        machine: precision, device, cache.
        split_by: see `headwise.data.splits.split`.
        keep: pairs of other domains, on whose pick split the mask may lose at most `settings.max_loss` points.
        anchor: old images, a folder or a source whose captions are not read: a penalty on how far their embeddings
            move, `settings.anchor_weight` times the model's logit scale, while learned rungs are learned.
        dry_run: measure how fast the model runs here and say what each stage would cost; nothing is searched or
            written, the mask is identity and the results are the plan (`planning.plan_json`).
        explain: write what every head does, and whether the chosen ones differ, into `explanation/`; needs `out`.
        reporter: where progress goes.
        columns: passed to `headwise.read`: image, caption, split, group, skip_bad, …

    Raises:
        HeadwiseError: bad input of any kind; the message says what to do.
    """
    began = time.monotonic()
    reporter, settings = reporter or usual(), settings or Settings()
    check_split_by(split_by)
    check_anchor(anchor is not None, settings)
    check_budget(settings, len(keep), anchor is not None)
    folder = Path(out) if out is not None else None
    if folder is not None:
        check_folder(folder)
    if dry_run:
        folder = None
    machine = machine or Machine()
    ready = load_model(model, machine)
    check_model(ready, settings)
    check_weights(ready, settings)
    settings = saving_memory(ready, settings)
    given = read_pairs(pairs, reporter, columns)
    splits = split_for(given, goal, split_by, settings.seed)
    reporter.say(
        f"{given.name}: {len(given):,} images, {given.text_count:,} captions; split {splits.how}, hash {splits.hash}."
    )
    bench = prepared(ready, given, splits, folder and folder / "study.sqlite", goal, machine, reporter)
    domains = kept_benches(ready, keep, given, folder, settings.seed, machine, reporter, split_by, columns)
    bench = with_kept(bench, domains)
    if anchor is not None:
        bench = replace(bench, anchored=anchor_images(anchor, bench, ready, machine, reporter, columns))
    check_captions(bench, settings)
    if dry_run:
        say_before(bench)
        speed = timing(bench)
        budget = open_budget(bench, settings, speed.ffe, began)
        plan = Findings(plan_json(stages(bench, settings, budget, speed), budget.total, budget.minutes))
        return Refined(Mask.identity(bench.tower.grid), plan, None)
    mask, results = find(bench, settings, began)
    if folder is not None:
        write_artefacts(bench, mask, results, settings, folder, reporter)
        if explain:
            from headwise.jobs.steps.page import EXPLANATION, write_page

            explain_bench(bench, mask, folder / EXPLANATION, settings.seed, machine)
            write_page(folder, results, bench.pairs)  # again, with a card for every head
    return Refined(mask, Findings(results), folder)


def find(bench: Bench, settings: Settings, began: float | None = None) -> tuple[Mask, dict]:
    """The main job on a prepared bench.

    Arguments:
        bench: from `headwise.jobs.steps.bench.prepare`.
        settings: how to search and select.
        began: `time.monotonic()` from when minutes count; by default now.

    Returns:
        The chosen mask, carrying its provenance (identity when nothing beats it), and the results as plain
        JSON values (`docs/results-format.md`). Equal inputs give equal results, also after a resume.

    Raises:
        HeadwiseError: an edit that the tower cannot have, a budget that pays for nothing, or a study that cannot
            be written.
    """
    check_model(bench.model, settings)
    check_captions(bench, settings)
    settings = saving_memory(bench.model, settings)
    speed = timing(bench)
    budget = open_budget(bench, settings, speed.ffe, time.monotonic() if began is None else began)
    bench.reporter.say(plan_text(stages(bench, settings, budget, speed), f"{budget.total:.1f} FFE", budget.minutes))
    say_before(bench)
    evaluate = budget.watch(bench.evaluator("search"))
    evaluate.means = _means(bench, settings.searching)
    if evaluate.means is not None:
        evaluate.spent += 1.0  # the pass that the constants are the means of
    evaluate.spent += anchoring_cost(bench)
    searched: list[Searched] = []

    def share() -> Left:
        return budget.share(parts(settings, len(searched), budget.open(), bool(bench.anchored)))

    for operator in settings.searching:
        searched.append(search(bench, evaluate, operator, settings, share(), searched))
    if settings.mixes:
        searched.append(search_together(bench, evaluate, settings, share(), searched))
        searched = [one.without_deltas() for one in searched]
    for rung in settings.learning:
        searched.append(learn(bench, evaluate, rung, settings, share()))
    finalists = budget.finalists(settings, len(bench.kept), bool(bench.anchored))
    paid = replace(settings, finalists=finalists, refit=budget.refit > 0)
    picked = pick(bench, searched, paid)
    means = _means(bench, settings.searching)
    again = refit(bench, searched, picked, settings, means) if paid.refit else None
    weighed = weigh(bench, picked, paid) if settings.weights else None
    other = again.handed if again else None
    mask = picked.chosen.mask if other is None else other
    beside = weighed.key if weighed else ""
    reads = {"study": remember_test(bench, mask, beside)}
    reads["cache"] = remember_reads(bench, "test", [mask], beside)
    tested = read_test(bench, searched, picked, settings, other)
    kept = read_kept_tests(bench, mask, means, settings.seed)
    results = results_json(bench, settings, evaluate, budget.total, searched, picked, tested, kept, reads, again)
    results["power"] = power_json(bench, picked, tested["table"])
    if weighed:
        results["weights"] = weights_json(bench, picked, weighed, settings)
        results["ffe"] |= weighed.ffe(results["ffe"])
    preferred = weighed is not None and weighed.preferred is not None
    results["warnings"] = warnings(bench, picked.identity.search, mask, preferred)
    chosen = picked.chosen
    looked = {} if other is not None else {"search": chosen.search.metrics, "pick": chosen.pick.metrics}
    mask = mask if mask.is_bound else with_means(mask, bench.means)
    return mask.with_provenance(
        base_model=bench.model.name,
        weights_hash=bench.model.tower.weights_hash,
        functions=described(bench.model),
        **({"overrides": bench.model.overrides.given} if bench.model.overrides.given else {}),
        found_by=chosen.found_by,
        data={"source": bench.pairs.name, "hash": bench.pairs.hash, "split": bench.splits.hash},
        seen=seen_by(bench),
        settings=results["settings"],
        scores={**looked, "test": tested["table"][-1]},
    ), results

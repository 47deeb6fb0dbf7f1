"""refine, the main job: split → search → pick → test → write.

In: a model and pairs. Out: the chosen mask, everything that was measured, and a folder with report, mask and merged
model. Each step has its file in `steps/`: opening, searching, choosing, results.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from headwise.applied.merge import check_folds
from headwise.applied.merge import merge as write_merged
from headwise.data.splits import NAMES, split
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import with_means
from headwise.files import write_files
from headwise.jobs.explain import explain_bench
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.choosing import _means, pick, read_test, remember_test
from headwise.jobs.steps.keeping import read_kept_tests, with_kept
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
)
from headwise.jobs.steps.progress import Reporter, Silent
from headwise.jobs.steps.results import results_json
from headwise.jobs.steps.searching import Searched, search
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.tasks import Goal
from headwise.towers.probes import described


@dataclass(frozen=True)
class Refined:
    """What `refine` found.

    Arguments:
        mask: the chosen mask; identity when no harmful heads were found.
        results: everything that was measured, as in `results.json`.
        folder: where the artefacts are; None when none were asked for.
    """

    mask: Mask
    results: Mapping
    folder: Path | None


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
    explain: bool = False,
    reporter: Reporter | None = None,
    **columns: object,
) -> Refined:
    """Find the heads that hurt a model on these pairs, prove it on held-out pairs, write the refined model.

    Arguments:
        model: a name (`hf:openai/clip-vit-base-patch32`, a folder, `demo`) or what `load` or `wrap` gave.
        pairs: a source as `headwise.read` takes it.
        out: the output folder: `head_mask.json`, `model/`, `results.json`, `splits.json`, `report.md`, `heads.png`,
            `study.sqlite`. The same call on the same folder continues where it was interrupted.
        settings: how to search and select.
        goal: what to maximise; by default mean recall for captions, accuracy for labels.
        machine: precision, device, cache.
        split_by: see `headwise.data.splits.split`.
        keep: pairs of other domains, on whose pick split the mask may lose at most `settings.max_loss` points.
        explain: write what every head does, and whether the chosen ones differ, into `explanation/`; needs `out`.
        reporter: where progress goes.
        columns: passed to `headwise.read`: image, caption, split, group, skip_bad, …

    Raises:
        HeadwiseError: bad input of any kind; the message says what to do.
    """
    reporter, settings = reporter or Silent(), settings or Settings()
    folder = Path(out) if out is not None else None
    if folder is not None:
        check_folder(folder)
    machine = machine or Machine()
    ready, given = load_model(model, machine), read_pairs(pairs, reporter, columns)
    # for a fitness over groups they are an attribute that every split needs, not something to hold out
    splits = split(given, by=split_by, seed=settings.seed, keep_groups=goal is None or "group" not in goal.fitness)
    reporter.say(
        f"{given.name}: {len(given):,} images, {given.text_count:,} captions; split {splits.how}, hash {splits.hash}."
    )
    bench = prepared(ready, given, splits, folder and folder / "study.sqlite", goal, machine, reporter)
    bench = with_kept(bench, kept_benches(ready, keep, folder, settings.seed, machine, reporter))
    mask, results = find(bench, settings)
    if folder is not None:
        write_artefacts(bench, mask, results, folder, reporter)
        if explain:
            explain_bench(bench, mask, folder / "explanation", settings.seed, machine)
    return Refined(mask, results, folder)


def find(bench: Bench, settings: Settings) -> tuple[Mask, dict]:
    """The main job on a prepared bench.

    Arguments:
        bench: from `headwise.jobs.steps.bench.prepare`.
        settings: how to search and select.

    Returns:
        The chosen mask, carrying its provenance (identity when nothing beats it), and the results as plain
        JSON values (`docs/results-format.md`). Equal inputs give equal results, also after a resume.

    Raises:
        HeadwiseError: an operator that the tower cannot use, or a study that cannot be written.
    """
    for operator in settings.operators:
        bench.tower.check_operator(operator)
    evaluate = bench.evaluator("search")
    evaluate.means = _means(bench, settings.operators)
    searched: list[Searched] = []
    for operator in settings.operators:
        searched.append(search(bench, evaluate, operator, settings, searched))
    picked = pick(bench, searched, settings)
    reads = remember_test(bench, picked.chosen.mask)
    tested = read_test(bench, searched, picked, settings)
    chosen = picked.chosen
    kept = read_kept_tests(bench, chosen.mask, _means(bench, settings.operators), settings.seed)
    results = results_json(bench, settings, evaluate.spent, searched, picked, tested, kept, reads)
    mask = with_means(chosen.mask, bench.means) if chosen.mask.operator == "mean" else chosen.mask
    return mask.with_provenance(
        base_model=bench.model.name,
        weights_hash=bench.model.tower.weights_hash,
        functions=described(bench.model),
        found_by=chosen.found_by,
        data={"source": bench.pairs.name, "hash": bench.pairs.hash, "split": bench.splits.hash},
        settings=results["settings"],
        scores={"search": chosen.search.metrics, "pick": chosen.pick.metrics, "test": tested["table"][-1]},
    ), results


# ---- artefacts


def write_artefacts(bench: Bench, mask: Mask, results: dict, folder: Path, reporter: Reporter) -> None:
    """The mask, the report, the results and the merged model; each appears whole or not at all."""
    from headwise.report.card import model_card
    from headwise.report.refine import write_report

    card = model_card(results)
    mask.save_pretrained(folder, card=card)
    try:
        check_folds(bench.model.tower, mask)
    except HeadwiseError as reason:
        reporter.say(f"No model/ was written. {reason}")
    else:
        report = write_merged(
            bench.model,
            mask,
            folder / "model",
            pixels=bench.cache.take(bench.splits.test[:32]),
            card=model_card(results, merged=True),
            overwrite=True,
        )
        reporter.say(
            f"Merged model: largest difference to the masked model {report.largest_difference:.2e} "
            f"({report.relative_difference:.2e} relative) on {report.images} images."
        )
    write_report(results, folder)
    write_files(folder, {"splits.json": dump(splits_json(bench)), "results.json": dump(results)})


def splits_json(bench: Bench) -> dict[str, object]:
    """Which image was in which split, by the names that the source gives them."""
    names = {name: [bench.pairs.ids[i] for i in bench.indices(name)] for name in NAMES}
    return {"source": bench.pairs.name, "how": bench.splits.how, "hash": bench.splits.hash, **names}

"""What refine leaves in its folder.

In: the mask and the results. Out: results.json and splits.json, head_mask.json, model/, tuned-model/ where trained
weights are preferred, report.md, heads.png and report.html, each whole or not at all, and each whether or not another
one can be written.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from headwise.applied.fold import check_folds
from headwise.applied.merge import merge
from headwise.applied.tuned import write_tuned
from headwise.baselines.weights import between
from headwise.data.splits import NAMES
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.files import put_aside, write_files
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.opening import dump
from headwise.jobs.steps.progress import Reporter
from headwise.jobs.steps.refitting import joined
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.starting import exact
from headwise.jobs.steps.training import train

MODEL, TUNED = "model", "tuned-model"


def write_artefacts(
    bench: Bench, mask: Mask, results: dict, settings: Settings, folder: Path, reporter: Reporter
) -> None:
    """Write everything that can be written.

    Raises:
        HeadwiseError: something could not be written; the message says what is missing, and why. All else is there.
    """
    from headwise.jobs.steps.page import PAGE_FILE, write_page
    from headwise.reports.card import model_card
    from headwise.reports.heatmap import heatmap_png
    from headwise.reports.refine import HEATMAP_FILE, REPORT_FILE, mapped, report_text

    def write_numbers() -> None:
        write_files(folder, {"splits.json": dump(splits_json(bench)), "results.json": dump(results)})

    def write_report() -> None:
        text = report_text(results, name=folder.resolve().name, merged="model/" in written)
        write_files(folder, {REPORT_FILE: text})

    steps: dict[str, Callable[[], object]] = {
        "results.json": write_numbers,
        "head_mask.json": lambda: mask.save_pretrained(folder, card=model_card(results)),
        "model/": lambda: write_model(bench, mask, results, folder, reporter),
        f"{TUNED}/": lambda: write_weights(bench, results, settings, folder),
        REPORT_FILE: write_report,
        HEATMAP_FILE: lambda: mapped(results) and write_files(folder, {HEATMAP_FILE: heatmap_png(results)}),
        PAGE_FILE: lambda: write_page(folder, results, bench.pairs),
    }
    written: list[str] = []
    failed: dict[str, Exception] = {}
    for name, step in steps.items():
        try:
            if step() is not False:
                written.append(name)
        except Exception as error:
            failed[name] = error
    if failed:
        reasons = [str(e) if isinstance(e, HeadwiseError) else f"{type(e).__name__}: {e}" for e in failed.values()]
        there = f"Written to {folder}: {', '.join(written)}. " if written else ""
        raise HeadwiseError(
            "\n".join(dict.fromkeys(reasons))
            + f"\n{there}Missing: {', '.join(failed)}. The search is kept in study.sqlite: the same command writes what is "
            "missing without searching again."
        ) from next(iter(failed.values()))


def write_model(bench: Bench, mask: Mask, results: dict, folder: Path, reporter: Reporter) -> bool:
    """Write `model/`, checked on test images; False where the mask does not fold, which is said: then that of a former
    choice is put aside.

    Raises:
        HeadwiseError: as `headwise.applied.merge.merge`.
    """
    from headwise.reports.card import model_card

    try:
        check_folds(bench.model.tower, mask)
    except HeadwiseError as reason:
        former = put_aside(folder / MODEL)
        reporter.say(f"No {MODEL}/ was written. {reason} {former}".strip())
        return False
    report = merge(
        bench.model,
        mask,
        folder / MODEL,
        pixels=bench.cache.take(bench.splits.test[:32]),
        card=model_card(results, merged=True),
        overwrite=True,
    )
    reporter.say(f"Merged model {report.sentence}")
    return True


def write_weights(bench: Bench, results: dict, settings: Settings, folder: Path) -> bool:
    """Write `tuned-model/`, the trained weights that the pick split prefers to all edits; False where it prefers none: then
    what a former run with such rungs left there goes, as its results have.

    Raises:
        HeadwiseError: as `headwise.applied.tuned.write_tuned`.
    """
    from headwise.reports.card import weights_card

    preferred = results.get("weights", {}).get("preferred")
    if not preferred:
        shutil.rmtree(folder / TUNED, ignore_errors=True)
        return False
    refit = preferred["refit"]
    trained = train(joined(bench) if refit else bench, preferred["rung"], settings, "refit" if refit else "trained")
    tower = between(exact(bench), trained.tower, preferred["alpha"])
    write_tuned(bench.model, tower, folder / TUNED, weights_card(results))
    return True


def splits_json(bench: Bench) -> dict[str, object]:
    """Which image was in which split, by the names that the source gives them."""
    names = {name: [bench.pairs.ids[i] for i in bench.indices(name)] for name in NAMES}
    return {"source": bench.pairs.name, "how": bench.splits.how, "hash": bench.splits.hash, **names}

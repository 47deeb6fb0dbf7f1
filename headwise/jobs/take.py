"""take: any finalist of a finished run as a mask of its own, with a complete card and, where it folds, a model.

In: the folder of a `refine`, which finalist, and the pairs if they have moved. Out: `head_mask.json`, its card, `model/`.
The finalist is read on the test split, and that is counted: what the pick split did not choose is chosen by hand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import with_means
from headwise.evaluation.study import Study
from headwise.jobs.report import finished
from headwise.jobs.steps.artefacts import write_model
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.choosing import remember_test
from headwise.jobs.steps.findings import Findings
from headwise.jobs.steps.opening import Machine, PairsLike, check_folder, prepared
from headwise.jobs.steps.progress import Reporter, metered, usual
from headwise.jobs.steps.reads import remember_reads
from headwise.jobs.steps.reopening import as_written, goal_of, model_of, pairs_of, splits_of
from headwise.jobs.steps.tasks import Goal
from headwise.reports.card import model_card
from headwise.scoring import stats
from headwise.wording import option

STUDY = "study.sqlite"


@dataclass(frozen=True)
class Taken:
    """
    Arguments:
        mask: the finalist, with where it comes from.
        results: those of the run, about this mask.
        folder: where it was written.
        merged: whether there is a `model/`.
    """

    mask: Mask
    results: Findings
    folder: Path
    merged: bool


def take(
    run: str | Path,
    mask: str,
    out: str | Path,
    *,
    pairs: PairsLike | None = None,
    goal: Goal | None = None,
    machine: Machine | None = None,
    reporter: Reporter | None = None,
    **columns: object,
) -> Taken:
    """Write a finalist of a finished run: the mask, a card with its test figures, and the merged model.

    Arguments:
        run: what `refine` wrote.
        mask: what found it (`greedy`, `ga`, `bp`, `best single head`: of several its first), its number among the
            finalists from 1, or the mask as `results.json` writes it.
        out: the folder to write.
        pairs: the source of the run, where it is now; None: where it was.
        goal: as given to `refine`, where that was more than the fitness.
        machine: device and cache; the precision is the run's own.
        reporter: where progress goes.
        columns: passed to `headwise.read`, as they were to `refine`.

    Raises:
        HeadwiseError: no finished run there, no such finalist, identity, a folder that is taken, or a model or pairs
            that are not those of the run.
    """
    run, out, reporter = Path(run), Path(out), reporter or usual()
    results = finished(run)
    asked = machine or Machine()
    with as_written(run):
        finalist, settings = finalist_of(results, mask), results["settings"]
        place = Machine(settings["dtype"], asked.device, settings["chunk"], asked.cache_dir, asked.cache_size)
    check_folder(out)
    model = model_of(run, results, place)
    whole = pairs_of(run, results, pairs, reporter, columns)
    splits = splits_of(run, results, whole)
    found = _exact(run / STUDY, finalist, model.tower.grid)
    bench = prepared(model, whole, splits, run / STUDY, goal_of(run, goal or Goal(), results), place, reporter)
    about = _about(bench, results, finalist, found)
    known = Mask.from_pretrained(run).provenance
    if not found.is_bound:
        found = with_means(found, bench.means)
    scores = {name: finalist[name] for name in ("search", "pick")} | {"test": about["test"][-1]}
    found = found.with_provenance(**{**known, "found_by": finalist["found_by"], "scores": scores})
    found.save_pretrained(out, card=model_card(about))
    merged = write_model(bench, found, about, out, reporter)
    return Taken(found, Findings(about), out, merged)


def finalist_of(results: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    """The finalist of that name, number or text.

    Raises:
        HeadwiseError: there is none, or it is the unchanged model.
    """
    found = [
        one
        for one in results["finalists"]
        if name in (one["found_by"], one["found_by"].partition(", α")[0], one["mask"])  # `scale`: its first α
    ]
    if name.isdecimal() and 1 <= int(name) <= len(results["finalists"]):
        found = [results["finalists"][int(name) - 1]]
    if not found:
        there = "; ".join(
            f"{i}: {one['mask']} ({one['found_by']})" for i, one in enumerate(results["finalists"], 1) if one["size"]
        )
        raise HeadwiseError(
            f"There is no finalist {name!r}. Give {option('mask')} one of: {there or 'none was found'}."
        )
    if not found[0]["size"]:
        raise HeadwiseError("identity is the model as it is; there is nothing to take.")
    return found[0]


def _exact(study: Path, finalist: Mapping[str, Any], grid: object) -> Mask:
    """The mask itself: the text of soft gates is rounded, the study holds them whole."""
    if study.is_file():
        with Study.reopen(study) as opened:
            for one in opened.evaluations("pick"):
                if one.mask.key == finalist.get("key", one.mask.key) and str(one.mask) == finalist["mask"]:
                    return one.mask
    return Mask.parse(grid, finalist["mask"])  # type: ignore[arg-type]


def _about(bench: Bench, results: Mapping[str, Any], finalist: Mapping[str, Any], mask: Mask) -> dict[str, Any]:
    """The results of the run as if this finalist had been chosen; `taken` says that it was not."""
    identity, evaluate = Mask.identity(bench.tower.grid), bench.evaluator("test")
    if not mask.is_bound:
        evaluate.means = bench.means
    with metered(bench.reporter, evaluate, "Test split", evaluate.cost([identity, mask])):
        before, after = evaluate([identity, mask])
    row = {
        "what": "chosen",
        "mask": str(mask),
        "size": mask.size,
        "count": 1,
        "metrics": after.metrics,
        **stats.compared(after, before, seed=results["settings"]["seed"]).json(),
    }
    return {
        **{name: told for name, told in results.items() if name != "refit"},
        "chosen": {
            "mask": str(mask),
            "found_by": finalist["found_by"],
            "key": mask.key,
            "size": mask.size,
            "values": mask.values,
            "heads": [str(head) for head in mask.heads],
            "edits": {str(head): str(edit) for head, edit in mask.edits.items()},
        },
        "test": [*(one for one in results["test"] if one["what"] == "identity"), row],
        "test_reads": remember_test(bench, mask),
        "test_reads_cache": remember_reads(bench, "test", [mask]),
        "taken": {"instead_of": results["chosen"]["mask"], "chosen": bool(finalist["chosen"])},
    }

"""transfer: masks × data sets, and the one mask that serves all data best.

In: masks that were found elsewhere, data sets. Out: every mask's change on every test split; the best single mask is
chosen on the pick splits, by a test that accounts for how many there are, and judged on the test splits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from headwise.data.splits import check_split_by
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.files import write_files
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.clean import unseen_splits
from headwise.jobs.steps.findings import Findings
from headwise.jobs.steps.masks import check_bound, read_mask
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
)
from headwise.jobs.steps.progress import Reporter, metered, usual
from headwise.jobs.steps.reads import remember_reads
from headwise.jobs.steps.settings import check_level
from headwise.jobs.steps.tasks import Goal
from headwise.scoring import stats
from headwise.scoring.design import MOST, Design
from headwise.towers.fits import check_fits, check_functions
from headwise.wording import option

COLUMN = (
    "source",
    "hash",
    "split_how",
    "images",
    "score",
    "fitness",
    "searched",
    "test_reads_cache",
    "equal_captions",
    "distractors",
)


def transfer(
    model: ModelLike,
    masks: Sequence[Mask | str | Path],
    sources: Sequence[PairsLike],
    out: str | Path,
    *,
    goal: Goal | None = None,
    machine: Machine | None = None,
    split_by: str = "auto",
    seed: int = 0,
    level: float = stats.LEVEL,
    check_weights: bool = True,
    allow_searched: bool = False,
    reporter: Reporter | None = None,
    **columns: object,
) -> Findings:
    """Evaluate masks on data sets that they were not found on.

    Every data set is split as `refine` splits it. The matrix is measured on the test splits; the best single mask
    is chosen on the pick splits (the highest mean change over the data sets) if it beats the unchanged model there
    after correction for how many masks there are, and its test changes are reported.

    Arguments:
        model: the model that the masks were found for.
        masks: folders, hub ids, or text such as `L10.H3=zero`.
        sources: data sets, each with its name.
        out: folder for `transfer.md`, `transfer.json`, `transfer.png` and one study per data set; the same call
            continues there.
        allow_searched: score images, too, that a mask was searched or picked on; by default they are left out.
        columns: how every data set is read, as for `headwise.read`.
        level: the chance of naming a mask where none is better: max-T on the pick splits.
        seed: of the splits and statistics; it must be that of the search, or a mask would be tested on images it was found on.
        others: as for `refine`.

    Returns:
        What `transfer.json` holds: docs/results-format.md.

    Raises:
        HeadwiseError: no masks or data, a mask of another model, or one that was found on these pairs with
            another split.
    """
    from headwise.reports.transfer import transfer_png, transfer_text

    if not masks or not sources:
        raise HeadwiseError("Transfer needs at least one mask and one data set: give --mask and --on.")
    check_split_by(split_by)
    check_level(level)
    reporter, machine, folder = reporter or usual(), machine or Machine(), Path(out)
    check_folder(folder)
    ready = load_model(model, machine)
    found = [read_mask(mask, ready) for mask in masks]
    for mask in found:
        check_fits(ready.tower, mask, check_weights=check_weights)
        check_functions(ready, mask, check_weights=check_weights)
        check_bound(mask)
    measured = []
    for source in sources:
        given = read_pairs(source, reporter, columns)
        splits = split_for(given, goal, split_by, seed)
        if not allow_searched:
            for name, mask in zip(masks, found, strict=True):
                _check_split(str(name), mask, given.hash, splits.hash)
        splits, searched = unseen_splits(given, splits, found, allow_searched, reporter)
        study = folder / f"study-{given.hash[:12]}.sqlite"
        bench = prepared(ready, given, splits, study, goal, machine, reporter)
        measured.append(_column(bench, found, seed) | {"searched": {**searched, "left_out": not allow_searched}})
    identity = Mask.identity(ready.tower.grid)
    rows = [
        {
            "mask": str(mask),
            "folder": None if isinstance(given, Mask) else str(given),
            "found_on": str(_provenance(mask).get("source", "unknown")),
            "size": mask.size,
            "kinds": mask.kinds,
            "pick": [column["cells"][i + 1]["pick"] for column in measured],
            "test": [column["cells"][i + 1]["test"] for column in measured],
        }
        for i, (given, mask) in enumerate(zip(masks, found, strict=True))
    ]
    results = {
        "format": 1,
        "model": ready.name,
        **({"overrides": ready.overrides.given} if ready.overrides.given else {}),
        "fitness": measured[0]["fitness"],
        "data": [{key: column[key] for key in COLUMN if key in column} for column in measured],
        "masks": rows,
        "best": _best(rows, measured, str(identity), level, seed),
    }
    picture, text = transfer_png(results), transfer_text(results)
    write_files(folder, {"transfer.png": picture, "transfer.md": text, "transfer.json": dump(results)})
    return Findings(results)


def _best(rows: Sequence[dict], measured: Sequence[dict], identity: str, level: float, seed: int) -> dict:
    """The mask with the highest mean change over the pick splits, where max-T over all masks shows it; else identity.

    An image's share of that mean is its change divided by its data set's size and the number of data sets, so that one
    test covers all data sets.
    """
    apart = {name: _together([column[name] for column in measured]) for name in ("pick", "test")}  # (M, N)
    means = [float(np.mean([cell["delta"] for cell in row["pick"]])) for row in rows]
    p = stats.max_t(apart["pick"], seed=seed, alternative="greater")
    first = int(np.argmax(means))
    chosen = first if means[first] > 0 and p[first].p <= level else None
    found = {"highest": rows[first]["mask"], "highest_pick_mean": means[first], "pick_p": p[first].p, "level": level}
    if chosen is None:
        return {"mask": identity, "row": None, "pick_mean": 0.0, "test_mean": 0.0, "test_p": None, **found}
    return {
        "mask": rows[chosen]["mask"],
        "row": chosen,
        "pick_mean": means[chosen],
        "test_mean": float(np.mean([cell["delta"] for cell in rows[chosen]["test"]])),
        "test_p": stats.sign_flip(apart["test"][chosen], seed=seed).p,
        **found,
    }


def _column(bench: Bench, masks: Sequence[Mask], seed: int) -> dict:
    """All masks on one data set: changes on its pick and test splits, identity first."""
    everything = [Mask.identity(bench.tower.grid), *masks]
    cells: list[dict] = [{} for _ in everything]
    score, apart = 0.0, {}
    for name in ("pick", "test"):
        evaluate = bench.evaluator(name)
        with metered(
            bench.reporter, evaluate, f"{Path(bench.pairs.name).name}, {name} split", evaluate.cost(everything)
        ):
            scores = evaluate(everything)
        base = scores[0]
        score = base.fitness
        for cell, one in zip(cells, scores, strict=True):
            cell[name] = stats.compared(one, base, seed=seed).json()
        changes = np.stack([base.plan.counts(one.hits - base.hits) for one in scores[1:]])
        apart[name] = (changes, base.plan)  # (M, N): what each image adds to each mask's change, over its denominator
    return {
        "source": bench.pairs.name,
        "hash": bench.pairs.hash,
        "split_how": bench.splits.how,
        "images": {name: len(bench.indices(name)) for name in ("pick", "test")},
        "score": score,
        "fitness": bench.task.fitness,
        "test_reads_cache": remember_reads(bench, "test", masks),
        **bench.task.told,
        "equal_captions": {"rule": bench.pairs.equal_captions, "captions": bench.pairs.repeated},
        "cells": cells,
        **apart,
    }


def _together(changes: Sequence[tuple[np.ndarray, Design]]) -> np.ndarray:
    """What the images of all data sets add to each mask's mean change, (M, N): whole numbers over one denominator, so
    that ties are counted; fractions where a data set's are rounded or the denominator is too large."""
    common = math.lcm(*(plan.denominator for _, plan in changes))
    sums = sum(int(np.abs(each).sum(1).max()) * (common // plan.denominator) for each, plan in changes)
    if sums < MOST and not any(plan.slack for _, plan in changes):
        return np.hstack([each * (common // plan.denominator) for each, plan in changes])
    return np.hstack([each / plan.denominator for each, plan in changes])


def _provenance(mask: Mask) -> Mapping[str, object]:
    """What the mask knows of the data that it was found on."""
    data = mask.provenance.get("data")
    return data if isinstance(data, Mapping) else {}


def _check_split(name: str, mask: Mask, data: str, splits: str) -> None:
    """
    Raises:
        HeadwiseError: the mask was found on these pairs, split in another way: it may have seen what is now test.
    """
    known = _provenance(mask)
    if known.get("hash") == data and known.get("split") != splits:
        raise HeadwiseError(
            f"The mask {name} was found on these pairs with another split, so that it may have seen their test "
            "images. Give the --seed and --split-by that it was found with, or insist with "
            f"{option('allow_searched', 'True')}."
        )

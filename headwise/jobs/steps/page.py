"""`report.html` of a run: what its folder holds, put together.

In: the folder of a run, its results, its pairs. Out: the page. Nothing is evaluated: ranks come from the study, pictures
from the source. What is missing is said on the page in its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from headwise.data.pairs import Pairs
from headwise.errors import HeadwiseError
from headwise.evaluation.study import Study
from headwise.files import write_files
from headwise.jobs.steps.page_heads import FOLDER, explained_heads
from headwise.reports.gallery import Gallery, gallery
from headwise.reports.page import PAGE_FILE, page_html

EXPLANATION = FOLDER  # where `refine --explain` writes
Ranks = Mapping[str, np.ndarray]
OTHERS = {"Comparison": "compare.md", "Transfer": "transfer.md", "Front": "front.md"}  # by the commands of these names


def write_page(folder: Path, results: dict[str, Any], pairs: Pairs | None, why: str = "") -> str:
    """Write `report.html`.

    Arguments:
        folder: of the run, with `splits.json` and `study.sqlite`.
        results: as `results.json` holds them.
        pairs: the images and captions of the run, all splits; None: they cannot be read any more.
        why: what to say of that.

    Returns:
        What is missing on the page, and why; empty where all is there.

    Raises:
        HeadwiseError: pairs that are not those of the run, results that lack a field, or a folder that cannot be
            written.
    """
    ranks, evaluations, fitness, gone = _study(folder / "study.sqlite", results)
    found: Gallery | None = None
    if pairs is not None and ranks is not None:
        found = gallery(_tested(folder, results, pairs), *ranks)
    heads = explained_heads(folder, results, pairs)
    text = page_html(
        results,
        name=folder.resolve().name,
        merged=(folder / "model").is_dir(),
        gallery=found,
        why_no_gallery=gone or why,
        evaluations=evaluations,
        fitness=fitness,
        heads=heads,
        others=others_in(folder),
    )
    write_files(folder, {PAGE_FILE: text})
    return " ".join(reason for reason in (gone or why, heads.why) if reason)


def others_in(folder: Path) -> list[tuple[str, str]]:
    """Title and text of what compare, transfer and front left in a folder.

    Raises:
        HeadwiseError: one cannot be read.
    """
    found = []
    for title, name in OTHERS.items():
        if (folder / name).is_file():
            try:
                found.append((title, (folder / name).read_text(encoding="utf-8")))
            except (OSError, ValueError) as error:
                raise HeadwiseError(
                    f"{folder / name} cannot be read ({error}). Run headwise {Path(name).stem} again, or move it away."
                ) from error
    return found


def _study(
    path: Path, results: dict[str, Any]
) -> tuple[tuple[Ranks, Ranks] | None, list[tuple[int, float]], dict[str, float | None], str]:
    """Of a run's study: ranks on the test split before and after, (heads, fitness) of every mask on the search split,
    fitness by what a mask is called (None where soft masks have the same name), and why there are no ranks.
    """
    if not path.is_file():
        return None, [], {}, "The study of this run is gone, so queries cannot be compared one by one."
    tested: dict[str, Ranks] = {}
    evaluations, fitness = [], dict[str, float | None]()
    with Study.reopen(path) as study:
        for one in study.evaluations():
            if one.split == "search":
                evaluations.append((one.mask.size, one.score.fitness))
                fitness[str(one.mask)] = None if str(one.mask) in fitness else one.score.fitness
            elif one.split == "test":
                tested[str(one.mask)] = one.score.ranks
    before, after = tested.get("identity"), tested.get(results["chosen"]["mask"])
    if before is None or after is None:
        return None, evaluations, fitness, "The study does not hold the test split of this run any more."
    return (before, after), evaluations, fitness, ""


def _tested(folder: Path, results: dict[str, Any], pairs: Pairs) -> Pairs:
    """The images of the test split, in the order of the ranks."""
    if pairs.hash != results["data"]["hash"]:
        raise HeadwiseError(
            f"{pairs.name} holds other images or captions than the run in {folder} saw (hash {pairs.hash}, there "
            f"{results['data']['hash']}). Give the pairs of that run, with the same options."
        )
    names = json.loads((folder / "splits.json").read_text(encoding="utf-8"))["test"]
    place = {name: i for i, name in enumerate(pairs.ids)}
    return pairs.subset([place[name] for name in names])

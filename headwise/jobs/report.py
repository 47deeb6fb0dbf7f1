"""report: `report.html` from a finished run.

In: the folder of a `refine` (`results.json`, `splits.json`, `study.sqlite`) and, for pictures, the pairs that it was
made on. Out: one self-contained page in that folder. Nothing is evaluated: ranks come from the study, pictures from
the source. What is missing (moved images, a study that is gone) is said on the page in its place.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headwise.data.pairs import Pairs
from headwise.errors import HeadwiseError
from headwise.evaluation.study import Study
from headwise.files import write_files
from headwise.jobs.steps.opening import PairsLike, read_pairs
from headwise.jobs.steps.progress import Reporter, Silent
from headwise.report.gallery import Gallery, gallery
from headwise.report.page import PAGE_FILE, page_html

Ranks = Mapping[str, np.ndarray]
RESULTS_FILE = "results.json"
OTHERS = {"Comparison": "compare.md", "Transfer": "transfer.md", "Front": "front.md"}


def report(
    folder: str | Path,
    pairs: PairsLike | None = None,
    *,
    reporter: Reporter | None = None,
    **columns: object,
) -> Path:
    """Write `report.html` into the folder of a finished run.

    Arguments:
        folder: what `refine` wrote.
        pairs: the source of the run, for the pictures of queries; None: by the name that the run knows.
        reporter: where progress goes.
        columns: passed to `headwise.read`, as they were to `refine`.

    Returns:
        The path of the page.

    Raises:
        HeadwiseError: no finished run there, other pairs than those of the run, or a folder that cannot be written.
    """
    folder, reporter = Path(folder), reporter or Silent()
    results = _results(folder)
    ranks, evaluations, why = _study(folder, results)
    found: Gallery | None = None
    if ranks is not None:
        try:
            given = read_pairs(results["data"]["source"] if pairs is None else pairs, reporter, columns)
        except HeadwiseError as error:
            if pairs is not None:
                raise
            why = f"The pairs of this run cannot be read any more, so there are no pictures: {error}"
        else:
            found = _gallery(folder, results, given, *ranks)
    if why:
        reporter.say(why)
    return write_page(folder, results, gallery=found, why_no_gallery=why, evaluations=evaluations)


def write_page(
    folder: Path,
    results: dict[str, Any],
    *,
    gallery: Gallery | None = None,
    why_no_gallery: str = "",
    evaluations: Sequence[float] = (),
) -> Path:
    """The page, with what other commands wrote into the same folder.

    Raises:
        HeadwiseError: the results lack a field, or the folder cannot be written.
    """
    others = [
        (title, (folder / name).read_text(encoding="utf-8"))
        for title, name in OTHERS.items()
        if (folder / name).is_file()
    ]
    text = page_html(
        results,
        name=folder.resolve().name,
        merged=(folder / "model").is_dir(),
        gallery=gallery,
        why_no_gallery=why_no_gallery,
        evaluations=evaluations,
        others=others,
    )
    write_files(folder, {PAGE_FILE: text})
    return folder / PAGE_FILE


def _results(folder: Path) -> dict[str, Any]:
    path = folder / RESULTS_FILE
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HeadwiseError(
            f"{folder} holds no {RESULTS_FILE}. Give the output folder of a finished headwise refine."
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        raise HeadwiseError(
            f"{path} cannot be read ({error}). Run the refine again: it continues from its study."
        ) from error
    if not isinstance(found, dict) or "test" not in found:
        raise HeadwiseError(f"{path} is not what headwise refine writes.")
    return found


def _study(folder: Path, results: dict[str, Any]) -> tuple[tuple[Ranks, Ranks] | None, list[float], str]:
    """Ranks on the test split before and after, every fitness of the search split; or why there are none."""
    path = folder / "study.sqlite"
    if not path.is_file():
        return None, [], "The study of this run is gone, so queries cannot be compared one by one."
    tested: dict[str, Ranks] = {}
    evaluations = []
    with Study.reopen(path) as study:
        for one in study.evaluations():
            if one.split == "search":
                evaluations.append(one.score.fitness)
            elif one.split == "test":
                tested[str(one.mask)] = one.score.ranks
    before, after = tested.get("identity"), tested.get(results["chosen"]["mask"])
    if before is None or after is None:
        return None, evaluations, "The study does not hold the test split of this run any more."
    return (before, after), evaluations, ""


def _gallery(folder: Path, results: dict[str, Any], pairs: Pairs, before: Ranks, after: Ranks) -> Gallery:
    if pairs.hash != results["data"]["hash"]:
        raise HeadwiseError(
            f"{pairs.name} holds other images or captions than the run in {folder} saw "
            f"(hash {pairs.hash}, there {results['data']['hash']}). Give the pairs of that run, with the same options."
        )
    names = json.loads((folder / "splits.json").read_text(encoding="utf-8"))["test"]
    place = {name: i for i, name in enumerate(pairs.ids)}
    return gallery(pairs.subset([place[name] for name in names]), before, after)

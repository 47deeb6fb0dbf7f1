"""report: `report.html` from a finished run.

In: the folder of a `refine` (`results.json`, `splits.json`, `study.sqlite`) and, for pictures, the pairs that it was
made on. Out: one self-contained page in that folder (`steps/page.py`). Nothing is evaluated.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headwise.errors import HeadwiseError
from headwise.jobs.steps.opening import PairsLike, read_pairs
from headwise.jobs.steps.page import write_page
from headwise.jobs.steps.progress import Reporter, usual
from headwise.report.page import PAGE_FILE

RESULTS_FILE = "results.json"


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
        pairs: the source of the run, for the pictures of queries; None: by the name that the run knows. Where that
            cannot be read any more, the page says so and is written without pictures.
        reporter: where progress goes.
        columns: passed to `headwise.read`, as they were to `refine`.

    Returns:
        The path of the page.

    Raises:
        HeadwiseError: no finished run there, other pairs than those of the run, or a folder that cannot be written.
    """
    folder, reporter = Path(folder), reporter or usual()
    results = finished(folder)
    given, why = None, ""
    try:
        given = read_pairs(results["data"]["source"] if pairs is None else pairs, reporter, columns)
    except HeadwiseError as error:
        if pairs is not None:
            raise
        why = f"The pairs of this run cannot be read any more, so there are no pictures of queries. {error}"
    if why := write_page(folder, results, given, why):
        reporter.say(why)
    return folder / PAGE_FILE


def finished(folder: Path) -> dict[str, Any]:
    """The results of a finished run.

    Raises:
        HeadwiseError: there are none, or they cannot be read.
    """
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
        raise HeadwiseError(f"{path} is not what headwise refine writes. Give the folder of a finished refine.")
    return found

"""report: `report.html` from what any command left in a folder.

In: the folder of a `refine` (`results.json`, `splits.json`, `study.sqlite`), or of a sweep, an explanation, a comparison,
a transfer or a front, and, for pictures, the pairs that it was made on. Out: one self-contained page in that folder
(`steps/page.py`, `steps/page_measured.py`). Nothing is evaluated.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from headwise.checked import MISSHAPEN, Damaged, read_results
from headwise.data.pairs import Pairs
from headwise.errors import HeadwiseError
from headwise.jobs.steps.opening import PairsLike, read_pairs
from headwise.jobs.steps.page import write_page
from headwise.jobs.steps.page_measured import nothing_in, write_measured
from headwise.jobs.steps.progress import Reporter, usual
from headwise.jobs.steps.reopening import RESULTS_FILE, lacks
from headwise.reports.page import PAGE_FILE

NEEDED: dict[str, dict[str, type]] = {  # what every reader of results asks for; of other fields each says what it lacks
    "model": {"name": str, "weights_hash": str},
    "data": {"source": str, "hash": str},
    "chosen": {"mask": str, "heads": list},
    "settings": {},
}


def report(
    folder: str | Path,
    pairs: PairsLike | None = None,
    *,
    reporter: Reporter | None = None,
    **columns: object,
) -> Path:
    """Write `report.html` into the folder of a command.

    Arguments:
        folder: what `refine`, `sweep`, `explain`, `compare`, `transfer` or `front` wrote.
        pairs: the source of the run, for the pictures; None: by the name that the run knows. Where that
            cannot be read any more, the page says so and is written without pictures.
        reporter: where progress goes.
        columns: passed to `headwise.read`, as they were to the command.

    Returns:
        The path of the page.

    Raises:
        HeadwiseError: nothing there to make a page of, other pairs than those of the run, or a folder that cannot be
            written.
    """
    folder, reporter = Path(folder), reporter or usual()
    asked = False

    def read(source: object) -> tuple[Pairs | None, str]:
        """The pairs, or why they cannot be read any more."""
        nonlocal asked
        asked = True
        try:
            return read_pairs(source if pairs is None else pairs, reporter, columns), ""
        except HeadwiseError as error:
            if pairs is not None:
                raise
            return None, f"The pairs of this run cannot be read any more, so there are no pictures of queries. {error}"

    if not os.path.isdir(folder):  # unlike Path's, it takes any name
        raise nothing_in(folder)
    if (folder / RESULTS_FILE).is_file():
        results = finished(folder)
        given = read(results["data"]["source"])
        try:
            why = write_page(folder, results, *given)
        except MISSHAPEN as error:
            raise lacks(folder, repr(error)) from error
    else:
        why = write_measured(folder, read)
    if why:
        reporter.say(why)
    if pairs is not None and not asked:
        reporter.say("The pairs were not read: nothing on this page has pictures.")
    return folder / PAGE_FILE


def finished(folder: Path) -> dict[str, Any]:
    """The results of a finished run.

    Raises:
        HeadwiseError: there are none, or they cannot be read.
    """
    path = folder / RESULTS_FILE
    try:
        found = read_results(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise HeadwiseError(
            f"{folder} holds no {RESULTS_FILE}. Give the output folder of a finished headwise refine."
        ) from error
    except (OSError, Damaged) as error:
        raise HeadwiseError(
            f"{path} cannot be read ({error}). Run the refine again: it continues from its study."
        ) from error
    if not isinstance(found, dict) or "test" not in found:
        raise HeadwiseError(f"{path} is not what headwise refine writes. Give the folder of a finished refine.")
    for part, kinds in NEEDED.items():
        held = found.get(part)
        if not isinstance(held, dict):
            raise lacks(folder, part)
        for key, kind in kinds.items():
            if not isinstance(held.get(key), kind):
                raise lacks(folder, f"{part}.{key}")
    return found

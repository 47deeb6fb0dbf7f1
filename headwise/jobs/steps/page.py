"""`report.html` of a run: what its folder holds, put together.

In: the folder of a run, its results, its pairs. Out: the page. Nothing is evaluated: ranks come from the study, pictures
from the source. What is missing is said on the page in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup

from headwise.checked import Damaged, read_results
from headwise.data.pairs import Pairs
from headwise.errors import HeadwiseError
from headwise.evaluation.study import Study
from headwise.files import write_files
from headwise.jobs.steps.page_heads import FOLDER, explained_heads
from headwise.reports.compare import comparison_text
from headwise.reports.front import front_text
from headwise.reports.gallery import Gallery, gallery
from headwise.reports.markup import told
from headwise.reports.page import PAGE_FILE, page_html
from headwise.reports.transfer import transfer_text
from headwise.reports.weights import weights_section

EXPLANATION = FOLDER  # where `refine --explain` writes
SPLITS_FILE = "splits.json"
WEIGHTS = "Trained weights"
Ranks = Mapping[str, np.ndarray]
OTHERS: dict[str, tuple[str, Callable[[Mapping[str, Any]], str]]] = {  # of the commands of these names
    "Comparison": ("compare.json", comparison_text),
    "Transfer": ("transfer.json", transfer_text),
    "Front": ("front.json", front_text),
}


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
        others=[*trained_weights(results, folder), *others_in(folder)],
    )
    write_files(folder, {PAGE_FILE: text})
    return " ".join(reason for reason in (gone or why, heads.why) if reason)


def trained_weights(results: dict[str, Any], folder: Path) -> list[tuple[str, Markup]]:
    """Title and HTML of what the report says of trained weights, where there are any."""
    text = weights_section(results)
    return [(WEIGHTS, told(text, folder, WEIGHTS))] if text else []


def others_in(folder: Path) -> list[tuple[str, Markup]]:
    """Title and HTML of what compare, transfer and front left in a folder, of the numbers in their JSON files.

    Raises:
        HeadwiseError: one cannot be read.
    """
    found = []
    for title, (name, text) in OTHERS.items():
        path = folder / name
        if path.is_file():
            again = f"Run headwise {path.stem} again, or move it away."
            try:
                found.append((title, told(text(read_results(path)), folder, title)))
            except (OSError, Damaged) as error:
                raise HeadwiseError(f"{path} cannot be read ({error}). {again}") from error
            except (LookupError, TypeError, ValueError, AttributeError) as error:
                raise HeadwiseError(f"{path} lacks something ({error!r}). {again}") from error
    return found


def images_of(folder: Path, name: str, pairs: Pairs) -> list[int]:
    """The images of a split of a run, in its order.

    Raises:
        HeadwiseError: `splits.json` cannot be read, or names other images.
    """
    path = folder / SPLITS_FILE
    try:
        place = {one: i for i, one in enumerate(pairs.ids)}
        return [place[one] for one in read_results(path)[name]]
    except (OSError, Damaged, LookupError, TypeError) as error:
        raise HeadwiseError(
            f"{path} cannot be read ({error}). Run the refine again: it continues from its study and writes it."
        ) from error


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
                tested[one.mask.key] = tested[str(one.mask)] = one.score.ranks
    chosen = results["chosen"]  # by its key where there is one: learned edits are alike in words
    before, after = tested.get("identity"), tested.get(chosen.get("key", chosen["mask"]))
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
    return pairs.subset(images_of(folder, "test", pairs))

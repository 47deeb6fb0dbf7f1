"""`report.html` of a folder that holds no finished `refine`: what a sweep, an explanation or another command left there.

In: the folder, and how to read the pairs. Out: the page. Nothing is evaluated. Pairs are read for the pictures of an
explanation alone; an explanation of something else than the sweep is said and left out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from headwise.checked import MISSHAPEN, Damaged, read_results
from headwise.data.pairs import Pairs
from headwise.errors import HeadwiseError
from headwise.evaluation.fingerprints import recorded
from headwise.files import write_files
from headwise.jobs.steps.page import OTHERS, others_in
from headwise.jobs.steps.page_heads import FOLDER, JSON_FILE, explained_heads, explanation_in
from headwise.reports.head_cards import NONE, Heads
from headwise.reports.measured import measured_html
from headwise.reports.page import PAGE_FILE

SWEEP_FILE, SWEEP_STUDY = "sweep.json", "sweep.sqlite"
LOOKED_FOR = ("results.json", SWEEP_FILE, JSON_FILE, f"{FOLDER}/{JSON_FILE}", *(name for name, _ in OTHERS.values()))
ReadPairs = Callable[[object], tuple[Pairs | None, str]]


def write_measured(folder: Path, read: ReadPairs) -> str:
    """Write `report.html`.

    Arguments:
        folder: of `sweep`, `explain`, `compare`, `transfer` or `front`; or of several of them.
        read: the source by its name → its pairs, or None and why they cannot be read any more.

    Returns:
        What is missing on the page, and why; empty where all is there.

    Raises:
        HeadwiseError: nothing there to make a page of, a file that cannot be read, other pairs than those explained, or
            a folder that cannot be written.
    """
    others, sweep_path, path = others_in(folder), folder / SWEEP_FILE, explanation_in(folder)
    sweep = _loaded(sweep_path, "sweep") if sweep_path.is_file() else None
    if not (sweep or path or others):
        raise nothing_in(folder)
    explanation, heads = None, NONE
    if path is not None:
        explanation, heads = _explained(folder, path, sweep, read)
    try:
        text = measured_html(
            sweep,
            explanation,
            name=folder.resolve().name,
            heads=heads,
            others=others,
        )
    except MISSHAPEN as error:
        broken = " or ".join(str(one) for one, held in ((sweep_path, sweep), (path, explanation)) if held)
        raise HeadwiseError(f"{broken} lacks something ({error!r}). Run the command that wrote it again.") from error
    write_files(folder, {PAGE_FILE: text})
    return heads.why


def nothing_in(folder: Path) -> HeadwiseError:
    """What to say of a folder that no page can be made of."""
    return HeadwiseError(
        f"There is nothing in {folder} to make a page of. It was looked for: {', '.join(LOOKED_FOR)}. Give the output folder of a "
        "finished headwise refine, sweep, explain, compare, transfer or front."
    )


def _explained(
    folder: Path, path: Path, sweep: dict[str, Any] | None, read: ReadPairs
) -> tuple[dict[str, Any] | None, Heads]:
    """The explanation and the cards of its heads; no explanation where it is not of what the sweep measured."""
    study = recorded(folder / SWEEP_STUDY) if sweep else None
    if sweep and study is None:
        why = f"{SWEEP_STUDY} is gone, so nothing tells whether {path.name} is of the same model and pairs; it was left out."
        return None, Heads(why=why)
    try:
        explanation = _loaded(path, "explain")
        weights, pairs_hash = explanation["model"]["weights_hash"], explanation["data"]["hash"]
        source, edited = explanation["data"]["source"], [one["head"] for one in explanation["heads"] if one["edited"]]
        if study is not None:
            weights, pairs_hash = study["model"]["weights"], study["data"]["pairs"]
    except HeadwiseError as error:
        if not sweep:
            raise
        return None, Heads(why=f"{error} It was left out.")
    except MISSHAPEN as error:
        raise HeadwiseError(f"{path} lacks something ({error!r}). Run headwise explain again.") from error
    # what a run's results would say of the same
    about = {"model": {"weights_hash": weights}, "data": {"hash": pairs_hash}, "chosen": {"heads": edited}}
    heads = explained_heads(folder, about, None)
    if not heads.cards:
        if not sweep:
            raise HeadwiseError(heads.why)
        return None, heads
    pairs, gone = read(source)
    if pairs is None:
        return explanation, Heads(heads.cards, why=f"{heads.why} {gone}")
    if pairs.hash != pairs_hash:
        raise HeadwiseError(
            f"{pairs.name} holds other images or captions than {path} speaks of (hash {pairs.hash}, there {pairs_hash}). "
            "Give the pairs that were explained, with the same options."
        )
    return explanation, explained_heads(folder, about, pairs)


def _loaded(path: Path, command: str) -> dict[str, Any]:
    """A JSON file of results.

    Raises:
        HeadwiseError: it cannot be read, or is something else.
    """
    try:
        found = read_results(path)
    except (OSError, Damaged) as error:
        raise HeadwiseError(f"{path} cannot be read ({error}). Run headwise {command} again.") from error
    if not isinstance(found, dict) or not found:
        raise HeadwiseError(f"{path} is not what headwise {command} writes. Run headwise {command} again.")
    return found

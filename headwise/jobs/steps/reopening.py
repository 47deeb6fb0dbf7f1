"""A finished run opened again: its results, its model, its pairs, its splits, each checked to be the run's own.

In: the folder of a `refine`, and the pairs if they have moved. Out: `Model`, `Pairs`, `Splits`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from headwise.checked import MISSHAPEN
from headwise.data.pairs import Pairs
from headwise.data.splits import NAMES, Splits
from headwise.errors import HeadwiseError
from headwise.jobs.steps.distractors import hash_of, texts_of
from headwise.jobs.steps.opening import Machine, PairsLike, load_model, read_pairs
from headwise.jobs.steps.page import images_of
from headwise.jobs.steps.progress import Reporter
from headwise.jobs.steps.tasks import FITNESSES, Goal
from headwise.towers import Model
from headwise.towers.overrides import Overrides
from headwise.wording import option

RESULTS_FILE = "results.json"


@contextmanager
def as_written(folder: Path) -> Iterator[None]:
    """Inside, what a run's results hold is used.

    Raises:
        HeadwiseError: they have not the shape that `refine` gives them; somebody changed them by hand.
    """
    try:
        yield
    except MISSHAPEN as error:
        raise lacks(folder, repr(error)) from error


def lacks(folder: Path, what: str) -> HeadwiseError:
    """What to say of results without something that `refine` writes."""
    return HeadwiseError(
        f"{folder / RESULTS_FILE} lacks something ({what}). Run the refine again: it continues from its study."
    )


def model_of(folder: Path, results: Mapping[str, Any], machine: Machine) -> Model:
    """The model of a run, with the run's own overrides.

    Raises:
        HeadwiseError: it cannot be loaded, or has other weights now.
    """
    with as_written(folder):
        overrides = Overrides(**results["model"].get("overrides", {}))
        name = str(results["model"]["name"])
    model = load_model(name, replace(machine, overrides=overrides))
    if model.tower.weights_hash != results["model"]["weights_hash"]:
        raise HeadwiseError(
            f"{model.name} has other weights than the model of the run in {folder} (hash {model.tower.weights_hash}, "
            f"there {results['model']['weights_hash']}). Put that model back, or run refine again."
        )
    return model


def pairs_of(
    folder: Path,
    results: Mapping[str, Any],
    pairs: PairsLike | None,
    reporter: Reporter,
    columns: Mapping[str, object],
) -> Pairs:
    """The pairs of a run, where they are now; None: where they were.

    Raises:
        HeadwiseError: they cannot be read, or hold other images or captions.
    """
    whole = read_pairs(results["data"]["source"] if pairs is None else pairs, reporter, columns)
    if whole.hash != results["data"]["hash"]:
        raise HeadwiseError(
            f"{whole.name} holds other images or captions than the run in {folder} saw (hash {whole.hash}, there "
            f"{results['data']['hash']}). Give the pairs of that run, with the same options."
        )
    return whole


def splits_of(folder: Path, results: Mapping[str, Any], whole: Pairs) -> Splits:
    """The splits of a run.

    Raises:
        HeadwiseError: splits.json cannot be read, or names other images.
    """
    parts = {name: tuple(sorted(images_of(folder, name, whole))) for name in NAMES}
    return Splits(**parts, how=results["data"]["split_how"], hash=results["data"]["split_hash"])


def goal_of(folder: Path, goal: Goal, results: Mapping[str, Any]) -> Goal:
    """With the run's own fitness and distractors where none were asked for; a mixture has its parts' own.

    Raises:
        HeadwiseError: the distractors are not there any more, or others.
    """
    with as_written(folder):
        fitness = results["settings"].get("objective", {}).get("fitness", "auto")
        goal = replace(goal, fitness=fitness) if goal.fitness == "auto" and fitness in FITNESSES else goal
        told = results["data"].get("distractors")
        if told is None:
            return goal
        source, known = str(told["source"]), told["hash"]
    given = source if goal.distractors is None else goal.distractors
    try:
        same = hash_of(texts_of(given)) == known
    except HeadwiseError as error:
        raise HeadwiseError(
            f"The run had {source} as distractors, which are needed again. {error} Give them with "
            f"{option('distractors', 'FILE')}."
        ) from error
    if not same:
        raise HeadwiseError(f"{given} holds other distractors than the run had. Give those of the run.")
    return replace(goal, distractors=given)

"""refine, and what all verbs share: model and pairs as users give them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headwise.applied.merge import check_folds
from headwise.applied.merge import merge as write_merged
from headwise.data.pairs import Pairs
from headwise.data.read import read
from headwise.data.splits import NAMES, Splits, split
from headwise.edits.artefact import save_mask, write_files
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import check_device
from headwise.jobs.refine import find
from headwise.jobs.steps.bench import Bench, prepare
from headwise.jobs.steps.keeping import with_kept
from headwise.jobs.steps.progress import Reporter, Silent, counted
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.tasks import Goal
from headwise.towers import Model, load

ModelLike = str | Model
PairsLike = object  # anything that headwise.read takes


@dataclass(frozen=True)
class Machine:
    """Where and in what precision to run.

    Arguments:
        dtype: `auto`, `float32` or `bfloat16`.
        device: `cpu`, `cuda`, …
        chunk: images a chunk; None: what fits the processor.
        cache_dir: where preprocessed images and caption embeddings are kept.
        cache_size: most bytes of preprocessed images to keep there; None: $HEADWISE_CACHE_SIZE, or no bound.
    """

    dtype: str = "auto"
    device: str = "cpu"
    chunk: int | None = None
    cache_dir: Path | None = None
    cache_size: int | None = None


@dataclass(frozen=True)
class Refined:
    """What `refine` found.

    Arguments:
        mask: the chosen mask; identity when no harmful heads were found.
        results: everything that was measured, as in `results.json`.
        folder: where the artefacts are; None when none were asked for.
    """

    mask: Mask
    results: Mapping
    folder: Path | None


def refine(
    model: ModelLike,
    pairs: PairsLike,
    out: str | Path | None = None,
    *,
    settings: Settings | None = None,
    goal: Goal | None = None,
    machine: Machine | None = None,
    split_by: str = "auto",
    keep: Sequence[PairsLike] = (),
    reporter: Reporter | None = None,
    **columns: object,
) -> Refined:
    """Find the heads that hurt a model on these pairs, prove it on held-out pairs, write the refined model.

    Arguments:
        model: a name (`hf:openai/clip-vit-base-patch32`, a folder, `demo`) or what `load` or `wrap` gave.
        pairs: a source as `headwise.read` takes it.
        out: the output folder: `head_mask.json`, `model/`, `results.json`, `splits.json`, `report.md`, `heads.png`,
            `study.sqlite`. The same call on the same folder continues where it was interrupted.
        settings: how to search and select.
        goal: what to maximise; by default mean recall for captions, accuracy for labels.
        machine: precision, device, cache.
        split_by: see `headwise.data.splits.split`.
        keep: pairs of other domains, on whose pick split the mask may lose at most `settings.max_loss` points.
        reporter: where progress goes.
        columns: passed to `headwise.read`: image, caption, split, group, skip_bad, …

    Raises:
        HeadwiseError: bad input of any kind; the message says what to do.
    """
    reporter, settings = reporter or Silent(), settings or Settings()
    folder = Path(out) if out is not None else None
    if folder is not None:
        check_folder(folder)
    machine = machine or Machine()
    ready, given = load_model(model, machine), read_pairs(pairs, reporter, columns)
    # for a fitness over groups they are an attribute that every split needs, not something to hold out
    splits = split(given, by=split_by, seed=settings.seed, keep_groups=goal is None or "group" not in goal.fitness)
    reporter.say(
        f"{given.name}: {len(given):,} images, {given.text_count:,} captions; split {splits.how}, hash {splits.hash}."
    )
    bench = prepared(ready, given, splits, folder and folder / "study.sqlite", goal, machine, reporter)
    bench = with_kept(bench, kept_benches(ready, keep, folder, settings.seed, machine, reporter))
    mask, results = find(bench, settings)
    if folder is not None:
        write_artefacts(bench, mask, results, folder, reporter)
    return Refined(mask, results, folder)


# ---- artefacts


def write_artefacts(bench: Bench, mask: Mask, results: dict, folder: Path, reporter: Reporter) -> None:
    """The mask, the report, the results and the merged model; each appears whole or not at all."""
    from headwise.report.card import model_card
    from headwise.report.report import write_report

    card = model_card(results)
    save_mask(mask, folder, card=card)
    try:
        check_folds(bench.model.tower, mask)
    except HeadwiseError as reason:
        reporter.say(f"No model/ was written. {reason}")
    else:
        report = write_merged(
            bench.model,
            mask,
            folder / "model",
            pixels=bench.cache.take(bench.splits.test[:32]),
            card=model_card(results, merged=True),
            overwrite=True,
        )
        reporter.say(
            f"Merged model: largest difference to the masked model {report.largest_difference:.2e} "
            f"({report.relative_difference:.2e} relative) on {report.images} images."
        )
    write_report(results, folder)
    write_files(folder, {"splits.json": dump(splits_json(bench)), "results.json": dump(results)})


def splits_json(bench: Bench) -> dict[str, object]:
    """Which image was in which split, by the names that the source gives them."""
    names = {name: [bench.pairs.ids[i] for i in bench.indices(name)] for name in NAMES}
    return {"source": bench.pairs.name, "how": bench.splits.how, "hash": bench.splits.hash, **names}


def dump(results: Mapping) -> str:
    return json.dumps(results, indent=2, ensure_ascii=False) + "\n"


# ---- parts of the verbs


def check_folder(folder: Path) -> None:
    """
    Raises:
        HeadwiseError: an output folder that holds something that headwise did not write.
    """
    if folder.exists() and not folder.is_dir():
        raise HeadwiseError(f"{folder} is a file; the output has to be a folder.")
    if folder.is_dir() and not any(folder.glob("*.sqlite")) and any(folder.iterdir()):
        raise HeadwiseError(
            f"{folder} is not empty and holds no headwise study. Choose another output folder, or empty this one."
        )


def load_model(model: ModelLike, machine: Machine) -> Model:
    if isinstance(model, Model):
        return model
    check_device(machine.device)
    return replace(load(model, device=machine.device), name=model)


def read_pairs(pairs: PairsLike, reporter: Reporter, columns: Mapping[str, object]) -> Pairs:
    with counted(reporter, "Checking images", "images") as tell:
        given = read(pairs, progress=tell, **columns)  # type: ignore[arg-type]
    if given.skipped:
        reporter.say(f"{given.skipped:,} bad rows of {given.name} were skipped.")
    return given


def whole(pairs: Pairs) -> Splits:
    """All images as one split."""
    everything = tuple(range(len(pairs)))
    return Splits(everything, everything, everything, how="all images", hash=pairs.hash)


def kept_benches(
    model: Model, keep: Sequence[PairsLike], folder: Path | None, seed: int, machine: Machine, reporter: Reporter
) -> list[Bench]:
    """The kept domains, each with a study of its own; columns and goal are what the source itself says."""
    benches = []
    for number, source in enumerate(keep, 1):
        pairs = read_pairs(source, reporter, {})
        splits = split(pairs, seed=seed)
        reporter.say(f"Kept domain {pairs.name}: {len(pairs):,} images; split {splits.how}.")
        study = folder and folder / f"kept-{number}.sqlite"
        benches.append(prepared(model, pairs, splits, study, None, machine, reporter))
    return benches


def prepared(
    model: Model,
    pairs: Pairs,
    splits: Splits,
    study: Path | None,
    goal: Goal | None,
    machine: Machine,
    reporter: Reporter,
) -> Bench:
    return prepare(
        model,
        pairs,
        splits,
        goal=goal,
        dtype=machine.dtype,
        device=machine.device,
        chunk=machine.chunk,
        study=study,
        cache_dir=machine.cache_dir,
        cache_size=machine.cache_size,
        reporter=reporter,
    )

"""refine, sweep, evaluate, merge: the verbs as the Python API offers them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from headwise.artefact import load_mask, save_mask, write_files
from headwise.data.pairs import Pairs
from headwise.data.read import read
from headwise.data.splits import Splits, split
from headwise.engine import ffe, head_means, with_means
from headwise.errors import HeadwiseError
from headwise.export.merge import MergeReport, check_folds
from headwise.export.merge import merge as write_merged
from headwise.jobs.bench import Bench, prepare
from headwise.jobs.progress import Reporter, Silent, counted
from headwise.jobs.refine import find
from headwise.jobs.results import sweep_json
from headwise.jobs.searching import metered
from headwise.jobs.settings import Settings
from headwise.mask import Mask
from headwise.search.sweep import Sweep
from headwise.search.sweep import sweep as run_sweep
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
    """

    dtype: str = "auto"
    device: str = "cpu"
    chunk: int | None = None
    cache_dir: Path | None = None


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
    machine: Machine | None = None,
    split_by: str = "auto",
    reporter: Reporter | None = None,
    **columns: object,
) -> Refined:
    """Find the heads that hurt a model on these pairs, prove it on held-out pairs, write the refined model.

    Arguments:
        model: a name (`hf:openai/clip-vit-base-patch32`, a folder, `demo`) or what `load` or `wrap` gave.
        pairs: a source as `headwise.read` takes it.
        out: the output folder: `head_mask.json`, `model/`, `results.json`, `report.md`, `heads.png`,
            `study.sqlite`. The same call on the same folder continues where it was interrupted.
        settings: how to search and select.
        machine: precision, device, cache.
        split_by: see `headwise.data.splits.split`.
        reporter: where progress goes.
        columns: passed to `headwise.read`: image, caption, split, group, skip_bad, …

    Raises:
        HeadwiseError: bad input of any kind; the message says what to do.
    """
    reporter, settings = reporter or Silent(), settings or Settings()
    folder = Path(out) if out is not None else None
    if folder is not None:
        _check_folder(folder)
    bench = _bench(model, pairs, folder, machine or Machine(), split_by, settings.seed, reporter, columns)
    mask, results = find(bench, settings)
    if folder is not None:
        write_artefacts(bench, mask, results, folder, reporter)
    return Refined(mask, results, folder)


def sweep(
    model: ModelLike,
    pairs: PairsLike,
    out: str | Path | None = None,
    *,
    operator: str = "uniform",
    machine: Machine | None = None,
    reporter: Reporter | None = None,
    **columns: object,
) -> tuple[Sweep, Mapping]:
    """The effect of suppressing every single head, on all the pairs given (nothing is held out).

    Arguments:
        out: a folder for `sweep.json`, `heads.png` and the study; None writes nothing.
        operator: what a suppressed head emits.
        others: as for `refine`.

    Returns:
        The sweep, and its results as plain JSON values.

    Raises:
        HeadwiseError: bad input of any kind.
    """
    from headwise.report.heatmap import heatmap_png

    reporter = reporter or Silent()
    folder = Path(out) if out is not None else None
    ready, given = _load(model, machine or Machine()), _read(pairs, reporter, columns)
    bench = _prepare(ready, given, _whole(given), folder, "sweep.sqlite", machine or Machine(), reporter)
    bench.tower.check_operator(operator)
    evaluate, grid = bench.evaluator("search"), bench.tower.grid
    if operator == "mean":
        evaluate.means = bench.means
    with metered(bench, evaluate, f"Sweep ({operator})", ffe(bench.tower, [Mask.suppress(grid, [h]) for h in grid])):
        swept = run_sweep(evaluate, grid, operator)
    results = {
        "format": 1,
        "model": ready.name,
        "data": {"source": given.name, "images": len(given), "captions": len(given.texts)},
        "sweep": sweep_json(swept, seed=0),
        "ffe": evaluate.spent,
    }
    if folder is not None:
        picture = heatmap_png({"model": bench.model_json(), "sweep": [results["sweep"]]})
        write_files(folder, {"heads.png": picture, "sweep.json": _dump(results)})
    return swept, results


def evaluate(
    model: ModelLike,
    pairs: PairsLike,
    mask: Mask | str | Path | None = None,
    *,
    only_split: str | None = None,
    machine: Machine | None = None,
    check_weights: bool = True,
    reporter: Reporter | None = None,
    **columns: object,
) -> dict:
    """Retrieval metrics of a model, with or without a mask.

    Arguments:
        mask: a mask, a folder that holds one, or text such as `zero:L10.H3`; None: the model as it is.
        only_split: evaluate these images alone, as the source's split column names them.
        others: as for `refine`.

    Returns:
        {dataset, model, mask, images, captions, metrics}, metrics as clip_benchmark names them.

    Raises:
        HeadwiseError: bad input of any kind, or a mask for another model.
    """
    from headwise.live import check_fits

    reporter, machine = reporter or Silent(), machine or Machine()
    ready, given = _load(model, machine), _read(pairs, reporter, columns)
    if only_split is not None:
        given = choose_split(given, only_split)
    chosen = read_mask(mask, ready)
    check_fits(ready.tower, chosen, check_weights=check_weights)
    bench = _prepare(ready, given, _whole(given), None, "", machine, reporter)
    evaluator = bench.evaluator("search")
    if chosen.operator == "mean" and not chosen.means:
        raise HeadwiseError("A mask of operator 'mean' needs its constants: give the folder that refine wrote.")
    with metered(bench, evaluator, "Evaluating", evaluator.cost([chosen])):
        score = evaluator([chosen])[0]
    return {
        "dataset": given.name,
        "model": ready.name,
        "mask": str(chosen),
        "images": len(given),
        "captions": len(given.texts),
        "metrics": score.metrics,
    }


def merge(
    model: ModelLike,
    mask: Mask | str | Path,
    out: str | Path,
    *,
    means_from: PairsLike | None = None,
    machine: Machine | None = None,
    check_weights: bool = True,
    overwrite: bool = False,
    reporter: Reporter | None = None,
) -> MergeReport:
    """Fold a mask into the model's weights and write an ordinary model folder, checked against the masked model.

    Arguments:
        mask: a mask, a folder that holds one, or text such as `zero:L10.H3`.
        out: the folder to write.
        means_from: for a mask of operator `mean` without constants: pairs to compute them on.
        others: as for `refine`.

    Raises:
        HeadwiseError: a mask that does not fit or does not fold, or a folder that is taken.
    """
    machine, reporter = machine or Machine(), reporter or Silent()
    ready = _load(model, machine)
    chosen = read_mask(mask, ready)
    if chosen.operator == "mean" and not chosen.means and means_from is not None:
        given = _read(means_from, reporter, {})
        bench = _prepare(ready, given, _whole(given), None, "", machine, reporter)
        chosen = with_means(chosen, head_means(bench.tower, bench.cache, bench.layout))
    return write_merged(ready, chosen, out, check_weights=check_weights, overwrite=overwrite)


def read_mask(mask: Mask | str | Path | None, model: Model) -> Mask:
    """A mask from an object, a folder, a hub id, or text such as `zero:L10.H3,L11.H0`."""
    if mask is None:
        return Mask.identity(model.tower.grid)
    if isinstance(mask, Mask):
        return mask
    if isinstance(mask, str) and (mask == "identity" or ":L" in mask or ":pool" in mask):
        return Mask.parse(model.tower.grid, mask)
    return load_mask(mask)


def choose_split(pairs: Pairs, name: str) -> Pairs:
    """The images of one split of the source's own.

    Raises:
        HeadwiseError: the source has no splits, or none of that name.
    """
    if pairs.splits is None:
        raise HeadwiseError(f"{pairs.name} has no split column, so there is no split {name!r} to choose.")
    indices = [i for i, given in enumerate(pairs.splits) if given == name]
    if not indices:
        raise HeadwiseError(f"{pairs.name} has no split {name!r}; it has: {', '.join(sorted(set(pairs.splits)))}.")
    return pairs.subset(indices)


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
    write_files(folder, {"results.json": _dump(results)})


def _dump(results: Mapping) -> str:
    return json.dumps(results, indent=2, ensure_ascii=False) + "\n"


# ---- parts of the verbs


def _check_folder(folder: Path) -> None:
    if folder.exists() and not folder.is_dir():
        raise HeadwiseError(f"{folder} is a file; the output has to be a folder.")
    if folder.is_dir() and not (folder / "study.sqlite").exists() and any(folder.iterdir()):
        raise HeadwiseError(
            f"{folder} is not empty and holds no headwise study. Choose another output folder, or empty this one."
        )


def _bench(
    model: ModelLike,
    pairs: PairsLike,
    folder: Path | None,
    machine: Machine,
    split_by: str,
    seed: int,
    reporter: Reporter,
    columns: Mapping[str, object],
) -> Bench:
    ready, given = _load(model, machine), _read(pairs, reporter, columns)
    splits = split(given, by=split_by, seed=seed)
    reporter.say(f"{given.name}: {len(given):,} images, {len(given.texts):,} captions; split {splits.how}.")
    return _prepare(ready, given, splits, folder, "study.sqlite", machine, reporter)


def _load(model: ModelLike, machine: Machine) -> Model:
    if isinstance(model, Model):
        return model
    return replace(load(model, device=machine.device), name=model)


def _read(pairs: PairsLike, reporter: Reporter, columns: Mapping[str, object]) -> Pairs:
    with counted(reporter, "Checking images", "images") as tell:
        given = read(pairs, progress=tell, **columns)  # type: ignore[arg-type]
    if given.skipped:
        reporter.say(f"{given.skipped:,} bad rows of {given.name} were skipped.")
    if not given.texts:
        raise HeadwiseError(f"{given.name} has no captions; retrieval needs one or more for every image.")
    return given


def _whole(pairs: Pairs) -> Splits:
    """All images as one split."""
    everything = tuple(range(len(pairs)))
    return Splits(everything, everything, everything, how="all images", hash=pairs.hash)


def _prepare(
    model: Model, pairs: Pairs, splits: Splits, folder: Path | None, file: str, machine: Machine, reporter: Reporter
) -> Bench:
    return prepare(
        model,
        pairs,
        splits,
        dtype=machine.dtype,
        device=machine.device,
        chunk=machine.chunk,
        study=folder / file if folder is not None else None,
        cache_dir=machine.cache_dir,
        reporter=reporter,
    )

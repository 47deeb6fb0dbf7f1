"""sweep, evaluate, merge: the verbs that need no search."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING

from headwise.applied.merge import MergeReport
from headwise.applied.merge import merge as write_merged
from headwise.data.pairs import Pairs, joined
from headwise.data.splits import evaluation_part
from headwise.edits.artefact import load_mask, write_files
from headwise.edits.mask import Mask
from headwise.edits.operators import canonical_operator
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import ffe, head_means, with_means
from headwise.jobs.steps.progress import Reporter, Silent
from headwise.jobs.steps.results import first_order_json, sweep_json
from headwise.jobs.steps.starting import first_order, metered
from headwise.jobs.steps.tasks import Goal
from headwise.jobs.verbs import Machine, ModelLike, PairsLike, dump, load_model, prepared, read_pairs, whole
from headwise.scoring.per_query import queries_of, write_per_query
from headwise.scoring.reference import compare, reference_for
from headwise.search.sweep import Sweep
from headwise.search.sweep import sweep as run_sweep
from headwise.towers import Model

if TYPE_CHECKING:
    import pyarrow as pa


def sweep(
    model: ModelLike,
    pairs: PairsLike,
    out: str | Path | None = None,
    *,
    operator: str = "uniform",
    taylor: bool = False,
    goal: Goal | None = None,
    machine: Machine | None = None,
    reporter: Reporter | None = None,
    **columns: object,
) -> tuple[Sweep, Mapping]:
    """The effect of suppressing every single head, on all the pairs given (nothing is held out).

    Arguments:
        out: a folder for `sweep.json`, `heads.png` and the study; None writes nothing.
        operator: what a suppressed head emits.
        taylor: first-order scores too (one gradient pass), with their rank correlation with the sweep.
        others: as for `refine`.

    Returns:
        The sweep, and its results as plain JSON values.

    Raises:
        HeadwiseError: bad input of any kind.
    """
    from headwise.report.heatmap import heatmap_png

    reporter = reporter or Silent()
    folder = Path(out) if out is not None else None
    machine = machine or Machine()
    operator = canonical_operator(operator)
    ready, given = load_model(model, machine), read_pairs(pairs, reporter, columns)
    bench = prepared(ready, given, whole(given), folder and folder / "sweep.sqlite", goal, machine, reporter)
    bench.tower.check_operator(operator)
    evaluate, grid = bench.evaluator("search"), bench.tower.grid
    if operator == "mean":
        evaluate.means = bench.means
    with metered(bench, evaluate, f"Sweep ({operator})", ffe(bench.tower, [Mask.suppress(grid, [h]) for h in grid])):
        swept = run_sweep(evaluate, grid, operator)
    results = {
        "format": 1,
        "model": ready.name,
        "data": {"source": given.name, "images": len(given), "captions": given.text_count},
        "settings": {"objective": dict(bench.objective("search").spec)},
        "sweep": sweep_json(swept, seed=0),
        "first_order": first_order_json(first_order(bench, evaluate, operator), swept) if taylor else None,
        "ffe": evaluate.spent,
    }
    if folder is not None:
        picture = heatmap_png(results | {"model": bench.model_json(), "sweep": [results["sweep"]]})
        write_files(folder, {"heads.png": picture, "sweep.json": dump(results)})
    return swept, results


def evaluate(
    model: ModelLike,
    pairs: PairsLike,
    mask: Mask | str | Path | None = None,
    *,
    only_split: str | None = None,
    goal: Goal | None = None,
    per_query: str | Path | None = None,
    machine: Machine | None = None,
    check_weights: bool = True,
    reporter: Reporter | None = None,
    **columns: object,
) -> dict:
    """Metrics of a model on one source, with or without a mask.

    Arguments:
        mask: a mask, a folder that holds one, or text such as `zero:L10.H3`; None: the model as it is.
        only_split: evaluate these images alone, as the source's split column names them; by default the test
            images of a source with several splits, all images of any other.
        per_query: a Parquet file to write, one row per query with the rank of what it should find.
        others: as for `refine`.

    Returns:
        {dataset, model, mask, task, images, captions, metrics}, metrics as clip_benchmark names them; `reference`,
        where the model and data are known: [{metric, expected, measured, deviates}].

    Raises:
        HeadwiseError: bad input of any kind, or a mask for another model.
    """
    found, queries = measured(
        model,
        pairs,
        mask,
        only_split=only_split,
        goal=goal,
        queries=per_query is not None,
        machine=machine,
        check_weights=check_weights,
        reporter=reporter,
        **columns,
    )
    if per_query is not None and queries is not None:
        write_per_query([queries], per_query)
    return found


def measured(
    model: ModelLike,
    pairs: PairsLike,
    mask: Mask | str | Path | None = None,
    *,
    only_split: str | None = None,
    goal: Goal | None = None,
    queries: bool = False,
    machine: Machine | None = None,
    check_weights: bool = True,
    reporter: Reporter | None = None,
    **columns: object,
) -> tuple[dict, pa.Table | None]:
    """As `evaluate`, with the table of every query where `queries` asks for it."""
    from headwise.applied.live import check_fits

    reporter, machine = reporter or Silent(), machine or Machine()
    ready, given = load_model(model, machine), read_pairs(pairs, reporter, columns)
    given = evaluation_part(given) if only_split is None else choose_split(given, only_split)
    chosen = read_mask(mask, ready)
    check_fits(ready.tower, chosen, check_weights=check_weights)
    bench = prepared(ready, given, whole(given), None, goal, machine, reporter)
    evaluator = bench.evaluator("search")
    if chosen.operator == "mean" and not chosen.means and not chosen.is_identity:
        raise HeadwiseError("A mask of operator 'mean' needs its constants: give the folder that refine wrote.")
    with metered(bench, evaluator, "Evaluating", evaluator.cost([chosen])):
        score = evaluator([chosen])[0]
    published = reference_for(ready.name, given.name, len(given)) if chosen.is_identity else None
    found = {
        "dataset": given.name,
        "model": ready.name,
        "mask": str(chosen),
        "task": bench.task.title,
        "images": len(given),
        "captions": given.text_count,
        "metrics": score.metrics,
        "reference": [asdict(row) for row in compare(published, score.metrics)] if published else [],
    }
    return found, queries_of(given, score.ranks) if queries else None


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
    ready = load_model(model, machine)
    chosen = read_mask(mask, ready)
    if chosen.operator == "mean" and not chosen.means and means_from is not None:
        given = read_pairs(means_from, reporter, {})
        bench = prepared(ready, given, whole(given), None, None, machine, reporter)
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
    if pairs.parts:
        return joined(pairs.name, [replace(part, pairs=choose_split(part.pairs, name)) for part in pairs.parts])
    if pairs.splits is None:
        raise HeadwiseError(f"{pairs.name} has no split column, so there is no split {name!r} to choose.")
    indices = [i for i, given in enumerate(pairs.splits) if given == name]
    if not indices:
        raise HeadwiseError(f"{pairs.name} has no split {name!r}; it has: {', '.join(sorted(set(pairs.splits)))}.")
    return pairs.subset(indices)

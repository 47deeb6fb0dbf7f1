"""evaluate: metrics of a model on a source, with or without a mask.

In: a model, pairs, perhaps a mask. Out: metrics as clip_benchmark names them and, if asked for, every query's rank.
Nothing is searched and nothing is kept in a study.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from headwise.data.splits import evaluation_part
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.jobs.steps.clean import unseen
from headwise.jobs.steps.findings import Findings
from headwise.jobs.steps.masks import check_bound, mask_inside, read_mask
from headwise.jobs.steps.opening import (
    Machine,
    ModelLike,
    PairsLike,
    choose_split,
    load_model,
    prepared,
    read_pairs,
    whole,
)
from headwise.jobs.steps.paired import check_by, names_of, paired
from headwise.jobs.steps.progress import Reporter, metered, usual
from headwise.jobs.steps.reads import remember_reads
from headwise.jobs.steps.tasks import Goal
from headwise.scoring.per_query import check_place, queries_of, write_per_query
from headwise.scoring.reference import compare, reference_for
from headwise.wording import option

if TYPE_CHECKING:
    import pyarrow as pa


def evaluate(
    model: ModelLike,
    pairs: PairsLike,
    mask: Mask | str | Path | None = None,
    *,
    against: Mask | str | Path | None = None,
    by: str | None = None,
    only_split: str | None = None,
    goal: Goal | None = None,
    per_query: str | Path | None = None,
    machine: Machine | None = None,
    check_weights: bool = True,
    allow_searched: bool = False,
    reporter: Reporter | None = None,
    **columns: object,
) -> Findings:
    """Metrics of a model on one source, with or without a mask.

    Arguments:
        mask: a mask, a folder that holds one, or text such as `L10.H3=zero`; None: the model as it is.
        against: another mask, or `identity`, the unchanged model: how far `mask` is from it on the same images.
        by: `class` or `group`: that change for each class, or for each value of the group column; needs `against`.
        only_split: evaluate these images alone, as the source's split column names them; by default the test
            images of a source with several splits, all images of any other.
        allow_searched: score images, too, that the mask was searched or picked on; by default they are left out.
        per_query: a Parquet file to write, one row per query with the rank of what it should find.
        others: as for `refine`.

    Returns:
        {dataset, model, mask, task, images, captions, searched, test_reads_cache, equal_captions, metrics}:
        `searched` says how many images the mask had seen and whether they were left out; metrics as clip_benchmark names them; `reference`,
        where the model and data are known: [{metric, expected, measured, deviates}]; `against`: what `paired` in
        `steps/paired.py` returns, and the other mask.

    Raises:
        HeadwiseError: bad input of any kind, a mask for another model, or data that it was searched on.
    """
    if per_query is not None:
        check_place(per_query)
    found, queries = measured(
        model,
        pairs,
        mask,
        against=against,
        by=by,
        only_split=only_split,
        goal=goal,
        queries=per_query is not None,
        machine=machine,
        check_weights=check_weights,
        allow_searched=allow_searched,
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
    against: Mask | str | Path | None = None,
    by: str | None = None,
    only_split: str | None = None,
    goal: Goal | None = None,
    queries: bool = False,
    machine: Machine | None = None,
    check_weights: bool = True,
    allow_searched: bool = False,
    reporter: Reporter | None = None,
    **columns: object,
) -> tuple[Findings, pa.Table | None]:
    """As `evaluate`, with the table of every query where `queries` asks for it.

    Raises:
        HeadwiseError: as `evaluate`.
    """
    from headwise.towers.fits import check_fits, check_functions

    reporter, machine = reporter or usual(), machine or Machine()
    check_by(by)
    if by is not None and against is None:
        raise HeadwiseError(f"{option('by', by)} tells a change apart; give {option('against', 'identity')} with it.")
    ready = load_model(model, machine)
    chosen, other = read_mask(mask, ready), None if against is None else read_mask(against, ready)
    masks = [chosen] if other is None else [chosen, other]
    for one in masks:
        check_fits(ready.tower, one, check_weights=check_weights)
        check_functions(ready, one, check_weights=check_weights)
        check_bound(one)
    given = read_pairs(pairs, reporter, columns)
    goal = goal and goal.of(given)
    given = evaluation_part(given) if only_split is None else choose_split(given, only_split)
    # the unchanged model was searched on nothing; a folder that a mask was folded into was
    inside = mask_inside(ready)
    searched_by = [*(one for one in masks if not one.is_identity), *([inside] if inside else [])]
    given, searched = unseen(given, searched_by, allow_searched, reporter)
    names = None if by is None else names_of(given, by)
    bench = prepared(ready, given, whole(given), None, goal, machine, reporter)
    evaluator = bench.evaluator("search")
    with metered(bench.reporter, evaluator, "Evaluating", evaluator.cost(masks)):
        score, *others = evaluator(masks)
    plain = chosen.is_identity and not bench.task.told
    published = reference_for(ready.name, given.name, len(given)) if plain else None
    found = {
        "dataset": given.name,
        "model": ready.name,
        **({"overrides": ready.overrides.given} if ready.overrides.given else {}),
        "mask": str(chosen),
        "task": bench.task.title,
        "images": len(given),
        "captions": given.text_count,
        "searched": {"images": searched, "left_out": not allow_searched},
        "test_reads_cache": remember_reads(bench, "test", [one for one in masks if not one.is_identity]),
        "equal_captions": {"rule": given.equal_captions, "captions": given.repeated},
        **bench.task.told,
        "metrics": score.metrics,
        "reference": [asdict(row) for row in compare(published, score.metrics)] if published else [],
    }
    if other is not None:
        told = paired(given, score, others[0], names=names)
        found["against"] = {"mask": str(other), "fitness": bench.task.fitness, "by": by, **told}
    return Findings(found), queries_of(given, score.ranks) if queries else None

"""sweep: the effect of suppressing every single head, on all the pairs given.

In: a model, pairs, an operator. Out: a change of the score per head with a p that accounts for having looked at all of
them, `sweep.json` and the heat map. Nothing is held out, so nothing is proved: that is what `refine` is for.
"""

from __future__ import annotations

from pathlib import Path

from headwise.edits.edit import canonical, unbound
from headwise.errors import HeadwiseError
from headwise.evaluation.evaluator import Evaluator
from headwise.files import write_files
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.budget import starting_cost
from headwise.jobs.steps.findings import Findings
from headwise.jobs.steps.opening import Machine, ModelLike, PairsLike, dump, load_model, prepared, read_pairs, whole
from headwise.jobs.steps.progress import Reporter, metered, usual
from headwise.jobs.steps.results import first_order_json, sweep_json
from headwise.jobs.steps.starting import first_order as score_heads
from headwise.jobs.steps.tasks import Goal
from headwise.search.first_order import edits_of
from headwise.search.sweep import Sweep
from headwise.search.sweep import sweep as run_sweep
from headwise.wording import option


def sweep(
    model: ModelLike,
    pairs: PairsLike,
    out: str | Path | None = None,
    *,
    operator: str = "uniform",
    first_order: bool = False,
    goal: Goal | None = None,
    machine: Machine | None = None,
    reporter: Reporter | None = None,
    **columns: object,
) -> tuple[Sweep, Findings]:
    """The effect of suppressing every single head, on all the pairs given (nothing is held out).

    Arguments:
        out: a folder for `sweep.json`, `heads.png`, `first_order.png` and the study; None writes nothing.
        operator: what a suppressed head emits.
        first_order: first-order scores too, of every head and every edit (one gradient pass), with their rank
            correlation with the sweep.
        others: as for `refine`.

    Returns:
        The sweep, and its results as plain JSON values.

    Raises:
        HeadwiseError: bad input of any kind.
    """
    from headwise.reports.heatmap import first_order_png, heatmap_png

    reporter = reporter or usual()
    folder = Path(out) if out is not None else None
    machine = machine or Machine()
    operator = canonical(operator)
    if folder is not None and (folder / "results.json").is_file():
        raise HeadwiseError(
            f"{folder} holds a run of refine, whose heat map would be replaced. Give another {option('out', 'FOLDER')}."
        )
    ready = load_model(model, machine)
    ready.tower.check_edit(operator)
    given = read_pairs(pairs, reporter, columns)
    bench = prepared(ready, given, whole(given), folder and folder / "sweep.sqlite", goal, machine, reporter)
    evaluate, grid = bench.evaluator("search"), bench.tower.grid
    if unbound([operator]):
        evaluate.means = bench.means
    with metered(bench.reporter, evaluate, f"Sweep ({operator})", starting_cost(bench, operator)):
        swept = run_sweep(evaluate, grid, operator, bench.tower.able(operator))
    results = {
        "format": 1,
        "model": ready.name,
        **({"overrides": ready.overrides.given} if ready.overrides.given else {}),
        "data": {"source": given.name, "images": len(given), "captions": given.text_count, **bench.task.told},
        "settings": {"objective": dict(bench.objective("search").spec)},
        "sweep": sweep_json(swept, seed=0),
        "first_order": _table(bench, evaluate, swept) if first_order else None,
        "ffe": evaluate.spent,
    }
    if folder is not None:
        drawn = results | {"model": bench.model_json(), "sweep": [results["sweep"]]}
        files = {"heads.png": heatmap_png(drawn), "sweep.json": dump(results)}
        if first_order:
            files["first_order.png"] = first_order_png(drawn, results["first_order"]["table"])
        write_files(folder, files)
    return swept, Findings(results)


def _table(bench: Bench, evaluate: Evaluator, swept: Sweep) -> dict:
    """The scores of the swept edit beside exact ones, and those of every edit that the tower can have."""
    first = score_heads(bench, evaluate, edits_of(bench.tower, [swept.operator]))
    singles = [effect.found for effect in swept.heads]
    rows = [
        {"operator": edit, "heads": [{"head": str(head), "score": score} for head, score in scores.items()]}
        for edit, scores in first.scores.items()
    ]
    return {**first_order_json(first, swept.operator, singles, swept.identity), "table": rows, "ffe": first.spent}

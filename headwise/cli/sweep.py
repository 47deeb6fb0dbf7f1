"""sweep on the command line: options → `jobs.sweep` → a table of heads.

In: a model and pairs. Out: the heads that suppressing helps and harms most, or sweep.json's content.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from headwise.cli.command import grouped
from headwise.cli.crewed import Crewed
from headwise.cli.options import (
    Aim,
    Columns,
    ModelArgument,
    OneOperatorOption,
    PairsArgument,
)


@grouped
def sweep(
    model: ModelArgument,
    pairs: PairsArgument,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Folder for sweep.json and heat maps.")] = None,
    operator: OneOperatorOption = "uniform",
    *,
    columns: Columns,
    aim: Aim,
    where: Crewed,
    first_order: Annotated[
        bool,
        typer.Option("--first-order", help="First-order scores of every head and every edit, from one gradient pass."),
    ] = False,
) -> None:
    """The effect of suppressing every single head, on all the pairs given."""
    from headwise.cli import console
    from headwise.jobs.sweep import sweep as run
    from headwise.reports import words

    _, results = run(
        model,
        pairs,
        out,
        operator=operator,
        goal=aim.goal,
        first_order=first_order,
        machine=where.machine,
        reporter=where.reporter,
        **columns.keywords,
    )
    if where.as_json:
        console.print_json(results)
        return
    heads = sorted(results["sweep"]["heads"], key=lambda head: -head["delta"])
    shown = heads if len(heads) <= 12 else [*heads[:8], *heads[-4:]]
    headings, first = ("head", "points", "p (max-T)"), words.first_order_scores(results["first_order"])
    rows = [(h["head"], words.change(h["delta"]), words.p_value(h["p_max_t"])) for h in shown]
    if first:
        headings = (*headings, "loss falls by", "first order")
        rows = [
            (*row, f"{-h['loss_delta']:+.4f}", f"{first[h['head']]:+.4f}") for row, h in zip(rows, shown, strict=True)
        ]
    measure = words.metric_name(words.main_metric(results, results["sweep"]["identity"]))
    title = f"Change of {measure} when one head is suppressed ({operator}), {len(heads)} heads, most harmful first"
    console.print_table(title, headings, rows)
    if first:
        console.say(words.first_order_agreement(results["first_order"]))
        table = results["first_order"]["table"]
        promised = [(one["score"], one["head"], column["operator"]) for column in table for one in column["heads"]]
        best = [(head, edit, f"{score:+.4f}") for score, head, edit in sorted(promised, key=lambda one: -one[0])[:8]]
        title = f"Most promising of {len(promised)} heads × edits, to first order"
        console.print_table(title, ("head", "edit", "loss falls by about"), best)

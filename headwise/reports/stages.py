"""How the search went: for every stage what it cost, the best mask it found, and the best so far.

In: results as `results.json` holds them, the fitness of masks as the study holds it. Out: rows. Stages are in the order of
the results, never in that of the study's rows: a damaged score is evaluated again and recorded last, and the page of the
same study has to stay the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headwise.edits.mask import Mask
from headwise.reports.words import Results, grid_of


def stages(results: Results, fitness: Mapping[str, float | None], base: float) -> Sequence[Mapping[str, Any]]:
    """A row for every stage that has a known best mask.

    Arguments:
        results: of the run.
        fitness: mask as people read it → fitness on the search split, where the results do not hold it.
        base: the same of the unchanged model.

    Returns:
        Rows of `operator`, `name`, `mask`, `ffe` (None where only the sum over operators is known), `delta` and `so_far`,
        the highest `delta` up to here, from 0 for the unchanged model. Fractions.
    """
    operators = list(dict.fromkeys(one["operator"] for one in (*results.get("strategies", ()), *results["sweep"])))
    rows, so_far = [], 0.0
    for operator in operators:
        found: list[tuple[str, str, float | None, float]] = []
        for sweep in results["sweep"]:
            if sweep["operator"] == operator and sweep["heads"]:
                best = max(sweep["heads"], key=lambda head: (head["delta"], -head["loss_delta"]))
                cost = results["ffe"].get("sweep") if len(operators) == 1 else None
                found.append(
                    ("sweep", str(Mask.suppress(grid_of(results), [best["head"]], operator)), cost, best["delta"])
                )
        for one in results.get("strategies", ()):
            known = one["fitness"] if "fitness" in one else fitness.get(one["best"])  # of a former version: by name
            value = base if one["best"] == "identity" else known
            if one["operator"] == operator and value is not None:
                found.append((one["name"], one["best"], one["ffe"], value - base))
        for name, mask, ffe, delta in found:
            so_far = max(so_far, delta)
            row = {"operator": operator, "name": name, "mask": mask, "ffe": ffe, "delta": delta, "so_far": so_far}
            rows.append(row)
    return rows

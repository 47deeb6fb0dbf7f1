"""What the main job measured, as plain JSON values: docs/results-format.md.

In: what searches, choice and test handed back. Out: dictionaries and lists that `json` writes. Nothing is computed here
that was not measured before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headwise.edits.mask import Mask
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.keeping import Tested
from headwise.jobs.steps.searching import Searched, number
from headwise.jobs.steps.settings import Settings
from headwise.scoring import stats
from headwise.scoring.objectives import Score
from headwise.search.first_order import FirstOrder, agreement
from headwise.search.sweep import Sweep


@dataclass(frozen=True)
class Finalist:
    """A mask that the pick split judges."""

    mask: Mask
    found_by: str
    search: Score
    pick: Score


@dataclass(frozen=True)
class Guard:
    """The check on the kept domains: a row for every mask, as plain JSON values, and what it cost."""

    rows: list[dict]
    ffe: float


@dataclass(frozen=True)
class Picked:
    """All finalists, identity first, and the chosen one; with kept domains, what was checked on them; FFE of it."""

    finalists: tuple[Finalist, ...]
    chosen: Finalist
    guard: Guard | None = None
    ffe: float = 0.0

    @property
    def identity(self) -> Finalist:
        """The unchanged model, the first of the finalists."""
        return self.finalists[0]


def results_json(
    bench: Bench,
    settings: Settings,
    search_ffe: float,
    budget: float,
    searched: Sequence[Searched],
    picked: Picked,
    tested: dict,
    kept: Tested,
    reads: int,
) -> dict:
    """All that a run measured, as `docs/results-format.md` describes it."""
    from headwise.version import __version__

    chosen, identity = picked.chosen, picked.identity
    search_delta = chosen.search.fitness - identity.search.fitness
    test_delta = tested["table"][-1]["delta"]

    return {
        "format": 1,
        "headwise_version": __version__,
        "model": bench.model_json(),
        "data": bench.data_json(),
        "settings": {
            **settings.as_json(),
            "dtype": bench.layout.dtype,
            "device": bench.layout.device,
            "chunk": bench.layout.chunk,
            "objective": bench.objective("search").spec,
        },
        "sweep": [sweep_json(r.start.sweep, settings.seed) for r in searched if r.start.sweep],
        "first_order": [first_order_json(r.start.first, r.start.sweep) for r in searched if r.start.first],
        "strategies": [
            {"operator": r.start.operator, "name": s.name, "best": str(s.best.mask), "ffe": s.ffe, **s.facts}
            for r in searched
            for s in r.strategies
        ],
        "finalists": [_finalist(f, identity, f is chosen) for f in picked.finalists],
        "kept": picked.guard and {"max_loss": settings.max_loss, "checked": picked.guard.rows, "domains": kept.domains},
        "chosen": {
            "mask": str(chosen.mask),
            "found_by": chosen.found_by,
            "size": chosen.mask.size,
            "operator": chosen.mask.operator,
            "heads": [str(head) for head in chosen.mask.heads],
            "gates": {str(head): chosen.mask.gate(head) for head in chosen.mask.heads},
        },
        "test": tested["table"],
        "test_reads": reads,
        "gap": {"search_delta": search_delta, "test_delta": test_delta, "gap": search_delta - test_delta},
        "mcnemar_i2t_r1": tested["mcnemar"],
        "ffe": {
            "sweep": sum(r.start.ffe for r in searched),
            **_first_order_ffe(searched),
            **{
                name: sum(s.ffe for r in searched for s in r.strategies if s.name == name)
                for name in settings.strategies
            },
            **({"means": 1.0} if "mean" in settings.operators else {}),
            "search": search_ffe,
            "pick": picked.ffe,
            **({"kept": picked.guard.ffe} if picked.guard else {}),
            "budget": budget,
            "before_test": search_ffe + picked.ffe + (picked.guard.ffe if picked.guard else 0.0),
            "test": tested["ffe"] + kept.ffe,
        },
    }


def _first_order_ffe(searched: Sequence[Searched]) -> dict[str, float]:
    spent = [r.start.first.spent for r in searched if r.start.first]
    return {"first_order": sum(spent)} if spent else {}


def sweep_json(swept: Sweep, seed: int) -> dict:
    """A sweep as plain JSON values, with max-T p over all its heads."""
    differences = np.stack([e.found.score.units - swept.identity.units for e in swept.heads])  # (heads, N)
    p = stats.max_t(differences, seed=seed)
    return {
        "operator": swept.operator,
        "identity": swept.identity.metrics,
        "heads": [
            {"head": str(e.head), "delta": e.delta, "loss_delta": e.loss_delta, "p_max_t": float(p[i])}
            for i, e in enumerate(swept.heads)
        ],
    }


def first_order_json(first: FirstOrder, swept: Sweep | None) -> dict:
    """First-order scores as plain JSON values, with their rank correlation with the sweep where there is one."""
    rank = agreement(first, swept) if swept else None
    return {
        "operator": first.operator,
        "loss": first.loss,
        "heads": [{"head": str(head), "score": score} for head, score in first.scores.items()],
        "rank_correlation": rank and {name: number(value) for name, value in rank.items()},
    }


def _finalist(finalist: Finalist, identity: Finalist, chosen: bool) -> dict:
    difference = finalist.pick.units.astype(np.float64) - identity.pick.units
    return {
        "mask": str(finalist.mask),
        "found_by": finalist.found_by,
        "size": finalist.mask.size,
        "search": finalist.search.metrics,
        "pick": finalist.pick.metrics,
        "pick_delta": finalist.pick.fitness - identity.pick.fitness,
        "pick_se": stats.paired_error(difference),
        "chosen": chosen,
    }

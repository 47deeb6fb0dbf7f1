"""What the main job measured, as plain JSON values: docs/results-format.md.

In: what searches, choice and test handed back. Out: dictionaries and lists that `json` writes. Nothing is computed
here but differences and tests of what was measured before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest

import numpy as np

from headwise.edits.edit import unbound
from headwise.edits.mask import Mask
from headwise.evaluation.evaluator import Evaluator, Reached
from headwise.jobs.steps.anchoring import Moved
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.keeping import Change, Tested
from headwise.jobs.steps.searching import Searched, number
from headwise.jobs.steps.settings import Settings
from headwise.scoring import stats
from headwise.scoring.objectives import Score
from headwise.search.contract import Found
from headwise.search.first_order import FirstOrder, agreement
from headwise.search.sweep import Sweep

BEFORE_REFIT = "before refit"  # a row of the test table


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
    """All finalists, identity first, and the choice among them; with kept domains, what was checked on them; FFE of it;
    with anchors, how far finalists move them."""

    finalists: tuple[Finalist, ...]
    choice: stats.Choice
    guard: Guard | None = None
    ffe: float = 0.0
    moved: Moved | None = None

    @property
    def chosen(self) -> Finalist:
        """The finalist that the pick split chose."""
        return self.finalists[self.choice.index]

    @property
    def identity(self) -> Finalist:
        """The unchanged model, the first of the finalists."""
        return self.finalists[0]


@dataclass(frozen=True)
class Refit:
    """What was chosen, learned again (`refitting.py`).

    Arguments:
        mask: what was learned, shrunken as the chosen one.
        rung, alpha: of the chosen one.
        images: that it was learned from.
        kept: what it does to every kept domain's pick split.
        taken: whether it stays within the limit there; the chosen one is kept else.
        ffe: what it cost, in passes over the search split.
        moved: with anchors, how far it moves them.
    """

    mask: Mask
    rung: str
    alpha: float
    images: int
    kept: tuple[Change, ...]
    taken: bool
    ffe: float
    moved: float | None = None

    @property
    def handed(self) -> Mask | None:
        """What is handed out in place of the chosen one; None where that is kept."""
        return self.mask if self.taken else None

    def json(self) -> dict[str, object]:
        """What results say of it."""
        return {
            "rung": self.rung,
            "alpha": self.alpha,
            "images": self.images,
            "kept": [{"delta": one.delta, "se": one.error} for one in self.kept],
            "taken": self.taken,
        }


def results_json(
    bench: Bench,
    settings: Settings,
    evaluate: Evaluator,
    budget: float,
    searched: Sequence[Searched],
    picked: Picked,
    tested: dict,
    kept: Tested,
    reads: Mapping[str, int],
    again: Refit | None = None,
) -> dict:
    """All that a run measured, as `docs/results-format.md` describes it."""
    from headwise.version import __version__

    chosen, identity = picked.chosen, picked.identity
    handed = again.handed if again else None
    mask = chosen.mask if handed is None else handed
    judged = next(row for row in tested["table"] if row["what"] == ("chosen" if handed is None else BEFORE_REFIT))
    beside = [one.ffe for one in (picked.guard, picked.moved, again) if one]
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
        "first_order": [
            first_order_json(r.start.first, r.start.operator, r.start.singles, r.start.identity)
            for r in searched
            if r.start.first
        ],
        "strategies": [
            {
                "operator": r.start.operator,
                "name": s.name,
                "best": str(s.best.mask),
                "fitness": s.best.score.fitness,
                "ffe": s.ffe,
                **s.facts,
            }
            for r in searched
            for s in r.strategies
        ],
        "progress": [asdict(one) for one in turns(evaluate.course)],
        "finalists": [_finalist(picked, i) for i in range(len(picked.finalists))],
        "kept": picked.guard and {"max_loss": settings.max_loss, "checked": picked.guard.rows, "domains": kept.domains},
        **_anchors(bench, settings, picked, again),
        "chosen": {
            "mask": str(mask),
            "found_by": chosen.found_by,
            "key": mask.key,
            "size": mask.size,
            "values": mask.values,
            "heads": [str(head) for head in mask.heads],
            "edits": {str(head): str(edit) for head, edit in mask.edits.items()},
        },
        **({"refit": again.json()} if again else {}),
        "test": tested["table"],
        "test_reads": reads["study"],
        "test_reads_cache": reads["cache"],
        "gap": _gap(chosen, identity, judged, picked.choice.error[picked.choice.index]),
        "mcnemar_i2t_r1": tested["mcnemar"],
        "ffe": {
            "sweep": sum(r.start.ffe for r in searched),
            **_first_order_ffe(searched),
            **{
                name: sum(s.ffe for r in searched for s in r.strategies if s.name == name)
                for name in dict.fromkeys(s.name for r in searched for s in r.strategies)
            },
            **({"means": 1.0} if unbound(settings.searching) else {}),
            "search": evaluate.spent,
            "pick": picked.ffe,
            **({"kept": picked.guard.ffe} if picked.guard else {}),
            **({"anchors": picked.moved.ffe} if picked.moved else {}),
            **({"refit": again.ffe} if again else {}),
            "budget": budget,
            "before_test": evaluate.spent + picked.ffe + sum(beside),
            "test": tested["ffe"] + kept.ffe,
        },
    }


def turns(course: Sequence[Reached]) -> list[Reached]:
    """Of a search's course what its curve needs: where the best grew, and where every stage ended."""
    kept: list[Reached] = []
    for one, following in zip_longest(course, course[1:]):
        grew = not kept or one.fitness > kept[-1].fitness
        if math.isfinite(one.fitness) and (grew or following is None or following.stage != one.stage):
            kept.append(one)
    return kept


def _gap(chosen: Finalist, identity: Finalist, row: dict, pick_se: float) -> dict[str, float | None]:
    """The chosen mask's gain where it was found, where it was chosen and where it was tested, each with its error."""
    search = chosen.search.fitness - identity.search.fitness
    search_se = stats.standard_error(chosen.search.hits - identity.search.hits, identity.search.plan)
    error = None if row["se"] is None or math.isinf(search_se) else math.hypot(search_se, row["se"])
    return {
        "search_delta": search,
        "search_se": None if math.isinf(search_se) else search_se,
        "pick_delta": chosen.pick.fitness - identity.pick.fitness,
        "pick_se": None if math.isinf(pick_se) else pick_se,
        "test_delta": row["delta"],
        "test_se": row["se"],
        "gap": search - row["delta"],
        "gap_se": error,
    }


def _first_order_ffe(searched: Sequence[Searched]) -> dict[str, float]:
    tables = {id(r.start.first): r.start.first for r in searched if r.start.first}  # edits share one
    return {"first_order": sum(first.spent for first in tables.values())} if tables else {}


def sweep_json(swept: Sweep, seed: int) -> dict:
    """A sweep as plain JSON values, with max-T p over all its heads."""
    plan, base = swept.identity.plan, swept.identity.hits
    differences = np.stack([plan.counts(e.found.score.hits - base) for e in swept.heads])  # (heads, N)
    p = stats.max_t(differences, slack=plan.slack, seed=seed)
    return {
        "operator": swept.operator,
        "identity": swept.identity.metrics,
        "p_error": max(each.error for each in p),
        "heads": [
            {"head": str(e.head), "delta": e.delta, "loss_delta": e.loss_delta, "p_max_t": p[i].p}
            for i, e in enumerate(swept.heads)
        ],
    }


def first_order_json(first: FirstOrder, edit: str, singles: Sequence[Found], identity: Score) -> dict:
    """First-order scores of one edit as plain JSON values, with their rank correlation with exact ones.

    Arguments:
        singles: heads that were run alone with the edit.
        identity: score of the model as it is.
    """
    rank = agreement(first, edit, singles, identity)
    return {
        "operator": edit,
        "loss": first.loss,
        "heads": [{"head": str(head), "score": score} for head, score in first.scores[edit].items()],
        "rank_correlation": {name: number(value) for name, value in rank.items()} if rank["heads"] else None,
    }


def _finalist(picked: Picked, i: int) -> dict:
    finalist, choice = picked.finalists[i], picked.choice
    p = choice.p[i]
    return {
        "mask": str(finalist.mask),
        "found_by": finalist.found_by,
        "key": finalist.mask.key,
        "size": finalist.mask.size,
        "values": finalist.mask.values,
        "search": finalist.search.metrics,
        "pick": finalist.pick.metrics,
        "pick_delta": choice.delta[i],
        "pick_se": None if math.isinf(choice.error[i]) else choice.error[i],
        "pick_p": None if p is None else p.p,
        **({"anchors_moved": picked.moved.means[i]} if picked.moved else {}),
        "chosen": i == choice.index,
    }


def _anchors(bench: Bench, settings: Settings, picked: Picked, again: Refit | None) -> dict[str, object]:
    """What learned rungs were held to, and how far the chosen edits moved it."""
    if bench.anchored is None or picked.moved is None:
        return {}
    moved = again.moved if again and again.taken else picked.moved.means[picked.choice.index]
    return {"anchors": {**bench.anchored.json(), "weight": settings.anchor_weight, "moved": moved}}

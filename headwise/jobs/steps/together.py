"""AAT-GA over several edits at once: every head is kept or carries one of them, each its own.

In: what was found with each edit alone. Out: `Searched`, as of one edit; its masks may mix them. What it costs beyond that
is its own exact runs: the changes by single heads, which estimates are made of, are those of the edits' own sweeps.
"""

from __future__ import annotations

from collections.abc import Sequence

from headwise.edits.edit import Edit
from headwise.evaluation.evaluator import Evaluator
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.searching import Searched, evolve
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.starting import Start
from headwise.search.alphabet import Choice
from headwise.search.contract import Left
from headwise.search.deltas import Joined


def search_together(
    bench: Bench, evaluate: Evaluator, settings: Settings, left: Left, before: Sequence[Searched]
) -> Searched:
    """The search over all edits of the settings.

    Arguments:
        bench, evaluate, settings, left: as `searching.search`.
        before: what was found with each edit alone, with the heads' changes.
    """
    starts, grid = [one.start for one in before], bench.tower.grid
    singles = sorted((found for start in starts for found in start.singles), key=lambda found: found.order)
    found = [item for one in before for strategy in one.strategies for item in strategy.masks]
    parts = [start.deltas for start in starts if start.deltas]
    changes = Joined(parts) if len(parts) == len(starts) else None
    allowed = [choice for start in starts for choice in _choices(start)]
    ranking = list(dict.fromkeys([*(choice for one in singles for choice in one.mask.edits.items()), *allowed]))
    if changes:
        allowed = list(changes.rows)
    edits = tuple(start.operator for start in starts)
    strategy = evolve(bench, evaluate, edits, ranking, allowed, changes, singles, found, settings, left)
    start = Start(grid, ", ".join(edits), starts[0].identity, (), (), None, None, None, 0.0)
    return Searched(start, (strategy,))


def _choices(start: Start) -> list[Choice]:
    """The heads of one edit with it, the most promising first."""
    edit = Edit.parse(start.operator)
    return [(head, edit) for head in start.ranking]

"""Domains that must not break: what a mask found on new pairs costs on pairs that the model served before.

In: a bench with kept domains, masks. Out: for each the change on every kept domain's pick split, with its error, and
whether it stays within the limit; after the choice the same on the test splits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Means
from headwise.evaluation.evaluator import Evaluator
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.progress import metered
from headwise.scoring import stats
from headwise.scoring.objectives import Score

TOLERANCE = 1e-12  # a loss of exactly the limit passes, whatever its last bits


@dataclass(frozen=True)
class Change:
    """What a mask does to one split of a domain.

    Arguments:
        delta: fitness minus identity's, a fraction.
        error: paired standard error over the images.
    """

    delta: float
    error: float


def with_kept(bench: Bench, kept: Sequence[Bench]) -> Bench:
    """The bench, with the domains that its masks must not break.

    Raises:
        HeadwiseError: a kept domain that is the data itself, or that is given twice.
    """
    seen = {bench.pairs.hash: bench.pairs.name}
    for domain in kept:
        if domain.pairs.hash in seen:
            raise HeadwiseError(
                f"The kept domain {domain.pairs.name} holds the same pairs as {seen[domain.pairs.hash]}. "
                "Give each domain once, and other pairs than those to improve on."
            )
        seen[domain.pairs.hash] = domain.pairs.name
    return replace(bench, kept=tuple(kept))


def evaluators(bench: Bench, split: str, means: Means | None) -> list[Evaluator]:
    """One for every kept domain; constants of operator `mean` are those of the data to improve on."""
    return [replace(domain.evaluator(split), means=means) for domain in bench.kept]


def change(score: Score, identity: Score) -> Change:
    """What a mask did to the fitness, with its standard error."""
    return Change(score.fitness - identity.fitness, stats.standard_error(score.hits - identity.hits, identity.plan))


@dataclass(frozen=True)
class Checked:
    """Masks on the pick splits of all kept domains.

    Arguments:
        changes: for every mask, what it does to each domain.
        ffe: what that cost; one FFE is a pass over the domain's own pick split.
    """

    changes: tuple[tuple[Change, ...], ...]
    ffe: float

    def passes(self, i: int, max_loss: float) -> bool:
        """Whether mask `i` loses at most `max_loss` points on every domain."""
        return all(passes(each, max_loss) for each in self.changes[i])


def passes(found: Change, max_loss: float) -> bool:
    """Whether the loss is at most `max_loss` points."""
    return -100 * found.delta <= max_loss + TOLERANCE


def check(bench: Bench, masks: Sequence[Mask], means: Means | None) -> Checked:
    """What the masks do to every kept domain, on its pick split."""
    identity, columns, ffe = Mask.identity(bench.tower.grid), [], 0.0
    for domain, evaluate in zip(bench.kept, evaluators(bench, "pick", means), strict=True):
        everything = [identity, *masks]
        title = f"Kept domain {domain.pairs.name}, pick split"
        with metered(bench.reporter, evaluate, title, evaluate.cost(everything)):
            base, *scores = evaluate(everything)
        columns.append([change(score, base) for score in scores])
        ffe += evaluate.spent
    return Checked(tuple(zip(*columns, strict=True)), ffe)


@dataclass(frozen=True)
class Tested:
    """The chosen mask on the test splits of the kept domains, as plain JSON values, and what that cost."""

    domains: list[dict]
    ffe: float


def read_kept_tests(bench: Bench, chosen: Mask, means: Means | None, seed: int) -> Tested:
    """Before and after on every kept domain's test split, which is read here and nowhere else."""
    identity, rows, ffe = Mask.identity(bench.tower.grid), [], 0.0
    for domain, evaluate in zip(bench.kept, evaluators(bench, "test", means), strict=True):
        title = f"Kept domain {domain.pairs.name}, test split"
        with metered(bench.reporter, evaluate, title, evaluate.cost([identity, chosen])):
            before, after = evaluate([identity, chosen])
        ffe += evaluate.spent
        rows.append({"data": domain.data_json(), "fitness": domain.task.fitness, **test_json(before, after, seed)})
    return Tested(rows, ffe)


def test_json(before: Score, after: Score, seed: int) -> dict:
    """A paired comparison of one mask with identity on a test split, as plain JSON values."""
    return {"before": before.metrics, "after": after.metrics, **stats.compared(after, before, seed=seed).json()}

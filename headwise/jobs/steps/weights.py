"""Rungs above edits, opt-in: weights trained on the search split, judged beside the edits that were found.

    W_α = W + α · (W_trained − W),  α of `ALPHAS`      (WiSE-FT, arXiv 2109.01903)

In: a bench, and the finalists among edits. Out: `Weighed`: what every candidate does on the pick split, which of them the rule
of choice prefers to all edits, and its test. What was chosen among edits stays that: a candidate here is a model of its own.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from headwise.baselines import check
from headwise.baselines.training import embeddings_of
from headwise.baselines.weights import between
from headwise.errors import HeadwiseError
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.keeping import Change, change, passes, test_json
from headwise.jobs.steps.refitting import joined
from headwise.jobs.steps.results import Picked
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.starting import exact
from headwise.jobs.steps.training import Trained, train
from headwise.scoring import stats
from headwise.scoring.objectives import Retrieval, Score
from headwise.search.values import ALPHAS
from headwise.towers.base import Model, Tower


@dataclass(frozen=True, eq=False)
class Candidate:
    """A rung and an α.

    Arguments:
        rung, alpha: which.
        trained: of the rung.
        pick: its score on the pick split.
        kept: what it does to every kept domain's pick split.
        again: it is the preferred one, trained again from search and pick images; `pick` is what it was preferred for.
    """

    rung: str
    alpha: float
    trained: Trained
    pick: Score
    kept: tuple[Change, ...]
    again: bool = False

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.rung}, α {self.alpha:g}{', refit' if self.again else ''}"

    @property
    def key(self) -> str:
        """What it is, for the notes of what a test split was read for."""
        return f"{self.trained.key} {self.alpha:g}"


@dataclass(frozen=True, eq=False)
class Weighed:
    """The candidates, which of them is preferred to all edits, what is handed out (it, or what was trained again), those
    that the test split is read for, and FFE before that."""

    candidates: tuple[Candidate, ...]
    choice: stats.Choice
    judged: tuple[Candidate, ...]
    preferred: Candidate | None
    handed: Candidate | None
    shown: tuple[Candidate, ...]
    spent: float

    @property
    def key(self) -> str:
        """Of all that the test split is read for."""
        return "-" + hashlib.sha256(" ".join(one.key for one in self.shown).encode()).hexdigest()[:16]

    def ffe(self, others: Mapping[str, float]) -> dict[str, float]:
        """What it adds to what a run cost without it: its own, and what that makes of the sums."""
        tested = len(self.shown) + (len(self.handed.kept) if self.handed else 0)
        return {
            "weights": self.spent,
            "before_test": others["before_test"] + self.spent,
            "test": others["test"] + tested,
        }


def check_weights(model: Model, settings: Settings) -> None:
    """What the rungs ask of a model, before data are read.

    Raises:
        HeadwiseError: nothing in it that a rung could train, or a missing library.
    """
    for rung in settings.weights:
        check(rung, model.tower)


def check_captions(bench: Bench, settings: Settings) -> None:
    """What the rungs ask of the data, before anything is searched.

    Raises:
        HeadwiseError: labels in place of captions, or a mixture.
    """
    if settings.weights and not isinstance(bench.objective("search"), Retrieval):
        raise HeadwiseError(
            f"The rung {settings.weights[0]} is trained on captions, and {bench.pairs.name} has labels or is a mixture. Leave it "
            "out of --rungs."
        )


def weigh(bench: Bench, picked: Picked, settings: Settings) -> Weighed:
    """Train every rung, judge it at every α on the pick split beside the edits' finalists.

    Those that lose too much on a kept domain take no part. The rule is that of the edits (`stats.choose`), over all.
    """
    base = exact(bench)
    before = [domain.evaluator("pick")([picked.identity.mask])[0] for domain in bench.kept]
    found: list[Candidate] = []
    for rung in settings.weights:
        trained = train(bench, rung, settings)
        each = 1.0 + len(bench.kept)
        with bench.reporter.stage(f"{rung} on the pick split", len(ALPHAS) * each, "FFE") as advance:
            for alpha in ALPHAS:
                tower = between(base, trained.tower, alpha)
                pick = _score(bench, "pick", tower)
                found.append(Candidate(rung, alpha, trained, pick, _kept(bench, tower, before)))
                advance(each)
    allowed = [one for one in found if all(passes(each, settings.max_loss) for each in one.kept)]
    finalists = picked.finalists
    choice = stats.choose(
        [*(one.pick for one in finalists), *(one.pick for one in allowed)],
        [*(one.mask.values for one in finalists), *(one.trained.values for one in allowed)],
        level=settings.level,
        rule=settings.choose,
        seed=settings.seed,
    )
    preferred = allowed[choice.index - len(finalists)] if choice.index >= len(finalists) else None
    bests = [
        max(
            (one for one in allowed if one.rung == rung),
            key=lambda one: (one.pick.fitness, -one.pick.loss),
            default=None,
        )
        for rung in settings.weights
    ]
    spent = len(settings.weights) * settings.weights_ffe(bool(bench.anchored), len(bench.kept))
    handed = preferred
    if preferred and settings.refit:
        whole = joined(bench)
        trained = train(whole, preferred.rung, settings, "refit")
        kept = _kept(bench, between(base, trained.tower, preferred.alpha), before)
        if all(passes(each, settings.max_loss) for each in kept):
            handed = replace(preferred, trained=trained, kept=kept, again=True)
        share = len(whole.splits.search) / len(bench.splits.search)
        spent += share * settings.values.epochs * settings.trained_cost(bool(bench.anchored)) + len(bench.kept)
    shown = [*dict.fromkeys(one for one in (*bests, preferred, handed) if one is not None)]
    return Weighed(tuple(found), choice, tuple(allowed), preferred, handed, tuple(shown), spent)


def _kept(bench: Bench, tower: Tower, before: Sequence[Score]) -> tuple[Change, ...]:
    """What trained weights do to every kept domain's pick split."""
    return tuple(change(_score(domain, "pick", tower), old) for domain, old in zip(bench.kept, before, strict=True))


def weights_json(bench: Bench, picked: Picked, weighed: Weighed, settings: Settings) -> dict[str, object]:
    """Everything that was measured, as plain JSON values; the test splits are read here, once."""
    identity, base = picked.identity.mask, exact(bench)
    rows = []
    for one in weighed.candidates:
        at = len(picked.finalists) + weighed.judged.index(one) if one in weighed.judged else None
        p, error = (None, None) if at is None else (weighed.choice.p[at], weighed.choice.error[at])
        rows.append(
            {
                "rung": one.rung,
                "alpha": one.alpha,
                "values": one.trained.values,
                "pick": one.pick.metrics,
                "pick_delta": one.pick.fitness - picked.identity.pick.fitness,
                "pick_se": None if error is None or math.isinf(error) else error,
                "pick_p": None if p is None else p.p,
                "kept": [{"delta": each.delta, "se": each.error} for each in one.kept],
                "passed": at is not None,
                "preferred": one is weighed.preferred,
            }
        )
    before = bench.evaluator("test")([identity])[0]
    tested, kept = [], []
    with bench.reporter.stage("Trained weights on the test split", float(len(weighed.shown)), "FFE") as advance:
        for one in weighed.shown:
            score = _score(bench, "test", between(base, one.trained.tower, one.alpha))
            told = {"what": one.name, "rung": one.rung, "values": one.trained.values, "metrics": score.metrics}
            tested.append({**told, **stats.compared(score, before, seed=settings.seed).json()})
            advance(1.0)
    one = weighed.handed
    if one:
        tower = between(base, one.trained.tower, one.alpha)
        for domain in bench.kept:
            old = domain.evaluator("test")([identity])[0]
            kept.append({"source": domain.pairs.name, **test_json(old, _score(domain, "test", tower), settings.seed)})
    return {
        "candidates": rows,
        "preferred": one and {"name": one.name, "rung": one.rung, "alpha": one.alpha, "refit": one.again},
        "test": tested,
        "kept": kept,
    }


def _score(bench: Bench, split: str, tower: Tower) -> Score:
    """A tower on a split, in the precision in which the run evaluates."""
    tower = tower.cast(bench.layout.device, bench.layout.torch_dtype)
    return bench.objective(split)(embeddings_of(tower, bench.cache.take(bench.indices(split)), bench.layout))

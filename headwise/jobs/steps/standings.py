"""The rows of a comparison: what every method did to the test split and to other data, averaged over its seeds.

In: the runs of `contest.py` and `trained.py`. Out: rows as compare.json holds them. The test split is read here, for
all methods at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np

from headwise.applied.fold import check_folds
from headwise.baselines import BASELINES
from headwise.data.pairs import Pairs
from headwise.edits.edit import unbound
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.evaluator import Evaluator
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.contest import Run, random_of, rate_of
from headwise.jobs.steps.contest_settings import ROWS, CompareSettings
from headwise.jobs.steps.progress import metered
from headwise.jobs.steps.trained import BaselineRun
from headwise.scoring import stats
from headwise.search.controls import controls

SAMPLE = 5  # masks of random heads that are also scored on kept domains


@dataclass(frozen=True, eq=False)
class Domain:
    """Data that a change must not break, all of them evaluated."""

    pairs: Pairs
    bench: Bench

    @property
    def split(self) -> str:
        """Its name in the study."""
        return f"kept domain {self.pairs.hash}"


@dataclass(frozen=True, eq=False)
class Standings:
    """The rows: every method and operator, averaged over its seeds."""

    bench: Bench
    domains: Sequence[Domain]
    settings: CompareSettings
    runs: Sequence[Run]
    baselines: Sequence[BaselineRun]

    def rows(self) -> list[dict]:
        """Identity, random heads, every search, every learned rung, every baseline; the test split is read for all at once."""
        matched = random_of(self.runs)
        count, seed = self.settings.search.controls, self.settings.search.seed
        random_masks = controls(matched, count, seed) if matched else ()
        masks = [Mask.identity(self.bench.tower.grid), *(m for run in self.runs for m in (run.chosen, run.best.mask))]
        splits = ["test", *(domain.split for domain in self.domains)]
        evaluators = {name: self._evaluator(name) for name in splits}
        for name, evaluate in evaluators.items():
            asked = [*masks, *(random_masks if name == "test" else random_masks[:SAMPLE])]
            with metered(
                self.bench.reporter, evaluate, "Test split" if name == "test" else "Kept domain", evaluate.cost(asked)
            ):
                evaluate(asked)
        rows = [self._row("identity", None, evaluators, [masks[0]], [masks[0]])]
        if random_masks:
            rows.append(self._row("random heads", matched and matched.kinds, evaluators, random_masks, random_masks))
        searched = [(method, operator) for operator in self.settings.search.operators for method in ROWS]
        for method, operator in [*searched, *((rung, None) for rung in self.settings.learned)]:
            runs = [run for run in self.runs if (run.method, run.operator) == (method, operator)]
            if runs:
                chosen, best = [run.chosen for run in runs], [run.best.mask for run in runs]
                rows.append(self._row(method, operator, evaluators, chosen, best) | self._cost(runs))
        for method in BASELINES:
            fitted = [run for run in self.baselines if run.method == method]
            if fitted:
                rows.append(self._baseline(method, fitted))
        return rows

    def _evaluator(self, split: str) -> Evaluator:
        if split == "test":
            evaluate = self.bench.evaluator("test")
        else:
            where = next(d.bench for d in self.domains if d.split == split)
            evaluate = replace(where.evaluator("search"), study=self.bench.study, split=split)
        if unbound(self.settings.search.operators):
            evaluate.means = self.bench.means
        return evaluate

    def _row(
        self,
        method: str,
        operator: str | None,
        evaluators: Mapping[str, Evaluator],
        chosen: Sequence[Mask],
        best: Sequence[Mask],
    ) -> dict:
        """Scores of masks, averaged over the seeds."""
        identity = Mask.identity(self.bench.tower.grid)

        def few(masks: Sequence[Mask]) -> Sequence[Mask]:
            return masks[:SAMPLE] if method == "random heads" else masks

        def change(evaluate: Evaluator, masks: Sequence[Mask]) -> dict:
            base, *scores = evaluate([identity, *masks])
            return self._change(base, scores)

        return {
            "method": method,
            "operator": operator,
            "runs": len(chosen),
            "heads": [mask.size for mask in chosen],
            "heads_by_search": [mask.size for mask in best],
            "masks": [str(mask) for mask in chosen],
            "masks_by_search": [str(mask) for mask in best],
            "test": change(evaluators["test"], chosen),
            "test_by_search": change(evaluators["test"], best),
            "keep_domain": [change(evaluators[d.split], few(chosen)) for d in self.domains],
            "keep_domain_by_search": [change(evaluators[d.split], few(best)) for d in self.domains],
            "overlap": _overlap(best) if method in ROWS and len(best) > 1 else None,
            "ffe": None,
            "seconds": None,
            "trained": 0,
            "inference": 1.0 if all(self._folds(mask) for mask in chosen) else None,
        }

    def _cost(self, runs: Sequence[Run]) -> dict:
        gates = self.bench.tower.grid.size if runs[0].method.startswith("bp") else 0
        learned = [values for run in runs if isinstance(values := run.facts.get("values"), int)]
        trained = max(learned, default=gates)
        seconds = [run.own + rate_of(self.bench) * run.evaluated for run in runs]
        out = {"ffe": float(np.mean([run.ffe for run in runs])), "seconds": float(np.mean(seconds))}
        facts = [run.facts for run in runs]
        return out | {"trained": trained, "interrupted": any(run.interrupted for run in runs), "facts": facts}

    def _baseline(self, method: str, runs: Sequence[BaselineRun]) -> dict:
        def change(split: str, selected: bool) -> dict:
            base = runs[0].identity[split]
            scores = [run.scores[split] if run.kept or not selected else run.identity[split] for run in runs]
            return self._change(base, scores)

        return {
            "method": method,
            "operator": None,
            "runs": len(runs),
            "heads": None,
            "heads_by_search": None,
            "masks": None,
            "masks_by_search": None,
            "kept": [run.kept for run in runs],
            "test": change("test", True),
            "test_by_search": change("test", False),
            "keep_domain": [change(domain.split, True) for domain in self.domains],
            "keep_domain_by_search": [change(domain.split, False) for domain in self.domains],
            "overlap": None,
            "ffe": float(np.mean([run.ffe for run in runs])),
            "seconds": float(np.mean([run.seconds for run in runs])),
            "trained": runs[0].trained,
            "inference": float(np.mean([run.inference for run in runs])),
        }

    def _change(self, base: stats.Scored, scores: Sequence[stats.Scored]) -> dict:
        """The mean change over runs, its interval over images, and every run's own."""
        return {
            "score": float(np.mean([score.fitness for score in scores])),
            **stats.compared(scores, base, seed=self.settings.search.seed).json(),
            "deltas": [score.fitness - base.fitness for score in scores],
        }

    def _folds(self, mask: Mask) -> bool:
        try:
            check_folds(self.bench.model.tower, mask)
        except HeadwiseError:
            return False
        return True


def _overlap(masks: Sequence[Mask]) -> float:
    """Mean Jaccard similarity of the suppressed heads over all pairs of seeds; 1 for two identities."""

    def jaccard(a: set, b: set) -> float:
        return len(a & b) / len(a | b) if a | b else 1.0

    heads = [{head for head, edit in mask.edits.items() if not 0.5 <= (edit.gate or 0.0) <= 1.5} for mask in masks]
    return float(np.mean([jaccard(a, b) for a, b in combinations(heads, 2)]))

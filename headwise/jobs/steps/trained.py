"""The baselines on a bench: trained once for every seed, scored on every split, and kept in files.

In: a bench, the name of a baseline, a seed. Out: its scores. A run that starts again reads them from its file.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from headwise.applied.tuned import write_tuned
from headwise.baselines import FitSettings, Fitted, fit
from headwise.baselines.training import embeddings_of
from headwise.checked import Damaged, dump_tensors, load_tensors
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Pixels
from headwise.evaluation.layout import plan
from headwise.files import write_files
from headwise.jobs.steps.bench import Bench
from headwise.scoring import stats
from headwise.scoring.design import Design
from headwise.scoring.losses import captions_of
from headwise.scoring.objectives import Retrieval, Score
from headwise.towers.base import Tower

TIMED_IMAGES = 256
WHOLE = {"adapter", "logit"}  # trained on embeddings, which are computed once


@dataclass(frozen=True, eq=False)
class Measured:
    """A score on one split, without ranks.

    Arguments:
        fitness, loss: as `Score`.
        hits, plan: as `Score`.
    """

    fitness: float
    loss: float
    hits: np.ndarray
    plan: Design

    @classmethod
    def of(cls, score: Score) -> Measured:
        """A score without its ranks and metrics."""
        return cls(score.fitness, score.loss, score.hits, score.plan)


@dataclass(frozen=True, eq=False)
class BaselineRun:
    """One baseline and seed.

    Arguments:
        method, seed: which.
        scores: split → score, of the trained model.
        identity: split → score of the model as it was.
        trained: how many values were trained.
        ffe: forward passes of the training in units of the search split, a backward pass counted as two.
        seconds: wall time of training.
        inference: time per image relative to the model as it was.
        kept: the pick split prefers the trained model to the model as it was.
    """

    method: str
    seed: int
    scores: Mapping[str, Measured]
    identity: Mapping[str, Measured]
    trained: int
    ffe: float
    seconds: float
    inference: float
    kept: bool


@dataclass(frozen=True)
class Place:
    """A split to score on: its images, its captions, and how to score them."""

    pixels: Pixels
    objective: Retrieval


def run_baseline(
    bench: Bench, name: str, seed: int, settings: FitSettings, places: Mapping[str, Place], level: float = stats.LEVEL
) -> BaselineRun:
    """Train, score, keep; what is kept already is read.

    Arguments:
        places: split → where to score; `search` and `pick` among them.
        level: of the pick split's test whether the trained model is kept.

    Raises:
        HeadwiseError: as `headwise.baselines.fit`; a file that cannot be written.
    """
    settings = replace(settings, seed=seed)
    path = bench.study.path.parent / "baselines" / f"{name}-seed{seed}.safetensors" if bench.study else None
    key = _key(bench, name, settings, places)
    kept = _read(path, key, places, bench.reporter.say) if path else None
    if kept is None:
        kept = _train(bench, name, settings, places)
        if path:
            _write(path, key, *kept)
    scores, facts = kept
    identity = {split.removeprefix("identity "): s for split, s in scores.items() if split.startswith("identity ")}
    trained = {split: scores[split] for split in places}
    pick = [identity["pick"], trained["pick"]]
    choice = stats.choose(pick, [0, 1], level=level)
    return BaselineRun(name, seed, trained, identity, **facts, kept=choice.index == 1)  # type: ignore[arg-type]


def write_baseline(
    bench: Bench, run: BaselineRun, settings: FitSettings, places: Mapping[str, Place], card: str
) -> Path:
    """Train a baseline again, as it was, and write it as a model folder beside the study.

    Arguments:
        run: which, and what it scored.
        settings: of that run.

    Raises:
        HeadwiseError: as `headwise.applied.tuned.write_tuned`, or another score than that of the run.
    """
    assert bench.study is not None
    fitted = _fitted(bench, run.method, replace(settings, seed=run.seed), places)
    if not np.array_equal(_score(fitted, places["pick"]).hits, run.scores["pick"].hits):
        raise HeadwiseError(
            f"{run.method}, trained again, scores otherwise than before, so it was not written. Run the comparison in a new "
            "folder on one machine."
        )
    return write_tuned(bench.model, fitted.tower, bench.study.path.parent / "baselines" / run.method, card)


def _train(
    bench: Bench, name: str, settings: FitSettings, places: Mapping[str, Place]
) -> tuple[dict[str, Measured], dict[str, float]]:
    tower = bench.model.tower.cast(bench.layout.device, torch.float32)
    fitted = _fitted(bench, name, settings, places)
    scores: dict[str, Measured] = {}
    for split, place in places.items():
        scores[split] = _score(fitted, place)
        plain = place.objective(embeddings_of(tower, place.pixels))
        scores[f"identity {split}"] = Measured.of(plain)
    epochs, share = len(fitted.history) - 1, settings.holdout
    ffe = 1.0 if name in WHOLE else share + epochs * (3 * (1 - share) + share)
    facts = {
        "trained": fitted.trained,
        "ffe": ffe,
        "seconds": fitted.seconds,
        "inference": _inference(fitted, tower, places["pick"].pixels),
    }
    return scores, facts


def _fitted(bench: Bench, name: str, settings: FitSettings, places: Mapping[str, Place]) -> Fitted:
    tower, search = bench.model.tower.cast(bench.layout.device, torch.float32), places["search"]
    with bench.reporter.stage(f"Baseline {name}, seed {settings.seed}", 1.0, "of training") as advance:
        return fit(name, tower, search.pixels, captions_of(search.objective, tower.device), settings, progress=advance)


def _score(fitted: Fitted, place: Place) -> Measured:
    foreign = place.objective.distractors
    target = replace(
        place.objective,
        texts=fitted.text(place.objective.texts),
        distractors=None if foreign is None else fitted.text(foreign),
        scale=fitted.scale,
        bias=fitted.bias,
    )
    return Measured.of(target(fitted.embed(place.pixels)))


def _inference(fitted: Fitted, tower: Tower, pixels: Pixels) -> float:
    """Time of the trained model over the time of the model as it was, fastest of three, in turn."""
    part = pixels[: min(len(pixels), TIMED_IMAGES)]
    layout = plan(tower, dtype="float32", device=str(tower.device))
    ways: tuple[Callable[[], object], ...] = (
        lambda: fitted.embed(part, layout),
        lambda: embeddings_of(tower, part, layout),
    )
    fastest = [float("inf"), float("inf")]
    for _ in range(3):
        for i, way in enumerate(ways):
            began = time.perf_counter()
            way()
            fastest[i] = min(fastest[i], time.perf_counter() - began)
    return fastest[0] / fastest[1]


# ---- files


def _key(bench: Bench, name: str, settings: FitSettings, places: Mapping[str, Place]) -> str:
    facts = ["hits", name, asdict(settings), list(places), bench.key]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]


def _read(
    path: Path, key: str, places: Mapping[str, Place], say: Callable[[str], None]
) -> tuple[dict[str, Measured], dict[str, float]] | None:
    """What a former run kept; None where there is nothing, or of another training, or damaged (which is said)."""
    try:
        tensors, kept = load_tensors(path)
    except FileNotFoundError:
        return None
    except (OSError, Damaged):
        say(f"{path} is damaged; the baseline is trained again.")
        return None
    if kept["key"] != key:
        return None
    scores = {
        split: Measured(fitness, loss, tensors[split].numpy(), places[split.removeprefix("identity ")].objective.design)
        for split, (fitness, loss) in kept["scores"].items()
    }
    return scores, kept["facts"]


def _write(path: Path, key: str, scores: Mapping[str, Measured], facts: Mapping[str, float]) -> None:
    about = {"key": key, "facts": facts, "scores": {split: [s.fitness, s.loss] for split, s in scores.items()}}
    hits = {split: torch.from_numpy(np.ascontiguousarray(s.hits)) for split, s in scores.items()}
    write_files(path.parent, {path.name: dump_tensors(hits, about)})

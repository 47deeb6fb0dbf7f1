"""Every rung of the ladder on six domains, several seeds and two sizes: what it gains, and what it costs on old data.

    python recipes/demo/prepare.py all --data DATA
    python benchmarks/ladder.py --data DATA --work WORK          continues where it stopped; hours on one core
    python benchmarks/ladder_page.py --data DATA --work WORK     docs/ladder.md

The test split of a domain is fixed. A seed draws the search and pick split from what is left, and is the seed of every
search and training. Candidates of each method are scored on pick, and (all, or the one that is chosen: `WHOLE`) on test
and old data (new pictures of the styles that the packaged model was trained on), and kept in WORK, one file a method;
choosing among them is `ladder_page.py`'s. What `benchmarks/kept/` holds (`kept.py`) is measured again with `--anew` alone.
"again": what a method learns from search and pick images together (as `refine` does), where the pick split chose a
candidate of it.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

sys.path.insert(0, str(Path(__file__).resolve().parent))

from domains import TARGETS, target_pairs, trained_pairs
from hits import packed, whole
from kept import restore

import headwise
from headwise.baselines import FitSettings, fit
from headwise.baselines.training import embeddings_of
from headwise.baselines.weights import between
from headwise.checked import dump_tensors, load_tensors
from headwise.data.splits import Splits
from headwise.edits.mask import Mask
from headwise.evaluation.evaluator import Evaluator
from headwise.files import write_files
from headwise.jobs.steps.bench import Bench, prepare
from headwise.jobs.steps.choosing import candidates
from headwise.jobs.steps.opening import Machine, load_model
from headwise.jobs.steps.refitting import joined
from headwise.jobs.steps.searching import search
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.trained import Measured
from headwise.processor import processor
from headwise.scoring.losses import captions_of, loss_of
from headwise.scoring.losses.contract import unit
from headwise.scoring.objectives import Retrieval, Score
from headwise.scoring.stats import choose
from headwise.search.training import Anchors
from headwise.search.values import ALPHAS, ValueSettings, learn_values
from headwise.towers.base import Model

BUDGET = 60.0  # FFE of a search, its sweep included, or of a training
SIZES = {200: 150, 40: 30}  # search images → pick images
TEST, OLD, ANCHORS = 400, 200, 200  # images
EPOCHS = 8  # of everything that is trained, on all search images; α and the unchanged model are the pick split's choice
LEARNED = ("scale", "spectral", "temperature", "shift", "scale+temperature")
FIRST = "mask, first-order start"  # no sweep: first-order scores rank the heads, a third of them is run alone
MASKS = ("mask", FIRST, "alphabet")
METHODS = ("mask", "scale", "spectral", "lora", "scale anchored", "spectral anchored", "lora anchored")
BESIDE = ("shift", "temperature", "scale+temperature", "layernorm", "adapter", "projection", "svd")
AGAIN = tuple(
    f"{name}{held} again" for held in ("", " anchored") for name in ("scale", "spectral", "projection", "lora")
)
WHOLE = (*METHODS, "adapter", "projection", "projection anchored")  # all candidates are judged, as far as α goes
OTHERS = (FIRST, "alphabet", *BESIDE, *(f"{name} anchored" for name in BESIDE if "+" not in name))


@dataclass(frozen=True, eq=False)
class Candidate:
    """
    Arguments:
        name: of a learned one, α.
        values: how many numbers were learned; of a mask, edited heads.
        search: fitness on the search split; None: not computed.
        score: a split's evaluator → its score.
    """

    name: str
    values: int
    search: float | None
    score: Callable[[Evaluator], Score]


@dataclass(frozen=True, eq=False)
class Place:
    """Where a unit's methods are run: the bench of one domain, size and seed, the old data, and the anchors."""

    bench: Bench
    old: Bench
    anchors: Anchors
    seed: int


def masks(place: Place, settings: Settings) -> list[Candidate]:
    bench = place.bench
    evaluate = bench.evaluator("search")
    found = []
    for operator in settings.operators:
        found.append(search(bench, evaluate, operator, settings, lambda: BUDGET - evaluate.spent, found))
    return [
        Candidate(str(one.mask), one.mask.size, one.score.fitness, lambda ev, mask=one.mask: ev([mask])[0])
        for _, one in candidates(found, 1, settings.operators)[: settings.finalists]
    ]


def learned(place: Place, names: str, anchored: bool) -> list[Candidate]:
    bench = place.bench
    settings = ValueSettings(learn=tuple(names.split("+")), epochs=EPOCHS, seed=place.seed)
    found = learn_values(
        bench.model.tower,
        bench.cache.take(bench.splits.search),
        loss_of(bench.objective("search"), "cpu"),
        settings,
        bench.moments,
        anchors=place.anchors if anchored else None,
    )
    return [
        Candidate(f"{alpha:g}", mask.values, None, lambda ev, mask=mask: ev([mask])[0])
        for alpha in ALPHAS
        if not (mask := found.mask.shrunk(alpha)).is_identity
    ]


def trained(place: Place, name: str, anchored: bool) -> list[Candidate]:
    bench = place.bench
    tower = bench.model.tower
    settings = FitSettings(rank=8, epochs=EPOCHS, holdout=0.0, seed=place.seed)
    objective = bench.objective("search")
    assert isinstance(objective, Retrieval)
    captions = captions_of(objective, tower.device)
    anchors = place.anchors if anchored else None
    fitted = fit(name, tower, bench.cache.take(bench.splits.search), captions, settings, anchors=anchors)
    if not fitted.best:
        return []
    if name == "adapter":  # on embeddings of length 1, to which it adds

        def score(ev: Evaluator, alpha: float) -> Score:
            e = unit(embeddings_of(ev.tower, ev.pixels, ev.layout))  # (N, E)
            return ev.objective(e + alpha * (fitted.image(e) - e))

        return [Candidate(f"{alpha:g}", fitted.trained, None, partial(score, alpha=alpha)) for alpha in ALPHAS]
    towers = {alpha: between(tower, fitted.tower, alpha) for alpha in ALPHAS}
    return [
        Candidate(
            f"{alpha:g}",
            fitted.trained,
            None,
            lambda ev, one=one: ev.objective(embeddings_of(one, ev.pixels, ev.layout)),
        )
        for alpha, one in towers.items()
    ]


def run(place: Place, method: str) -> list[Candidate]:
    if method in ("mask", FIRST):
        return masks(place, Settings(seed=place.seed, controls=1, sweep=method != FIRST))
    name, _, anchored = method.partition(" ")
    if name == "alphabet":
        operators = ("uniform", "zero", "scale(1.5)", "keys")
        return masks(place, Settings(operators=operators, seed=place.seed, controls=1))
    if name in LEARNED:
        return learned(place, name, bool(anchored))
    return trained(place, name, bool(anchored))


# ---- one domain, size and seed


def place_of(data: Path, work: Path, target: str, size: int, seed: int, model: Model) -> Place:
    """The test split is fixed; the seed draws the others from what is left."""
    path = target_pairs(data, work, target, {"search": 10**9, "pick": 10**9, "test": 10**9})
    pairs = headwise.read(path, split=None)
    order = list(range(len(pairs)))
    random.Random(f"{target} test").shuffle(order)
    search, pick, judged = size, SIZES[size], TEST
    if len(order) < search + pick + judged:  # a small domain: in proportion
        search, pick = (count * len(order) // (search + pick + judged) for count in (search, pick))
        judged = len(order) - search - pick
    test, rest = order[:judged], order[judged:]
    random.Random(f"{target} {seed}").shuffle(rest)
    parts = [tuple(sorted(part)) for part in (rest[:search], rest[search : search + pick], test)]
    name = hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
    splits = Splits(*parts, how=f"drawn with seed {seed}", hash=name)
    bench = prepare(model, pairs, splits, dtype="float32", study=None)
    old = headwise.read(trained_pairs(data, work, OLD + ANCHORS))
    whole = tuple(range(OLD))
    kept = prepare(model, old, Splits((), (), whole, how="whole", hash="old"), dtype="float32", study=None)
    pixels = kept.cache.take(tuple(range(OLD, OLD + ANCHORS)))
    return Place(bench, kept, Anchors(pixels, embeddings_of(model.tower, pixels), model.logit_scale), seed)


def measure(place: Place, unchanged: dict[str, Score], method: str) -> bytes:
    """Identity and all candidates of a method on the pick split, as a safetensors file; on test and old data all of those in
    `WHOLE`, else the one that the pick split chooses. Of masks `ladder_page.py` scores there what any ladder chooses.

    Arguments:
        unchanged: split → identity's score.
    """
    began = time.process_time()
    found = run(place, method)
    took = time.process_time() - began
    splits = evaluators(place)
    rows: list[dict] = [{"name": "identity", "values": 0, "search": None}]
    rows += [{"name": one.name, "values": one.values, "search": one.search} for one in found]
    picks = [unchanged["pick"], *(one.score(splits["pick"]) for one in found)]
    index = choose(picks, [row["values"] for row in rows], rule="best", seed=place.seed).index
    judged = [] if method in MASKS else [i for i in range(1, len(rows)) if method in WHOLE or i == index]
    hits = {}
    for split, evaluate in splits.items():
        scores = dict(enumerate(picks)) if split == "pick" else {0: unchanged[split]}
        scores |= {i: found[i - 1].score(evaluate) for i in judged if split != "pick"}
        zero = np.zeros_like(scores[0].hits)
        hits[split] = packed(np.stack([scores[i].hits if i in scores else zero for i in range(len(rows))]))  # (C, N, P)
        for i, score in scores.items():
            rows[i][split] = [score.fitness, score.loss]
    return dump_tensors(hits, {"candidates": rows, "seconds": took, "processor": processor()})


def measure_again(place: Place, method: str, alone: Path) -> bytes:
    """As `measure`, of a method that learns from search and pick images together, on test and old data; without candidates
    where the pick split chose none of what it learned from search images.

    Arguments:
        alone: what `measure` kept of the method.
    """
    hits, facts = load_tensors(alone)
    design, rows = place.bench.objective("pick").design, facts["candidates"]  # type: ignore[attr-defined]
    picks = [Measured(row["pick"][0], row["pick"][1], whole(hits["pick"][i]), design) for i, row in enumerate(rows)]
    if not choose(picks, [row["values"] for row in rows], rule="best", seed=place.seed).index:
        return dump_tensors({}, {"candidates": [], "processor": processor()})
    found = run(replace(place, bench=joined(place.bench)), method)
    told: list[dict] = [{"name": one.name} for one in found]
    hits = {}
    for split, evaluate in evaluators(place).items():
        if split != "pick":
            scores = [one.score(evaluate) for one in found]
            hits[split] = packed(np.stack([score.hits for score in scores]))
            for row, score in zip(told, scores, strict=True):
                row[split] = [score.fitness, score.loss]
    return dump_tensors(hits, {"candidates": told, "processor": processor()})


def evaluators(place: Place) -> dict[str, Evaluator]:
    """Of the splits that candidates are scored on."""
    return {
        "pick": place.bench.evaluator("pick"),
        "test": place.bench.evaluator("test"),
        "old": place.old.evaluator("test"),
    }


def main(
    data: Annotated[Path, typer.Option(help="What recipes/demo/prepare.py made.")],
    work: Annotated[Path, typer.Option(help="Where the measurements are kept.")],
    target: Annotated[list[str] | None, typer.Option(help="Of the domains; by default all.")] = None,
    size: Annotated[list[int] | None, typer.Option(help="Search images; by default 200 and 40.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="By default all.")] = None,
    seeds: Annotated[int, typer.Option(help="Draws of search and pick split.")] = 5,
    anew: Annotated[bool, typer.Option("--anew", help="Measure what benchmarks/kept/ holds, too.")] = False,
) -> None:
    model = load_model("demo", Machine())
    keep = Mask.identity(model.tower.grid)
    if not anew:
        restore(work)
    for images, draw, domain in product(list(size or SIZES), range(seeds), list(target or TARGETS)):
        folder = work / "ladder" / f"{domain}-{images}-seed{draw}"
        place, unchanged = None, {}
        for name in list(method or (*METHODS, *OTHERS, *AGAIN)):
            path = folder / f"{name}.safetensors"
            if path.exists():
                continue
            if place is None:
                place = place_of(data, work, domain, images, draw, model)
                unchanged = {split: evaluate([keep])[0] for split, evaluate in evaluators(place).items()}
            if name in AGAIN:
                plain = name.removesuffix(" again")
                found = measure_again(place, plain, folder / f"{plain}.safetensors")
            else:
                found = measure(place, unchanged, name)
            write_files(folder, {path.name: found})
            print(folder.name, name, flush=True)


if __name__ == "__main__":
    typer.run(main)

"""Weights of a rung above edits, trained on the search split and kept beside the study.

In: a bench, a rung's name. Out: `Trained`. A run that goes on reads what it trained before. What becomes of it is not known here.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from headwise.baselines import fit
from headwise.baselines.training import FitSettings
from headwise.checked import Damaged, dump_tensors, load_tensors
from headwise.files import write_files
from headwise.jobs.steps.bench import Bench
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.starting import exact, scratch
from headwise.scoring.losses import captions_of
from headwise.scoring.objectives import Retrieval
from headwise.towers.base import Tower

RANK = 8  # of LoRA: that of docs/ladder.md


@dataclass(frozen=True, eq=False)
class Trained:
    """What training a rung left.

    Arguments:
        tower: in float32, all of the way.
        values: how many were trained.
        key: what it was trained with and on.
    """

    tower: Tower
    values: int
    key: str


def train(bench: Bench, rung: str, settings: Settings, name: str = "trained") -> Trained:
    """Train one rung on all search images, or read what a former run of the same kept.

    Arguments:
        name: of what is kept.

    Raises:
        HeadwiseError: as `headwise.baselines.fit`; a file that cannot be written.
    """
    tower, old = exact(bench), bench.anchored
    options = FitSettings(
        rank=RANK,
        epochs=settings.values.epochs,
        holdout=0.0,
        recompute=settings.values.recompute,
        seed=settings.seed,
    )
    held = [old.pairs.hash, settings.anchor_weight] if old else []
    facts = ["trained", rung, asdict(options), bench.key, held]
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:32]
    path = scratch(bench, f"{name}-{rung}-seed{settings.seed}.safetensors")
    known = _read(path, key, tower, bench.reporter.say) if path else None
    if known:
        return known
    objective = bench.objective("search")
    assert isinstance(objective, Retrieval)
    cost = settings.values.epochs * settings.trained_cost(bool(old))
    with bench.reporter.stage(f"Training {rung}", cost, "FFE") as advance:
        fitted = fit(
            rung,
            tower,
            bench.cache.take(bench.splits.search),
            captions_of(objective, tower.device),
            options,
            anchors=old and old.anchors(settings.anchor_weight, bench.model.logit_scale),
            progress=lambda share: advance(share * cost),
        )
    trained = Trained(fitted.tower, fitted.trained, key)
    if path:
        _write(path, trained, tower)
    return trained


def _write(path: Path, trained: Trained, tower: Tower) -> None:
    """The parameters that training changed."""
    before = dict(tower.parts.named_parameters())
    changed = {
        name: value.detach().cpu()
        for name, value in trained.tower.parts.named_parameters()
        if not torch.equal(value, before[name])
    }
    write_files(path.parent, {path.name: dump_tensors(changed, {"key": trained.key, "values": trained.values})})


def _read(path: Path, key: str, tower: Tower, say: Callable[[str], None]) -> Trained | None:
    """What a former run kept; None where there is nothing, or of another training, or damaged (which is said)."""
    try:
        changed, about = load_tensors(path)
    except FileNotFoundError:
        return None
    except (OSError, Damaged):
        say(f"What was trained, in {path}, is damaged; it is trained again.")
        return None
    if about["key"] != key:
        return None
    parts = copy.deepcopy(tower.parts)
    with torch.no_grad():
        for name, parameter in parts.named_parameters():
            if name in changed:
                parameter.copy_(changed[name])
    return Trained(tower.build(parts), about["values"], key)

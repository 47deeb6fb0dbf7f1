"""Where AAT-BP stands between two epochs, in memory and as a safetensors file.

In: gates' numbers, Adam's moments, the generator, the history. Out: the same, bit for bit, for the same run alone:
its file knows the model, loss, settings and images by a hash. What an epoch does is in `gradient.py`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path

import torch

from headwise.checked import Damaged, dump_tensors, load_tensors
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Means, Pixels
from headwise.files import write_files
from headwise.scoring.losses import Loss
from headwise.towers.base import Tower


@dataclass(frozen=True)
class Epoch:
    """
    Arguments:
        number: counted from 1.
        temperature: at its last step.
        loss: mean over its training batches, without the penalty.
        held_out: loss of the images that are not trained on, all in one batch, after it; None: there are none.
        open: sum of the gates after it.
        suppressed: gates below one half after it.
    """

    number: int
    temperature: float
    loss: float
    held_out: float | None
    open: float
    suppressed: int


@dataclass(frozen=True)
class State:
    """Everything that the next epoch depends on.

    Arguments:
        theta, exp_avg, exp_avg_sq: gates' numbers and Adam's moments, (n) float32.
        step: Adam's count, a scalar float32.
        generator: of the order of the images and of the noise.
        best_theta, best_temperature, best: of the epoch with the lowest held-out loss (best 0: none yet).
        history: the epochs so far.
    """

    theta: torch.Tensor
    exp_avg: torch.Tensor
    exp_avg_sq: torch.Tensor
    step: torch.Tensor
    generator: torch.Tensor
    best_theta: torch.Tensor
    best_temperature: float
    best: int
    history: tuple[Epoch, ...]


class OtherRun(HeadwiseError):
    """A checkpoint of a run with another model, other data or other settings."""


TENSORS = ("theta", "exp_avg", "exp_avg_sq", "step", "generator", "best_theta")


def fingerprint(tower: Tower, pixels: Pixels, loss: Loss, means: Means | None, facts: Mapping[str, object]) -> str:
    """A hash of what a run depends on: model, loss, settings, and the first and the last image."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    digest.update(json.dumps([tower.weights_hash, str(tower.dtype), tower.device.type, len(pixels)]).encode())
    _feed(digest, (loss, pixels[0:1], pixels[len(pixels) - 1 : len(pixels)], tuple(means or ())))
    return digest.hexdigest()[:32]


def _feed(digest, value: object) -> None:
    """Adds tensors, dataclasses and tuples of them, and plain values to a hash."""
    if isinstance(value, torch.Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    elif is_dataclass(value):
        digest.update(type(value).__name__.encode())
        _feed(digest, tuple(getattr(value, field.name) for field in fields(value)))
    elif isinstance(value, tuple):
        for item in value:
            _feed(digest, item)
    else:
        digest.update(json.dumps(value).encode())


def write_state(path: Path, key: str, state: State) -> None:
    """The file appears whole or not at all, with a checksum inside; equal states give equal bytes.

    Raises:
        HeadwiseError: it cannot be written.
    """
    facts = {
        "run": key,
        "best": state.best,
        "best_temperature": state.best_temperature,
        "history": [asdict(epoch) for epoch in state.history],
    }
    tensors = {name: getattr(state, name).clone().contiguous() for name in TENSORS}
    write_files(path.parent, {path.name: dump_tensors(tensors, facts)})


def read_state(path: Path, key: str) -> State | None:
    """What `write_state` wrote, None where there is no file.

    Raises:
        HeadwiseError: a damaged file.
        OtherRun: one of another run.
    """
    try:
        tensors, facts = load_tensors(path)
    except FileNotFoundError:
        return None
    except (OSError, Damaged) as error:
        raise HeadwiseError(f"{path} is not a checkpoint of AAT-BP, or is damaged ({error}). Delete it.") from error
    if facts["run"] != key:
        raise OtherRun(
            f"{path} is the checkpoint of another run: the model, the captions, the images or the settings differ. "
            "Give another file, or delete this one to begin anew."
        )
    history = tuple(Epoch(**entry) for entry in facts["history"])
    return State(**tensors, best_temperature=facts["best_temperature"], best=facts["best"], history=history)

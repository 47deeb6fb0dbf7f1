"""AAT-BP: one gate per head, learned by back-propagation while every parameter of the model stays as it is.

    minimise over θ ∈ R^H:  E over batches of L(e(g(θ))) + λ · (expected share of heads kept)

g(θ) ∈ [0, 1]^H: gates, made by one of the forms of `gates.py`; the loop is `training.py`. Implements the
technique of AAT (arXiv 2507.00537), which learns attention gates by back-propagation; the forms are Louizos 2018
(arXiv 1712.01312), Voita 2019 (arXiv 1905.09418) and Xie and Ermon 2019 (arXiv 1901.10517).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import torch

from headwise.edits.edit import KINDS
from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Means, Pixels
from headwise.scoring.losses import Loss, check_images
from headwise.search.gated import constants, gate_rows
from headwise.search.gates import FORMS
from headwise.search.gradient_state import Epoch, fingerprint
from headwise.search.parts import Calls
from headwise.search.training import Rows, Training
from headwise.towers.base import Tower

# letters whose number is a gate: from 0, the head as AAT suppresses it, to one that keeps it
GATED = tuple(name for name, kind in KINDS.items() if kind.keeps is not None and kind.default is not None)


def check_gated(operator: str) -> None:
    """
    Raises:
        HeadwiseError: an edit that is no gate of a head.
    """
    if operator not in GATED:
        raise HeadwiseError(
            f"AAT-BP learns gates between a head as it is and a suppressed one; '{operator}' has none. Use one of: "
            f"{', '.join(GATED)}; or leave bp out."
        )


@dataclass(frozen=True)
class GradientSettings:
    """
    Arguments:
        form: `sigmoid`, `hard_concrete` or `top_k`.
        learning_rate: of Adam, for θ.
        epochs: most passes over the split.
        batch: images per step.
        penalty: λ of loss + λ · (expected share of heads kept); above 0 suppresses more heads, below 0 fewer.
        temperature: at the first and the last step, geometric in between. `sigmoid`: τ of σ(θ/τ); `top_k`: of the
            soft choice, and the strength of its noise.
        k: `top_k`: how many heads to suppress.
        holdout: share of the images that are not trained on; their loss chooses the epoch. 0: the last epoch.
        patience: stop once more than this many epochs in a row had no lower loss on them.
        recompute: activation checkpointing: less memory, half as much time again.
        autocast: run the tower in bfloat16 (gates and loss stay in float32).
        seed: the same seed gives the same gates, bit for bit on a CPU.

    Raises:
        HeadwiseError: a value out of its range.
    """

    form: str = "sigmoid"
    learning_rate: float = 0.3
    epochs: int = 20
    batch: int = 64
    penalty: float = 0.0
    temperature: tuple[float, float] = (1.0, 0.3)
    k: int | None = None
    holdout: float = 0.2
    patience: int = 4
    recompute: bool = False
    autocast: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        def need(ok: bool, name: str, rule: str) -> None:
            if not ok:
                raise HeadwiseError(f"AAT-BP: {name} is {getattr(self, name)}; it must be {rule}.")

        object.__setattr__(self, "temperature", tuple(map(float, self.temperature)))
        need(self.form in FORMS, "form", "one of: " + ", ".join(FORMS))
        need(0 < self.learning_rate < math.inf, "learning_rate", "above 0")
        need(self.epochs >= 1, "epochs", "at least 1")
        need(self.batch >= 2, "batch", "at least 2: an image needs another one to be told from")
        need(math.isfinite(self.penalty), "penalty", "a finite number")
        need(
            len(self.temperature) == 2 and all(0 < t < math.inf for t in self.temperature),
            "temperature",
            "two numbers above 0, at the start and at the end",
        )
        need(0 <= self.holdout < 1, "holdout", "at least 0 and below 1")
        need(self.patience >= 1, "patience", "at least 1")
        if self.form == "top_k":
            need(self.k is not None and self.k >= 1, "k", "at least 1 for the form top_k, which needs it")
            need(self.penalty == 0, "penalty", "0 for the form top_k, whose number of heads is given")
        else:
            need(self.k is None, "k", f"left out for the form {self.form}; it belongs to top_k")


@dataclass(frozen=True)
class Learned:
    """What back-propagation found.

    Arguments:
        letter: the letter whose numbers the gates are.
        soft: the gates as they were learned (0 or 1 for `top_k`).
        ranking: heads that can be suppressed, the one with the lowest gate first.
        history: one entry per epoch.
        best: the number of the epoch whose gates these are.
        spent: FFE: 1 for a forward, 1 more for a backward (activations alone), 1 more where blocks run again.
    """

    letter: str
    soft: Mask
    ranking: tuple[Head, ...]
    history: tuple[Epoch, ...]
    best: int
    spent: float

    @cached_property
    def binary(self) -> Mask:
        """The gates cut at one half."""
        return Mask.suppress(self.soft.grid, [head for head, gate in self.gates.items() if gate < 0.5], self.letter)

    def cuts(self, most: int) -> tuple[Mask, ...]:
        """The first head of the ranking suppressed, the first two, …, at most `most`."""
        sizes = range(1, min(most, len(self.ranking)) + 1)
        return tuple(Mask.suppress(self.soft.grid, self.ranking[:size], self.letter) for size in sizes)

    @property
    def gates(self) -> dict[Head, float]:
        """Every head's gate."""
        return {head: self.soft.edit(head).gate or 0.0 for head in self.soft.grid}


def learn_gates(
    tower: Tower,
    pixels: Pixels,
    loss: Loss,
    operator: str,
    settings: GradientSettings,
    *,
    means: Means | None = None,
    checkpoint: Path | None = None,
    about: str = "",
    workers: Calls | None = None,
    progress: Callable[[float], None] | None = None,
) -> Learned:
    """Learn one gate per head on the search split.

    Arguments:
        tower: the image tower; its parameters are not trained, and it is left as it was.
        pixels: the split's images, (N, 3, R, R).
        loss: of the split, from `headwise.scoring.losses`, on the tower's device.
        operator: what a suppressed head emits, one of `GATED`.
        settings: see `GradientSettings`.
        means: operator `mean`: per row of the grid, (H, d).
        checkpoint: a file that is written after each epoch; a later call with the same arguments goes on from it
            and ends with the same bytes on a CPU. None keeps nothing.
        about: what else the run depends on: a checkpoint of another value is another run's.
        workers: who runs the tower, as `crew.Crew`; None: this process. The bits are the same.
        progress: called with the FFE done since the last call.

    Raises:
        HeadwiseError: bad input, a loss that is not finite, or a checkpoint of another run.
    """
    check_gated(operator)
    tower.check_edit(operator)
    check_images(loss, len(pixels))
    means = constants(tower, operator, means)
    gates = _Gates(tower, operator, settings, means)
    training = Training(tower, pixels, loss, gates, settings, workers=workers, progress=progress)
    facts = {"operator": operator, "settings": asdict(settings), "about": about}
    key = fingerprint(tower, pixels, loss, means, facts) if checkpoint else ""
    state = training.run(checkpoint, key)
    grid, heads = tower.grid, list(tower.grid)
    final = gates.form.evaluate(state.best_theta, state.best_temperature, gates.k)  # (n)
    order = torch.sort(state.best_theta, stable=True).indices  # ties: the first head of the grid
    return Learned(
        letter=operator,
        soft=Mask.gated(grid, tuple(tuple(row.tolist()) for row in gates.spread(final)), operator),
        ranking=tuple(heads[int(i)] for i in gates.places[order]),
        history=state.history,
        best=state.best,
        spent=training.cost(state),
    )


class _Gates:
    """θ as gates: a `Parametrisation`."""

    def __init__(self, tower: Tower, operator: str, settings: GradientSettings, means: Means | None):
        self.tower, self.operator, self.settings, self.means = tower, operator, settings, means
        self.form = FORMS[settings.form]
        able = [operator in block.letters for block in tower.blocks for _ in range(block.heads)]
        self.places = torch.tensor([i for i, can in enumerate(able) if can])  # (n): heads with a gate, in the grid
        self.k = settings.k or 0
        if self.k >= len(self.places):
            raise HeadwiseError(f"AAT-BP: k is {self.k}, but there are only {len(self.places)} heads to suppress.")
        self.start = torch.full((len(self.places),), self.form.start)
        self.noisy = self.form.noise

    def spread(self, gates: torch.Tensor) -> list[torch.Tensor]:
        """Gates of the heads that have one, (n), → per row of the grid, (H)."""
        everything = torch.ones(self.tower.grid.size).index_copy(0, self.places, gates)
        return list(everything.to(self.tower.device).split(list(self.tower.grid.rows)))

    def rows(self, theta: torch.Tensor, noise: torch.Tensor | None, temperature: float) -> Rows:
        gates = (
            self.form.evaluate(theta, temperature, self.k)
            if noise is None
            else self.form.train(theta, noise, temperature, self.k)
        )  # (n)
        return gate_rows(self.tower, self.spread(gates), self.operator, self.means)

    def penalty(self, theta: torch.Tensor, temperature: float) -> torch.Tensor | float:
        if self.form.kept is None:
            return 0.0
        return self.settings.penalty * self.form.kept(theta, temperature) / len(theta)

    def project(self, theta: torch.Tensor) -> None:
        pass

    def summary(self, theta: torch.Tensor, temperature: float) -> tuple[float, int]:
        gates = self.form.evaluate(theta, temperature, self.k)  # (n)
        return float(gates.sum()), int((gates < 0.5).sum())

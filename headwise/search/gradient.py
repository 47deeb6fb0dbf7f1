"""AAT-BP: one gate per head, learned by back-propagation while every parameter of the model stays as it is.

    minimise over θ ∈ R^H:  E over batches of L(e(g(θ))) + λ · (expected share of heads kept)

g(θ) ∈ [0, 1]^H: gates, made by one of the forms of `gates.py`; e: a batch's embeddings under them, (B, E)
(`gated.py`); L: the differentiable loss of the objective. Adam on θ; images held out choose the epoch. Implements the
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

from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Means, Pixels
from headwise.scoring.losses import Loss, check_images, value_of
from headwise.search.gated import constants, frozen, gate_rows, gather, trained_cost, under
from headwise.search.gates import FORMS
from headwise.search.gradient_state import Epoch, State, fingerprint, read_state, write_state
from headwise.towers.base import Tower

EVALUATION_BATCH = 64  # images at a time where no gradients are kept


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
        patience: stop after this many epochs without a lower loss on them.
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
    progress: Callable[[float], None] | None = None,
) -> Learned:
    """Learn one gate per head on the search split.

    Arguments:
        tower: the image tower; its parameters are not trained, and it is left as it was.
        pixels: the split's images, (N, 3, R, R).
        loss: of the split, from `headwise.scoring.losses`, on the tower's device.
        operator: what a suppressed head emits.
        settings: see `GradientSettings`.
        means: operator `mean`: per row of the grid, (H, d).
        checkpoint: a file that is written after each epoch; a later call with the same arguments goes on from it
            and ends with the same bytes on a CPU. None keeps nothing.
        about: what else the run depends on: a checkpoint of another value is another run's.
        progress: called with the FFE done since the last call.

    Raises:
        HeadwiseError: bad input, a loss that is not finite, or a checkpoint of another run.
    """
    tower.check_edit(operator)
    check_images(loss, len(pixels))
    training = _Training(tower, pixels, loss, operator, settings, constants(tower, operator, means), progress)
    facts = {"operator": operator, "settings": asdict(settings), "about": about}
    key = fingerprint(tower, pixels, loss, means if operator == "mean" else None, facts) if checkpoint else ""
    state = (read_state(checkpoint, key) if checkpoint else None) or training.begin()
    with frozen(tower.parts):
        while len(state.history) < settings.epochs and not _stopped(state, settings):
            state = training.epoch(state)
            if checkpoint:
                write_state(checkpoint, key, state)
    return training.learned(state)


def split_off(images: int, share: float, seed: int, what: str = "images") -> tuple[torch.Tensor, torch.Tensor]:
    """Images (or units of them) to train on and to stop by, int64, in ascending order.

    Raises:
        HeadwiseError: fewer than two would be left on a side.
    """
    count = round(images * share)
    if images - count < 2 or (share > 0 and count < 2):
        raise HeadwiseError(
            f"{images} {what} cannot be divided into two or more to train on and two or more to stop by "
            f"(a share of {share:g}). Give more images, or hold none out."
        )
    order = torch.randperm(images, generator=torch.Generator().manual_seed(seed))
    return order[count:].sort().values, order[:count].sort().values


def _stopped(state: State, settings: GradientSettings) -> bool:
    return settings.holdout > 0 and len(state.history) - state.best > settings.patience


class _Training:
    """What stays the same from epoch to epoch."""

    def __init__(
        self,
        tower: Tower,
        pixels: Pixels,
        loss: Loss,
        operator: str,
        settings: GradientSettings,
        means: Means | None,
        progress: Callable[[float], None] | None,
    ):
        self.tower, self.pixels, self.loss, self.operator = tower, pixels, loss, operator
        self.settings, self.means, self.progress = settings, means, progress
        self.form = FORMS[settings.form]
        able = [operator in block.letters for block in tower.blocks for _ in range(block.heads)]
        self.places = torch.tensor([i for i, can in enumerate(able) if can])  # (n): heads with a gate, in the grid
        self.k = settings.k or 0
        if self.k >= len(self.places):
            raise HeadwiseError(f"AAT-BP: k is {self.k}, but there are only {len(self.places)} heads to suppress.")
        self.units = [torch.tensor(unit) for unit in loss.units] if loss.units is not None else None
        what = "groups of images" if self.units else "images"
        self.train, held_out = split_off(len(self.units or pixels), settings.holdout, settings.seed, what)
        self.held_out = self.images(held_out)
        self.trained = len(self.images(self.train))
        self.steps = max(1, min(math.ceil(self.trained / settings.batch), len(self.train)))

    def images(self, numbers: torch.Tensor) -> torch.Tensor:
        """The images of these units, (B) int64; without units the numbers are those of images."""
        if self.units is None or not len(numbers):
            return numbers
        return torch.cat([self.units[int(number)] for number in numbers])

    def begin(self) -> State:
        n = len(self.places)
        theta = torch.full((n,), self.form.start)
        generator = torch.Generator().manual_seed(self.settings.seed + 1)
        return State(theta, torch.zeros(n), torch.zeros(n), torch.zeros(()), generator.get_state(), theta, 1.0, 0, ())

    def temperature(self, step: int) -> float:
        first, last = self.settings.temperature
        return first * (last / first) ** (step / max(1, self.settings.epochs * self.steps - 1))

    def rows(self, gates: torch.Tensor) -> list[torch.Tensor]:
        """Gates of the heads that have one, (n), → per row of the grid, (H)."""
        everything = torch.ones(self.tower.grid.size).index_copy(0, self.places, gates)
        return list(everything.to(self.tower.device).split(list(self.tower.grid.rows)))

    def epoch(self, state: State) -> State:
        """One pass over the training images, then the loss on the others."""
        theta = state.theta.clone().requires_grad_()  # (n), on the CPU whatever the tower's device
        adam = torch.optim.Adam([theta], lr=self.settings.learning_rate)
        adam.state[theta] = {
            "step": state.step.clone(),
            "exp_avg": state.exp_avg.clone(),
            "exp_avg_sq": state.exp_avg_sq.clone(),
        }
        generator = torch.Generator()
        generator.set_state(state.generator)
        order = self.train[torch.randperm(len(self.train), generator=generator)]
        total, temperature = 0.0, 1.0
        for i, chosen in enumerate(order.tensor_split(self.steps)):
            numbers = self.images(chosen)  # (B)
            temperature = self.temperature(len(state.history) * self.steps + i)
            noise = torch.rand(len(theta), generator=generator) if self.form.noise else theta.detach()
            gates = self.form.train(theta, noise, temperature, self.k)  # (n)
            value = value_of(self.loss, self.embed(numbers, gates), numbers.to(self.tower.device))
            pay, value = value.cpu(), float(value.detach())
            if self.form.kept:
                pay = pay + self.settings.penalty * self.form.kept(theta, temperature) / len(theta)
            adam.zero_grad()
            pay.backward()
            if theta.grad is None or not bool(torch.isfinite(theta.grad).all()):
                raise HeadwiseError(
                    f"AAT-BP: the loss ({value:g}) or its gradient is not finite in epoch "
                    f"{len(state.history) + 1}. Check the model's weights; if it runs in bfloat16, use float32."
                )
            adam.step()
            total += value * len(numbers) / self.trained
            self.tell(len(numbers), trained_cost(self.settings.recompute))
        return self.judged(state, theta.detach(), adam.state[theta], generator, total, temperature)

    def judged(self, state: State, theta, moments, generator: torch.Generator, loss: float, temperature: float):
        """The state after an epoch, its gates compared with the best so far."""
        gates = self.form.evaluate(theta, temperature, self.k)  # (n)
        held_out = self.held_out_loss(gates)
        number = len(state.history) + 1
        entry = Epoch(number, temperature, loss, held_out, float(gates.sum()), int((gates < 0.5).sum()))
        known = state.history[state.best - 1].held_out if state.best else None
        better = held_out is None or known is None or held_out < known
        return State(
            theta,
            moments["exp_avg"],
            moments["exp_avg_sq"],
            moments["step"],
            generator.get_state(),
            theta if better else state.best_theta,
            temperature if better else state.best_temperature,
            number if better else state.best,
            (*state.history, entry),
        )

    def embed(self, numbers: torch.Tensor, gates: torch.Tensor) -> torch.Tensor:
        """Embeddings of these images, (B, E)."""
        images = gather(self.tower, self.pixels, numbers)  # (B, 3, R, R)
        with torch.autocast(self.tower.device.type, torch.bfloat16, enabled=self.settings.autocast):
            edits = gate_rows(self.tower, self.rows(gates), self.operator, self.means)
            return under(self.tower, images, edits, recompute=self.settings.recompute)

    @torch.no_grad()
    def held_out_loss(self, gates: torch.Tensor) -> float | None:
        """The loss of the images that are not trained on, as one batch."""
        if not len(self.held_out):
            return None
        parts = []
        for numbers in self.held_out.split(EVALUATION_BATCH):
            parts.append(self.embed(numbers, gates).float())  # (B, E)
            self.tell(len(numbers), 1.0)
        return sum(float(term) for term in self.loss.terms(torch.cat(parts), self.held_out.to(self.tower.device)))

    def tell(self, images: int, cost: float) -> None:
        if self.progress:
            self.progress(cost * images / len(self.pixels))

    def learned(self, state: State) -> Learned:
        gates = self.form.evaluate(state.best_theta, state.best_temperature, self.k)  # (n)
        grid, heads = self.tower.grid, list(self.tower.grid)
        rows = tuple(tuple(row.tolist()) for row in self.rows(gates))
        order = torch.sort(state.best_theta, stable=True).indices  # ties: the first head of the grid
        epoch = self.trained * trained_cost(self.settings.recompute) + len(self.held_out)
        return Learned(
            letter=self.operator,
            soft=Mask.gated(grid, rows, self.operator),
            ranking=tuple(heads[int(i)] for i in self.places[order]),
            history=state.history,
            best=state.best,
            spent=len(state.history) * epoch / len(self.pixels),
        )

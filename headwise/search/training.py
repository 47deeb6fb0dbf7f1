"""The loop that learns numbers of edits by back-propagation while every parameter of the model stays as it is.

    minimise over θ:  E over batches of L(e(θ)) + penalty(θ) + λ · s · E over anchors of (1 − cos(e(θ), e))

e(θ): a batch's embeddings under the edits that θ stands for, (B, E); L: the differentiable loss of the objective; anchors:
images that should stay where they are, s: the model's logit scale. Adam on θ; images held out choose the epoch. In: what θ
means (`Parametrisation`), a tower, images, a loss. Out: the last `State`, the same bytes for the same run, resumed or not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch

from headwise.edits.operators import Row
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Pixels
from headwise.scoring.losses import Loss, value_of
from headwise.search.gated import frozen, trained_cost
from headwise.search.gradient_state import Epoch, State, read_state, write_state
from headwise.search.parts import Calls, Embedder, Parts
from headwise.towers.base import Tower

EVALUATION_BATCH = 64  # images at a time where no gradients are kept
Rows = list[Row | None]


class Schedule(Protocol):
    """How to step: see `gradient.GradientSettings`."""

    @property
    def learning_rate(self) -> float: ...
    @property
    def epochs(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def temperature(self) -> tuple[float, float]: ...
    @property
    def holdout(self) -> float: ...
    @property
    def patience(self) -> int: ...
    @property
    def recompute(self) -> bool: ...
    @property
    def autocast(self) -> bool: ...
    @property
    def seed(self) -> int: ...


class Parametrisation(Protocol):
    """What the numbers θ (n) mean."""

    @property
    def start(self) -> torch.Tensor:
        """θ of the unchanged model, or near it, (n) float32."""
        ...

    @property
    def noisy(self) -> bool:
        """Whether training draws noise."""
        ...

    def rows(self, theta: torch.Tensor, noise: torch.Tensor | None, temperature: float) -> Rows:
        """The edits of θ, per row of the grid, with gradients; without noise as they are evaluated."""
        ...

    def penalty(self, theta: torch.Tensor, temperature: float) -> torch.Tensor | float:
        """What is added to the loss."""
        ...

    def project(self, theta: torch.Tensor) -> None:
        """Put θ back into its range after a step, in place."""
        ...

    def summary(self, theta: torch.Tensor, temperature: float) -> tuple[float, int]:
        """For the history: how much is left of the heads or how far they moved, and how many heads changed."""
        ...


@dataclass(frozen=True, eq=False)
class Anchors:
    """Images whose embeddings should stay where they are; they need no captions.

    Arguments:
        pixels: (M, 3, R, R).
        embeddings: of the unchanged model, (M, E) float32.
        weight: λ, times the model's logit scale s.
    """

    pixels: Pixels
    embeddings: torch.Tensor
    weight: float

    def moved(
        self, forward: Callable[[torch.Tensor], torch.Tensor], count: int, generator: torch.Generator
    ) -> torch.Tensor:
        """λ · s · mean(1 − cos) of anchors drawn for a step, a scalar with gradients.

        Arguments:
            forward: numbers of anchors (B,) → embeddings (B, E), as the model in training makes them.
            count: how many are drawn, at most.
        """
        numbers = torch.randperm(len(self.embeddings), generator=generator)[:count]
        e = forward(numbers)  # (B, E)
        before = self.embeddings[numbers].to(e.device)
        return self.weight * (1 - torch.nn.functional.cosine_similarity(e, before)).mean()


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


class Training:
    """What stays the same from epoch to epoch.

    Arguments:
        tower: in eval mode inside; its parameters are not trained.
        pixels: the split's images, (N, 3, R, R).
        loss: of the split, on the tower's device.
        parameters: what θ means.
        schedule: how to step.
        anchors: images that should stay where they are.
        workers: who runs the tower; None: this process. The bits are the same.
        progress: called with the FFE done since the last call.
        name: for messages.
    """

    def __init__(
        self,
        tower: Tower,
        pixels: Pixels,
        loss: Loss,
        parameters: Parametrisation,
        schedule: Schedule,
        *,
        anchors: Anchors | None = None,
        workers: Calls | None = None,
        progress: Callable[[float], None] | None = None,
        name: str = "AAT-BP",
    ):
        self.tower, self.pixels, self.loss, self.parameters = tower, pixels, loss, parameters
        self.schedule, self.anchors, self.progress, self.name = schedule, anchors, progress, name
        self.units = [torch.tensor(unit) for unit in loss.units] if loss.units is not None else None
        what = "groups of images" if self.units else "images"
        self.train, held_out = split_off(len(self.units or pixels), schedule.holdout, schedule.seed, what)
        self.held_out = self.images(held_out)
        self.trained = len(self.images(self.train))
        sources = [pixels, anchors.pixels] if anchors else [pixels]
        self.embed = Embedder(tower, Parts(sources, schedule.recompute, schedule.autocast), workers)
        self.steps = max(1, min(math.ceil(self.trained / schedule.batch), len(self.train)))

    def run(self, checkpoint: Path | None = None, key: str = "") -> State:
        """All epochs, from a checkpoint where there is one.

        Raises:
            HeadwiseError: a loss that is not finite, or a checkpoint of another run.
        """
        state = (read_state(checkpoint, key) if checkpoint else None) or self._begin()
        with frozen(self.tower.parts):
            while len(state.history) < self.schedule.epochs and not self._stopped(state):
                state = self._epoch(state)
                if checkpoint:
                    write_state(checkpoint, key, state)
        return state

    def cost(self, state: State) -> float:
        """FFE of the epochs so far."""
        epoch = self.trained * trained_cost(self.schedule.recompute) + len(self.held_out)
        if self.anchors:
            a_step = len(self.anchors.pixels)  # at most: as many as the batch has
            epoch += min(self.trained, self.steps * a_step) * trained_cost(self.schedule.recompute)
        return len(state.history) * epoch / len(self.pixels)

    def images(self, numbers: torch.Tensor) -> torch.Tensor:
        """The images of these units, (B) int64; without units the numbers are those of images."""
        if self.units is None or not len(numbers):
            return numbers
        return torch.cat([self.units[int(number)] for number in numbers])

    def _stopped(self, state: State) -> bool:
        return self.schedule.holdout > 0 and len(state.history) - state.best > self.schedule.patience

    def _begin(self) -> State:
        theta = self.parameters.start
        n = len(theta)
        generator = torch.Generator().manual_seed(self.schedule.seed + 1)
        return State(theta, torch.zeros(n), torch.zeros(n), torch.zeros(()), generator.get_state(), theta, 1.0, 0, ())

    def _temperature(self, step: int) -> float:
        first, last = self.schedule.temperature
        return first * (last / first) ** (step / max(1, self.schedule.epochs * self.steps - 1))

    def _epoch(self, state: State) -> State:
        """One pass over the training images, then the loss on the others."""
        theta = state.theta.clone().requires_grad_()  # (n), on the CPU whatever the tower's device
        adam = torch.optim.Adam([theta], lr=self.schedule.learning_rate)
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
            temperature = self._temperature(len(state.history) * self.steps + i)
            noise = torch.rand(len(theta), generator=generator) if self.parameters.noisy else theta.detach()
            edits = self.parameters.rows(theta, noise, temperature)
            value = value_of(self.loss, self.embed(0, numbers, edits), numbers.to(self.tower.device))
            pay, value = value.cpu() + self.parameters.penalty(theta, temperature), float(value.detach())
            if self.anchors:
                pay = pay + self._moved(self.anchors, edits, len(numbers), generator)
            adam.zero_grad()
            pay.backward()
            if theta.grad is None or not bool(torch.isfinite(theta.grad).all()):
                raise HeadwiseError(
                    f"{self.name}: the loss ({value:g}) or its gradient is not finite in epoch "
                    f"{len(state.history) + 1}. Check the model's weights; if it runs in bfloat16, use float32."
                )
            adam.step()
            with torch.no_grad():
                self.parameters.project(theta)
            total += value * len(numbers) / self.trained
            self._tell(len(numbers), trained_cost(self.schedule.recompute))
        return self._judged(state, theta.detach(), adam.state[theta], generator, total, temperature)

    def _moved(self, anchors: Anchors, edits: Rows, count: int, generator: torch.Generator) -> torch.Tensor:
        """What the step pays for moving anchors, a scalar on the CPU."""
        moved = anchors.moved(lambda numbers: self.embed(1, numbers, edits), count, generator)
        self._tell(min(count, len(anchors.embeddings)), trained_cost(self.schedule.recompute))
        return moved.cpu()

    def _judged(
        self, state: State, theta, moments, generator: torch.Generator, loss: float, temperature: float
    ) -> State:
        """The state after an epoch, its numbers compared with the best so far."""
        held_out = self._held_out_loss(theta, temperature)
        number = len(state.history) + 1
        entry = Epoch(number, temperature, loss, held_out, *self.parameters.summary(theta, temperature))
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

    @torch.no_grad()
    def _held_out_loss(self, theta: torch.Tensor, temperature: float) -> float | None:
        """The loss of the images that are not trained on, as one batch."""
        if not len(self.held_out):
            return None
        edits, parts = self.parameters.rows(theta, None, temperature), []
        for numbers in self.held_out.split(EVALUATION_BATCH):
            parts.append(self.embed(0, numbers, edits))  # (B, E)
            self._tell(len(numbers), 1.0)
        return sum(float(term) for term in self.loss.terms(torch.cat(parts), self.held_out.to(self.tower.device)))

    def _tell(self, images: int, cost: float) -> None:
        if self.progress:
            self.progress(cost * images / len(self.pixels))

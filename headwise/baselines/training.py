"""The training loop that all baselines share, and what it hands back.

In: parameters, a function from image numbers to embeddings, the captions' memory. Out: the values of the epoch whose
held-out loss was lowest, epoch 0 (nothing trained) among them. It does not know which baseline it trains.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Pixels, embed
from headwise.evaluation.layout import Plan, plan
from headwise.scoring.losses import Captions, value_of
from headwise.search.gated import gather
from headwise.search.training import EVALUATION_BATCH, Anchors, split_off
from headwise.towers.base import Tower, evaluating, rows

Progress = Callable[[float], None]
Penalty = Callable[[int, torch.Generator], torch.Tensor]  # of so many anchors, drawn with the generator


@dataclass(frozen=True)
class FitSettings:
    """
    Arguments:
        learning_rate: of AdamW; None: the baseline's own default.
        epochs: most passes over the split.
        batch: images per step.
        weight_decay: of AdamW; pulls what is added to the model towards nothing (LayerNorm and logits: not used).
        holdout: share of the images that are not trained on; their loss chooses the epoch, the start among them.
            0: the last epoch.
        patience: stop after this many epochs without a lower loss on them.
        rank: of LoRA.
        both_sides: linear adapter: another map for the captions.
        recompute: activation checkpointing.
        autocast: run the tower in bfloat16.
        seed: the same seed gives the same values on a CPU.

    Raises:
        HeadwiseError: a value out of its range.
    """

    learning_rate: float | None = None
    epochs: int = 20
    batch: int = 128
    weight_decay: float = 0.01
    holdout: float = 0.2
    patience: int = 4
    rank: int = 4
    both_sides: bool = False
    recompute: bool = False
    autocast: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        def need(ok: bool, name: str, rule: str) -> None:
            if not ok:
                raise HeadwiseError(f"Baseline: {name} is {getattr(self, name)}; it must be {rule}.")

        rate = self.learning_rate
        need(rate is None or 0 < rate < math.inf, "learning_rate", "above 0")
        for name in ("epochs", "patience", "rank"):
            need(getattr(self, name) >= 1, name, "at least 1")
        need(self.batch >= 2, "batch", "at least 2: an image needs another one to be told from")
        need(0 <= self.weight_decay < math.inf, "weight_decay", "at least 0")
        need(0 <= self.holdout < 1, "holdout", "at least 0 and below 1")


@dataclass(frozen=True)
class FitEpoch:
    """
    Arguments:
        number: 0 is the model before training.
        loss: mean over its training batches; None for number 0.
        held_out: loss of the images that are not trained on; None: there are none.
    """

    number: int
    loss: float | None
    held_out: float | None


@dataclass(frozen=True)
class Trained:
    """What `train` did; the parameters hold the values of epoch `best`."""

    history: tuple[FitEpoch, ...]
    best: int
    seconds: float


@dataclass(frozen=True, eq=False)
class Fitted:
    """A baseline, ready to be evaluated like a mask.

    Arguments:
        name: one of `headwise.baselines.BASELINES`.
        tower: makes its image embeddings: an ordinary tower (LoRA is merged into the weights).
        image: applied to the tower's embeddings (N, E).
        text: applied to caption embeddings (T, E) before they are compared.
        scale, bias: similarity → logit after training.
        trained: how many values were trained.
        seconds: wall time of training, embeddings computed for it included.
        history: epoch 0 (before training) and every epoch after it.
        best: the epoch whose values are kept; 0: nothing helped, and the model is as it was.
    """

    name: str
    tower: Tower
    image: Callable[[torch.Tensor], torch.Tensor]
    text: Callable[[torch.Tensor], torch.Tensor]
    scale: float
    bias: float
    trained: int
    seconds: float
    history: tuple[FitEpoch, ...]
    best: int

    def embed(self, pixels: Pixels, layout: Plan | None = None) -> torch.Tensor:
        """Image embeddings, (N, E) float32 on the CPU, not normalised.

        Arguments:
            pixels: preprocessed images, (N, 3, R, R).
            layout: chunk, precision and device (`layout.plan`); None: as the tower is.
        """
        return self.image(embeddings_of(self.tower, pixels, layout))


def same(x: torch.Tensor) -> torch.Tensor:
    """Leaves embeddings as they are."""
    return x


def embeddings_of(tower: Tower, pixels: Pixels, layout: Plan | None = None) -> torch.Tensor:
    """The tower's embeddings of all images, (N, E) float32 on the CPU."""
    layout = layout or plan(tower, dtype="float32", device=str(tower.device))
    ((_, found),) = embed(tower, pixels, [Mask.identity(tower.grid)], layout)
    return found


def thawed_copy(tower: Tower) -> Tower:
    """A float32 copy of a tower, in eval mode, nothing of it trained yet."""
    parts = copy.deepcopy(tower.parts).float().eval().requires_grad_(False)
    return tower.build(parts)


def walk(tower: Tower, images: torch.Tensor, settings: FitSettings) -> torch.Tensor:
    """Images (B, 3, R, R) → embeddings (B, E), with gradients; the last block computes what pooling reads."""
    with torch.autocast(tower.device.type, torch.bfloat16, enabled=settings.autocast):
        x = tower.stem(images)  # (B, N, D)
        for row, block in enumerate(tower.blocks):
            queries = tower.queries(row)

            def step(x, block=block, queries=queries):
                z, _ = block.attend(x, queries)  # (B, H, Q, d)
                return block.finish(rows(x, queries), z)  # (B, Q, D)

            if settings.recompute and torch.is_grad_enabled():
                x = checkpoint(step, x, use_reentrant=False, preserve_rng_state=False)
            else:
                x = step(x)
        return tower.pool(x)


def train(
    parameters: Sequence[nn.Parameter],
    forward: Callable[[torch.Tensor], torch.Tensor],
    memory: Callable[[], Captions],
    images: int,
    settings: FitSettings,
    *,
    learning_rate: float,
    weight_decay: float,
    moved: Penalty | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Lower the contrastive loss with AdamW; the best epoch's values are left in the parameters.

    Arguments:
        parameters: what is trained, in place.
        forward: numbers of images (B,) → embeddings (B, E).
        memory: the captions, as the parameters have them now.
        images: how many the split has.
        learning_rate: where the settings leave it open.
        moved: what is added to the loss of a batch for moving as many anchors.
        progress: called after each epoch with its share of the most epochs.

    Raises:
        HeadwiseError: a loss that is not finite, or a parameter that takes no part in it.
    """
    began = time.perf_counter()
    training, held_out = split_off(images, settings.holdout, settings.seed)
    generator = torch.Generator().manual_seed(settings.seed + 1)
    adam = torch.optim.AdamW(parameters, lr=settings.learning_rate or learning_rate, weight_decay=weight_decay)
    steps = math.ceil(len(training) / settings.batch)
    history = [FitEpoch(0, None, _judge(forward, memory, held_out))]
    best, kept = 0, [parameter.detach().clone() for parameter in parameters]
    for number in range(1, settings.epochs + 1):
        total = 0.0
        order = training[torch.randperm(len(training), generator=generator)]
        for numbers in order.tensor_split(steps):
            captions = memory()
            value = value_of(captions, forward(numbers), numbers.to(captions.texts.device))
            pay = value if moved is None else value + moved(len(numbers), generator).to(value)
            adam.zero_grad()
            pay.backward()
            if any(parameter.grad is None for parameter in parameters):
                raise HeadwiseError(
                    "Some of the values to train take no part in the embeddings: the model does not run its modules "
                    "one by one. This baseline is not for this model."
                )
            if not math.isfinite(float(value.detach())):
                raise HeadwiseError(
                    f"The loss is {float(value.detach()):g} in epoch {number}. Lower the learning rate; if the model "
                    "runs in bfloat16, use float32."
                )
            adam.step()
            total += float(value.detach()) * len(numbers) / len(training)
        history.append(FitEpoch(number, total, _judge(forward, memory, held_out)))
        before, now = history[best].held_out, history[number].held_out
        if before is None or now is None or now < before:
            best, kept = number, [parameter.detach().clone() for parameter in parameters]
        if progress:
            progress(1 / settings.epochs)
        if number - best >= settings.patience:
            break
    with torch.no_grad():
        for parameter, value in zip(parameters, kept, strict=True):
            parameter.copy_(value)
    return Trained(tuple(history), best, time.perf_counter() - began)


@torch.no_grad()
def _judge(forward, memory: Callable[[], Captions], held_out: torch.Tensor) -> float | None:
    """The loss of the images that are not trained on."""
    if not len(held_out):
        return None
    captions = memory()
    embeddings = torch.cat([forward(numbers).float() for numbers in held_out.split(EVALUATION_BATCH)])  # (n, E)
    return sum(float(term) for term in captions.terms(embeddings, held_out.to(captions.texts.device)))


def train_tower(
    tower: Tower,
    parameters: Sequence[nn.Parameter],
    pixels: Pixels,
    memory: Captions,
    settings: FitSettings,
    *,
    learning_rate: float,
    weight_decay: float,
    anchors: Anchors | None = None,
    progress: Progress | None = None,
) -> Trained:
    """`train` for parameters inside a tower of one's own; afterwards none of it asks for gradients."""
    for parameter in parameters:
        parameter.requires_grad_(True)

    def forward(numbers: torch.Tensor, pixels: Pixels = pixels) -> torch.Tensor:
        return walk(tower, gather(tower, pixels, numbers), settings)

    with evaluating(tower.parts):
        trained = train(
            parameters,
            forward,
            lambda: memory,
            len(pixels),
            settings,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            moved=anchors and partial(anchors.moved, lambda numbers: forward(numbers, anchors.pixels)),
            progress=progress,
        )
    for parameter in parameters:
        parameter.requires_grad_(False).grad = None
    return trained


def fitted_tower(
    name: str, tower: Tower, captions: Captions, parameters: Sequence[nn.Parameter], trained: Trained
) -> Fitted:
    """A baseline that changed the tower alone."""
    scale, bias, values = float(captions.scale), float(captions.bias), count(parameters)
    return Fitted(name, tower, same, same, scale, bias, values, trained.seconds, trained.history, trained.best)


def count(parameters: Sequence[nn.Parameter] | Iterator[nn.Parameter]) -> int:
    """How many values these are."""
    return sum(parameter.numel() for parameter in parameters)

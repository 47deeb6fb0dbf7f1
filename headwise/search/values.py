"""AAT-BP beyond masks: a number or a vector per head, learned while every parameter of the model stays as it is.

    scale        z' = g·z                       g ∈ [0, 2], from 1
    temperature  A' = softmax(τ·q kᵀ/√d)        τ ∈ [0, 4], from 1
    shift        z' = z + σ·u                   u (d) from 0, σ: root mean square of the head's deviations
    spectral     z' = U diag(s) Uᵀ (z − μ) + μ  s (d) ∈ [0, 2], from 1; U, μ: principal axes and mean on the search split

    minimise  E over batches of L(e(θ)) + λ · mean (θ − start)²

Several are learned together where a head can carry them (scale, temperature and shift; spectral and temperature). What is
found folds into ordinary weights. In: a tower, images, a loss, what heads emit (`evaluation/moments.py`). Out: edits of
every head, and the same shrunken toward the unchanged model (WiSE-FT, arXiv 2109.01903, for edits of heads).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from headwise.edits.arrays import Array
from headwise.edits.edit import Edit, Letter
from headwise.edits.mask import Mask
from headwise.edits.operators import Look, Row, spectral_map
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Pixels
from headwise.evaluation.moments import Moments
from headwise.scoring.losses import Loss, check_images
from headwise.search.gated import trained_cost
from headwise.search.gradient_state import Epoch, fingerprint
from headwise.search.parts import Calls
from headwise.search.training import Anchors, Rows, Training
from headwise.towers.base import Tower

RANGES = {"scale": (0.0, 2.0), "temperature": (0.0, 4.0), "shift": (-math.inf, math.inf), "spectral": (0.0, 2.0)}
STARTS = {"scale": 1.0, "temperature": 1.0, "shift": 0.0, "spectral": 1.0}
ALPHAS = (0.25, 0.5, 0.75, 1.0)  # how far from the unchanged model to what was found
STEP_MEMORY = 4 << 30  # bytes of a step above which blocks are run again for their gradients


@dataclass(frozen=True)
class ValueSettings:
    """
    Arguments:
        learn: what is learned of every head, of `RANGES`.
        learning_rate: of Adam; every value starts at 0 or 1.
        epochs: most passes over the split.
        batch: images per step.
        penalty: λ, toward the unchanged model.
        holdout: share of the images that are not trained on; their loss chooses the epoch. 0: the last one, which
            gained more on other images (docs/defaults.md); how far to go towards it is for the pick split.
        patience: stop once more than this many epochs in a row had no lower loss on them.
        recompute: activation checkpointing: less memory, half as much time again.
        autocast: run the tower in bfloat16 (values and loss stay in float32).
        seed: the same seed gives the same values, bit for bit on a CPU.

    Raises:
        HeadwiseError: a value out of its range, or edits that one head cannot carry together.
    """

    learn: tuple[str, ...] = ("scale",)
    learning_rate: float = 0.05
    epochs: int = 8
    batch: int = 64
    penalty: float = 0.0
    holdout: float = 0.0
    patience: int = 4
    recompute: bool = False
    autocast: bool = False
    seed: int = 0

    temperature = (1.0, 1.0)  # of the loop's schedule: nothing is annealed

    def __post_init__(self) -> None:
        def need(ok: bool, name: str, rule: str) -> None:
            if not ok:
                raise HeadwiseError(f"Learned edits: {name} is {getattr(self, name)}; it must be {rule}.")

        object.__setattr__(self, "learn", check_learn(self.learn))
        need(0 < self.learning_rate < math.inf, "learning_rate", "above 0")
        need(self.epochs >= 1, "epochs", "at least 1")
        need(self.batch >= 2, "batch", "at least 2: an image needs another one to be told from")
        need(0 <= self.penalty < math.inf, "penalty", "0 or more")
        need(0 <= self.holdout < 1, "holdout", "at least 0 and below 1")
        need(self.patience >= 1, "patience", "at least 1")


def check_learn(names: Sequence[str]) -> tuple[str, ...]:
    """What is to be learned together, in the one order of `RANGES`.

    Raises:
        HeadwiseError: an unknown name, none, or edits that one head cannot carry together.
    """
    unknown = [name for name in names if name not in RANGES]
    if unknown or not names:
        raise HeadwiseError(
            f"{unknown[0] if unknown else 'Nothing'!r} cannot be learned. There are: {', '.join(RANGES)}; several are "
            "joined by a plus, as in scale+temperature."
        )
    if "spectral" in names and {"scale", "shift"} & set(names):
        raise HeadwiseError("spectral holds a scale for every axis already: learn it alone, or with temperature.")
    return tuple(name for name in RANGES if name in names)


@dataclass(frozen=True)
class LearnedValues:
    """
    Arguments:
        mask: the edits of the best epoch.
        history: one entry per epoch.
        best: the number of the epoch whose values these are. The unchanged model is not among them: the pick split compares it.
        spent: FFE: 1 for a forward, 1 more for a backward (activations alone), 1 more where blocks run again.
    """

    mask: Mask
    history: tuple[Epoch, ...]
    best: int
    spent: float

    @property
    def shrunken(self) -> dict[float, Mask]:
        """α → identity + α · (found − identity), for `ALPHAS`, the smallest first; without what changes nothing."""
        return {alpha: mask for alpha in ALPHAS if not (mask := self.mask.shrunk(alpha)).is_identity}


def step_memory(tower: Tower, batch: int) -> int:
    """About how many bytes a step keeps for its gradients: per block and token some 16 times the width, in float32 (norms,
    q, k, v, z, the MLP's hidden layer before and after its activation)."""
    return 16 * 4 * batch * tower.tokens * sum(block.width for block in tower.blocks)


def epoch_cost(settings: ValueSettings, anchored: bool) -> float:
    """FFE of an epoch: what is trained on forward and backward, as many anchors beside it, and what is held out."""
    return trained_cost(settings.recompute) * (1 + anchored) * (1 - settings.holdout) + settings.holdout


def learn_values(
    tower: Tower,
    pixels: Pixels,
    loss: Loss,
    settings: ValueSettings,
    moments: Sequence[Moments],
    *,
    anchors: Anchors | None = None,
    checkpoint: Path | None = None,
    about: str = "",
    workers: Calls | None = None,
    progress: Callable[[float], None] | None = None,
) -> LearnedValues:
    """Learn values of every head on the search split.

    Arguments:
        tower: the image tower; its parameters are not trained, and it is left as it was.
        pixels: the split's images, (N, 3, R, R).
        loss: of the split, from `headwise.scoring.losses`, on the tower's device.
        settings: see `ValueSettings`.
        moments: what heads emit on the split, per row of the grid.
        anchors: images whose embeddings should stay where they are.
        checkpoint: a file that is written after each epoch; a later call with the same arguments goes on from it
            and ends with the same bytes on a CPU. None keeps nothing.
        about: what else the run depends on: a checkpoint of another value is another run's.
        workers: who runs the tower, as `crew.Crew`; None: this process. The bits are the same.
        progress: called with the FFE done since the last call.

    Raises:
        HeadwiseError: bad input, a loss that is not finite, or a checkpoint of another run.
    """
    check_images(loss, len(pixels))
    values = Values(tower, settings, moments)
    training = Training(
        tower,
        pixels,
        loss,
        values,
        settings,
        anchors=anchors,
        workers=workers,
        progress=progress,
        name=f"Learning {'+'.join(settings.learn)}",
    )
    facts = {"settings": asdict(settings), "about": about, "anchors": anchors.weight if anchors else None}
    key = fingerprint(tower, pixels, loss, None, facts) if checkpoint else ""
    state = training.run(checkpoint, key)
    return LearnedValues(values.mask(state.best_theta), state.history, state.best, training.cost(state))


class Values:
    """θ as values of heads, laid out row by row, letter by letter: a `Parametrisation`."""

    noisy = False

    def __init__(self, tower: Tower, settings: ValueSettings, moments: Sequence[Moments]):
        self.tower, self.settings, self.moments = tower, settings, moments
        self.places: list[dict[str, slice]] = []  # of each row: letter → its part of θ
        starts, lows, highs, end = [], [], [], 0
        for block in tower.blocks:
            places = {}
            for name in settings.learn:
                count = block.heads * (block.head_dim if name in ("shift", "spectral") else 1)
                places[name] = slice(end, end + count)
                end += count
                starts.append(torch.full((count,), STARTS[name]))
                lows.append(torch.full((count,), RANGES[name][0]))
                highs.append(torch.full((count,), RANGES[name][1]))
            self.places.append(places)
        self.start, self.low, self.high = torch.cat(starts), torch.cat(lows), torch.cat(highs)
        self.scales = [one.spread.square().mean(-1, keepdim=True).sqrt() for one in moments]  # (H, 1): σ of each head

    def rows(self, theta: torch.Tensor, noise: torch.Tensor | None, temperature: float) -> Rows:
        """See `Parametrisation.rows`."""
        theta = theta.to(self.tower.device)
        return [self._row(row, theta) for row in range(len(self.places))]

    def _row(self, row: int, theta: torch.Tensor) -> Row:
        block, places, moments = self.tower.blocks[row], self.places[row], self.moments[row]
        looks, gain, constant, heads, maps = (), None, None, None, None
        if "temperature" in places:
            looks = (Look("temperature", None, theta[places["temperature"]]),)
        if "scale" in places:
            gain = theta[places["scale"]]  # (H)
        if "shift" in places:
            constant = self.scales[row].to(theta) * theta[places["shift"]].view(block.heads, block.head_dim)  # (H, d)
        if "spectral" in places:
            heads = torch.arange(block.heads, device=theta.device)
            s = theta[places["spectral"]].view(block.heads, block.head_dim)  # (H, d)
            maps, constant = spectral_map(moments.axes.to(theta), s, moments.mean.to(theta))  # (H, d, d), (H, d)
        return Row(looks, gain, constant, None, heads, maps)

    def penalty(self, theta: torch.Tensor, temperature: float) -> torch.Tensor | float:
        """See `Parametrisation.penalty`."""
        return self.settings.penalty * (theta - self.start).square().mean() if self.settings.penalty else 0.0

    def project(self, theta: torch.Tensor) -> None:
        """See `Parametrisation.project`."""
        theta.clamp_(self.low, self.high)

    def summary(self, theta: torch.Tensor, temperature: float) -> tuple[float, int]:
        """Root mean square of the values' moves; how many values moved by a tenth or more."""
        moved = theta - self.start
        return float(moved.square().mean().sqrt()), int((moved.abs() >= 0.1).sum())

    def mask(self, theta: torch.Tensor) -> Mask:
        """The edits that these values are."""
        table = []
        for row, (block, places) in enumerate(zip(self.tower.blocks, self.places, strict=True)):
            by_head = {name: theta[place].view(block.heads, -1) for name, place in places.items()}  # (H, 1) or (H, d)
            table.append(tuple(self._edit(row, h, {k: v[h] for k, v in by_head.items()}) for h in range(block.heads)))
        return Mask(self.tower.grid, tuple(table))

    def _edit(self, row: int, head: int, values: dict[str, torch.Tensor]) -> Edit:
        moments = self.moments[row]
        look = Letter("temperature", float(values["temperature"])) if "temperature" in values else None
        gain = float(values["scale"]) if "scale" in values else 1.0
        if "spectral" in values:
            arrays = {"axes": moments.axes[head], "scales": values["spectral"], "centre": moments.mean[head]}
            return Edit(look, Letter("spectral", None, tuple((k, Array.of(v)) for k, v in arrays.items())))
        if "shift" in values:
            constant = Array.of(self.scales[row][head] * values["shift"])
            return Edit(look, Letter("shift", gain, (("constant", constant),)))
        return Edit(look, Letter("scale", gain) if "scale" in values else None)

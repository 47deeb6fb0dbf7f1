"""Texts that describe what a head writes: matching pursuit against a null, and TextSpan as published.

    next text = argmax over t of ‖R t‖²       R ← R − R q qᵀ,  q: the text less what the others span, of length 1

R (N, E): one head's effects, centred over images and cut to the principal axes that hold most of their variance; t
(E): texts of length 1, centred. Orthogonal matching pursuit shared by all images (as in Tropp, Gilbert and Strauss
2006, with squares). The same on effects turned by random rotations says how much texts explain that have nothing to
do with the head; a head whose texts explain less than 95 of 100 such turns gets no label. TextSpan is Gandelsman,
Efros and Steinhardt's (arXiv 2310.05916), which has no such test. Whether a label is right is asked in `checks.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

KEPT = 0.9  # of an effect's variance, by its principal axes
MOST_AXES = 64
TEXTS = 5  # most texts a head
DRAWS = 100  # rotations of the null
LEVEL = 0.95
MOST_PRODUCTS = 8192  # texts whose inner products are all kept
SPAN_RANK = 80  # TextSpan's own


@dataclass(frozen=True)
class Axes:
    """Principal axes of one head's centred effects.

    Arguments:
        mean: (E).
        directions: (r, E), orthonormal.
        spread: (r), their singular values.
        kept: the share of the variance that they hold.
    """

    mean: torch.Tensor
    directions: torch.Tensor
    spread: torch.Tensor
    kept: float


@dataclass(frozen=True)
class Pursuit:
    """Chosen texts, and the share of the axes' variance that they explain after each."""

    texts: tuple[int, ...]
    explained: tuple[float, ...]


@dataclass(frozen=True)
class Label:
    """What was found for one head.

    Arguments:
        found: the texts, whether they pass or not.
        null: 95th percentile of what texts explain of rotated effects, after each.
        p: share of rotations whose texts explain at least as much, all texts together.
        halves: Jaccard index of the texts found on the two halves of the images.
    """

    found: Pursuit
    null: tuple[float, ...]
    p: float
    halves: float | None = None

    @property
    def abstains(self) -> bool:
        """Whether the head gets no label: its texts explain no more than chance."""
        return not self.found.texts or self.found.explained[-1] < self.null[-1]


def centred_texts(embeddings: torch.Tensor) -> torch.Tensor:
    """Text directions (P, E): of length 1, minus their mean (what all texts share, not images), of length 1 again."""
    t = torch.nn.functional.normalize(embeddings.float(), dim=1)
    return torch.nn.functional.normalize(t - t.mean(0), dim=1)


def axes(effects: np.ndarray, kept: float = KEPT, most: int = MOST_AXES) -> Axes:
    """Principal axes of effects (N, E); none where the head changes nothing."""
    x = torch.from_numpy(np.asarray(effects, np.float32))
    mean = x.mean(0)
    _, spread, directions = torch.linalg.svd(x - mean, full_matrices=False)  # (min(N, E)), (min(N, E), E)
    power = spread.double() ** 2
    if not len(power) or power[0] <= 1e-10 * max(float((x.double() ** 2).sum()), 1e-30):
        return Axes(mean, directions[:0], spread[:0], 0.0)
    shares = (power / power.sum()).cumsum(0)
    count = min(most, len(power), int((shares < kept).sum()) + 1)
    return Axes(mean, directions[:count], spread[:count], float(shares[count - 1]))


def pursue(
    texts: torch.Tensor, seen: torch.Tensor, count: int = TEXTS, products: torch.Tensor | None = None
) -> Pursuit:
    """Orthogonal matching pursuit.

    Arguments:
        texts: (P, E), of length 1.
        seen: texts · directionsᵀ · spread, (P, r): the effects as each text sees them; overwritten.
        count: most texts.
        products: texts · textsᵀ, (P, P), where it is at hand.
    """
    chosen: list[int] = []
    explained: list[float] = []
    basis: list[torch.Tensor] = []  # texts · q of every orthonormal direction q that was taken, (P)
    for _ in range(min(count, len(texts))):
        gains = seen.square().sum(1)  # (P)
        best = int(gains.argmax())
        if best in chosen or float(gains[best]) <= 1e-12:
            break
        along = texts @ texts[best] if products is None else products[best]  # (P)
        for q in basis:
            along = along - q[best] * q
        length = along[best].clamp_min(1e-12).sqrt()
        along = along / length  # texts · q for q = the chosen text less what the others span
        row = seen[best] / length  # q · directionsᵀ · spread (r)
        seen.addr_(along, row, alpha=-1.0)
        chosen.append(best)
        basis.append(along)
        explained.append(float(row.square().sum()))
    return Pursuit(tuple(chosen), tuple(np.cumsum(explained).tolist()))


def label_all(
    effects: Callable[[int], np.ndarray],
    heads: int,
    texts: torch.Tensor,
    *,
    count: int = TEXTS,
    draws: int = DRAWS,
    seed: int = 0,
    progress: Callable[[float], None] | None = None,
) -> list[Label]:
    """Labels for every head, one head's effects in memory at a time.

    Arguments:
        effects: row of a head → its effects on the images for labelling, (N, E) float32.
        heads: how many.
        texts: from `centred_texts`, (P, E).
        progress: called with the heads and rotations done since the last call, heads + draws in all.
    """
    step = progress or (lambda amount: None)
    all_axes, found, halves = [], [], []
    products = texts @ texts.T if len(texts) <= MOST_PRODUCTS else None  # (P, P): 256 MB at most
    for row in range(heads):
        own = effects(row)
        all_axes.append(axes(own))
        found.append(_pursued(texts, all_axes[-1], count, products))
        parts = [set(_pursued(texts, axes(own[half::2]), count, products).texts) for half in (0, 1)]
        union = parts[0] | parts[1]
        halves.append(len(parts[0] & parts[1]) / len(union) if union and min(map(len, parts)) else None)
        step(1)
    null = _null(all_axes, [len(one.texts) for one in found], texts, products, draws, seed, step)
    labels = []
    for row, one in enumerate(found):
        drawn = null[row]  # (draws, k)
        if not one.texts:
            labels.append(Label(one, (), 1.0))
            continue
        level = np.quantile(drawn, LEVEL, axis=0)  # (k)
        p = (1 + int((drawn[:, -1] >= one.explained[-1]).sum())) / (1 + len(drawn))
        labels.append(Label(one, tuple(level.tolist()), p, halves[row]))
    return labels


def _pursued(texts: torch.Tensor, own: Axes, count: int, products: torch.Tensor | None) -> Pursuit:
    """Shares of the axes' variance, not amounts."""
    if not len(own.spread):
        return Pursuit((), ())
    spread = own.spread / own.spread.norm()
    return pursue(texts, (texts @ own.directions.T) * spread, count, products)


def _null(
    all_axes: Sequence[Axes],
    counts: Sequence[int],
    texts: torch.Tensor,
    products: torch.Tensor | None,
    draws: int,
    seed: int,
    step: Callable,
) -> list[np.ndarray]:
    """What texts explain of effects whose axes point anywhere: (draws, k) for each head.

    A random rotation of the effects turns their axes into a random orthonormal frame and keeps their spread; all heads
    share the frames. Texts do not fill their space evenly, and what images write lies where texts do: against frames
    that are drawn evenly every head of the packaged model passed, and none of their texts was shown to hold on other
    images. So frames are drawn as unevenly as texts lie (docs/explanation.md: what that withholds).
    """
    widest = max((len(own.spread) for own in all_axes), default=0)
    values, vectors = torch.linalg.eigh(texts.T @ texts / len(texts))
    root = (vectors * (values.clamp_min(0) + 1e-6 * values[-1]).sqrt()) @ vectors.T  # (E, E)
    generator = torch.Generator().manual_seed(seed)
    drawn = [np.zeros((draws, count)) for count in counts]
    for draw in range(draws if widest else 0):
        frame, _ = torch.linalg.qr(root @ torch.randn(texts.shape[1], widest, generator=generator))  # (E, r)
        seen = texts @ frame  # (P, r)
        for row, own in enumerate(all_axes):
            if counts[row]:
                spread = own.spread / own.spread.norm()
                found = pursue(texts, seen[:, : len(spread)] * spread, counts[row], products).explained
                drawn[row][draw] = [*found, *found[-1:] * (counts[row] - len(found))]
        step(1)
    return drawn


def against(effects: np.ndarray, without: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Whether a head moves pictures away from a text that resemble it: bool (k).

    It writes towards a text when its effect along the text grows with how near to it the picture is without the head.

    Arguments:
        effects, without: (N, E): the head's effects, and the embeddings without the head.
        directions: the texts', (k, E).
    """
    near = without / np.linalg.norm(without, axis=1, keepdims=True).clip(1e-12)
    a, b = effects @ directions.T, near @ directions.T  # (N, k) twice
    return ((a - a.mean(0)) * (b - b.mean(0))).sum(0) < 0


def text_span(effects: np.ndarray, embeddings: torch.Tensor, count: int = TEXTS, rank: int = SPAN_RANK) -> list[int]:
    """TextSpan as published (Gandelsman, Efros and Steinhardt, ICLR 2024, algorithm 1): indices of texts.

    Texts are projected onto the span of the effects' first axes; then, time after time, the text along which the
    effects vary most is taken and projected out of effects and texts.

    Arguments:
        effects: a head's direct contributions, (N, E); not centred for the axes, centred for the choice.
        embeddings: of the texts, of length 1, (P, E).
    """
    x = torch.from_numpy(np.asarray(effects, np.float32))
    _, _, directions = torch.linalg.svd(x, full_matrices=False)
    directions = directions[:rank]  # (r, E)
    t = embeddings.float() @ directions.T  # (P, r): all that follows happens in this span
    x = (x - x.mean(0)) @ directions.T  # (N, r)
    chosen: list[int] = []
    for _ in range(min(count, len(t))):
        best = int(((t @ (x.T @ x)) * t).sum(1).argmax())  # the variance of x along each text
        chosen.append(best)
        one = t[best].clone()
        norm = (one @ one).clamp_min(1e-12)
        x = x - (x @ one / norm)[:, None] * one
        t = t - (t @ one / norm)[:, None] * one
    return chosen

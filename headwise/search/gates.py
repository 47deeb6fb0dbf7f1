"""Three ways to make gates in [0, 1] from real numbers that gradients can train.

    sigmoid        g = σ(θ / τ)
    hard_concrete  g = clip(σ((ln u − ln(1 − u) + θ) / β) · (ζ − γ) + γ, 0, 1)       u uniform
    top_k          g = 0 for the k largest of τ · Gumbel noise − θ, else 1; the gradient is that of a soft choice

θ, g, u (n): one number per head, θ larger where a head is kept. Louizos et al. (arXiv 1712.01312), on attention heads
Voita et al. (arXiv 1905.09418); Xie and Ermon (arXiv 1901.10517). They know neither a model nor a loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch

BETA, GAMMA, ZETA = 0.33, -0.1, 1.1  # hard concrete: temperature and stretch (Louizos 2018; Voita 2019)
EPSILON = 1e-6  # keeps the logarithms of noise finite


@dataclass(frozen=True)
class Form:
    """A gate form.

    Arguments:
        start: θ at the beginning: nearly open where gates are soft.
        noise: whether training draws noise.
        train: (θ (n), uniform noise (n), temperature, k) → gates (n) with gradients to θ.
        evaluate: (θ (n), temperature, k) → gates (n), no noise.
        kept: (θ (n), temperature) → how many heads are expected to be kept, a scalar; None: the number is given.
    """

    start: float
    noise: bool
    train: Callable[[torch.Tensor, torch.Tensor, float, int], torch.Tensor]
    evaluate: Callable[[torch.Tensor, float, int], torch.Tensor]
    kept: Callable[[torch.Tensor, float], torch.Tensor] | None


# ---- sigmoid: g = σ(θ/τ); a falling τ drives gates to 0 or 1


def _sigmoid(theta: torch.Tensor, temperature: float, k: int = 0) -> torch.Tensor:
    return torch.sigmoid(theta / temperature)  # (n)


# ---- hard concrete: a stretched and clipped random gate, exactly 0 or 1 with probability above 0


def hard_concrete(theta: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """One sample of every gate: s = σ((ln u − ln(1−u) + θ)/β), stretched to (γ, ζ), clipped to [0, 1]."""
    u = noise.clamp(EPSILON, 1 - EPSILON)  # (n)
    s = torch.sigmoid((u.log() - (-u).log1p() + theta) / BETA)  # (n)
    return (s * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def hard_concrete_mode(theta: torch.Tensor) -> torch.Tensor:
    """The gates that evaluation uses: clip(σ(θ)·(ζ−γ) + γ, 0, 1)."""
    return (torch.sigmoid(theta) * (ZETA - GAMMA) + GAMMA).clamp(0, 1)


def expected_l0(theta: torch.Tensor) -> torch.Tensor:
    """The expected number of hard-concrete gates above 0: Σ σ(θ − β·ln(−γ/ζ))."""
    return torch.sigmoid(theta - BETA * math.log(-GAMMA / ZETA)).sum()


# ---- top-k: exactly k heads are suppressed; the straight-through gradient is that of a soft choice


def suppressed_exactly(theta: torch.Tensor, k: int) -> torch.Tensor:
    """1 for the k smallest θ (of equal ones the first), 0 elsewhere, (n)."""
    chosen = torch.sort(theta, stable=True).indices[:k]
    return torch.zeros_like(theta).index_fill_(0, chosen, 1.0)


def soft_top_k(keys: torch.Tensor, k: int, temperature: float) -> torch.Tensor:
    """The largest k of n keys, softly: the sum of k softmaxes, each with what was taken before left out.

    The relaxation of sampling without replacement by Gumbel noise on the keys (Xie and Ermon 2019).

    Returns:
        (n), sums to k.
    """
    total = torch.zeros_like(keys)
    for _ in range(k):
        share = torch.softmax(keys / temperature, 0)  # (n)
        total = total + share
        keys = keys + (1 - share).clamp_min(EPSILON).log()
    return total


def _top_k(theta: torch.Tensor, noise: torch.Tensor, temperature: float, k: int) -> torch.Tensor:
    u = noise.clamp(EPSILON, 1 - EPSILON)
    gumbel = -(-u.log()).log()  # (n)
    keys = temperature * gumbel - theta  # (n): the largest are suppressed; the noise falls with the temperature
    hard, soft = suppressed_exactly(-keys.detach(), k), soft_top_k(keys, k, temperature)
    return 1 - (hard + (soft - soft.detach()))  # exactly 0 or 1


FORMS = {
    "sigmoid": Form(
        start=3.0,
        noise=False,
        train=lambda theta, noise, temperature, k: _sigmoid(theta, temperature),
        evaluate=_sigmoid,
        kept=lambda theta, temperature: _sigmoid(theta, temperature).sum(),
    ),
    "hard_concrete": Form(
        start=2.0,
        noise=True,
        train=lambda theta, noise, temperature, k: hard_concrete(theta, noise),
        evaluate=lambda theta, temperature, k: hard_concrete_mode(theta),
        kept=lambda theta, temperature: expected_l0(theta),
    ),
    "top_k": Form(
        start=0.0,
        noise=True,
        train=_top_k,
        evaluate=lambda theta, temperature, k: 1 - suppressed_exactly(theta, k),
        kept=None,
    ),
}

"""Random captions and random looks for training pairs."""

from __future__ import annotations

import math
import random

import torch
import torch.nn.functional as F
from torch import Tensor

TEMPLATES = (
    "an icon of {}", "an icon of a {}", "a drawing of {}", "a drawing of a {}", "a picture of a {}",
    "{} icon", "a symbol for {}", "an image of a {}", "a {}", "the {}", "clip art of a {}", "{} emoji",
)  # fmt: skip


def sample_caption(row: dict, rng: random.Random) -> str:
    """One caption of a row: its name or an alias, mostly plain, sometimes with a template or keywords."""
    name = rng.choice(row["captions"])
    keywords = [k for k in row["keywords"] if k.lower() != name.lower()]
    u = rng.random()
    if keywords and u < 0.30:
        some = rng.sample(keywords, min(len(keywords), rng.randint(1, 3)))
        if u < 0.10 and len(keywords) >= 3:
            return ", ".join(rng.sample(keywords, rng.randint(3, min(5, len(keywords)))))
        return ", ".join([name, *some])
    if u < 0.55:
        return rng.choice(TEMPLATES).format(name)
    return name


def augment(images: Tensor, colour: Tensor, gen: torch.Generator, strength: float) -> Tensor:
    """Move, rescale and recolour a batch.

    One-colour icons are black on white: grey is coverage, so any ink and paper can be put in. Colour
    images keep their colours, sometimes on tinted paper and sometimes as grey.

    Arguments:
        images: uint8 (B, 3, 64, 64).
        colour: bool (B,), True where the picture has colours of its own.
        gen: source of all randomness.
        strength: 0 keeps icons black on white and moves little, 1 does everything. A fresh tower that
            has to ignore ink and paper colours from the first step stays at chance for long.
    Returns:
        float32 (B, 3, 64, 64) in 0..1.
    """
    b = len(images)

    def uni(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(b, *shape, generator=gen) * (high - low) + low

    ink = 1 - images.float() / 255  # white paper becomes 0, so that moving pads with paper
    far = 0.3 + 0.7 * strength
    angle, scale = uni(-0.2, 0.2) * far, torch.exp(uni(math.log(0.87), math.log(1.35)) * far)  # > 1 shrinks
    stretch, skew = torch.exp(uni(-0.1, 0.1) * far), uni(-0.1, 0.1) * far
    right, down = uni(-0.18, 0.18) * far, uni(-0.18, 0.18) * far
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    theta = torch.stack(
        [torch.stack([cos * stretch, skew - sin, right], 1),
         torch.stack([sin, cos / stretch, down], 1)], 1
    )  # fmt: skip
    grid = F.affine_grid(theta, [b, 1, 64, 64], align_corners=False)
    ink = F.grid_sample(ink, grid, align_corners=False)  # (B, 3, 64, 64)

    cover = ink.mean(1, keepdim=True)  # (B, 1, 64, 64)
    bold = uni(0, 1) < 0.15 * strength
    cover[bold] = F.max_pool2d(cover[bold], 3, 1, 1)
    fg, bg = uni(0, 1, 3), uni(0, 1, 3)
    near = (fg - bg).abs().amax(1, keepdim=True) < 0.35  # too little contrast to see anything
    fg = torch.where(near, (bg + 0.5) % 1.0, fg)
    # Most icons stay near black on near white; of the others some are light on dark, some on white.
    usual = uni(0, 1, 1) > 0.6 * strength
    which = uni(0, 1, 1)
    night, white = which < 0.3, which > 0.65
    fg = torch.where(usual, fg * 0.1, torch.where(night, 1 - fg * 0.1, torch.where(white, fg * 0.8, fg)))
    bg = torch.where(usual, 1 - bg * 0.05, torch.where(night, bg * 0.4, torch.where(white, 1.0, bg)))
    fg, bg = fg[..., None, None], bg[..., None, None]
    plain = bg * (1 - cover) + fg * cover

    paper = 1 - uni(0, 0.35, 3) * (uni(0, 1, 1) < 0.3 * strength)
    gain = 1 + uni(-0.15, 0.15, 3)
    own = ((1 - ink) * paper[..., None, None] * gain[..., None, None]).clamp(0, 1)
    grey = (uni(0, 1) < 0.15 * strength)[:, None, None, None]
    own = torch.where(grey, own.mean(1, keepdim=True), own)
    return torch.where(colour[:, None, None, None], own, plain)

"""Anchors: a user's old images, without captions, which learned rungs should leave where they are.

In: images, a model. Out: the images with the unchanged model's embeddings, as
`search/training.py` takes them; afterwards how far each finalist moved them. What the penalty does is there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from headwise.data.cache import PixelCache, pixels
from headwise.data.pairs import Pairs
from headwise.edits.mask import Mask
from headwise.evaluation.engine import Means, embed, ffe, walks
from headwise.evaluation.layout import Plan, plan
from headwise.jobs.steps.progress import Reporter, counted
from headwise.search.training import Anchors
from headwise.towers.base import Model, Tower


@dataclass(frozen=True, eq=False)
class Anchored:
    """
    Arguments:
        pairs: the images; captions, where there are any, are not looked at.
        pixels: (M, 3, R, R).
        embeddings: of the unchanged model in float32, (M, E).
    """

    pairs: Pairs
    pixels: PixelCache
    embeddings: torch.Tensor

    def anchors(self, weight: float, logit_scale: float) -> Anchors:
        """What training takes: λ times the model's logit scale."""
        return Anchors(self.pixels, self.embeddings, weight * logit_scale)

    def json(self) -> dict[str, object]:
        """What results say of them."""
        return {"source": self.pairs.name, "images": len(self.pairs), "hash": self.pairs.hash}


def anchored(
    images: Pairs,
    model: Model,
    reporter: Reporter,
    *,
    device: str = "cpu",
    chunk: int | None = None,
    cache_dir: Path | None = None,
    cache_size: int | None = None,
) -> Anchored:
    """Decode the images and embed them with the unchanged model, once.

    Raises:
        HeadwiseError: an image that cannot be decoded, or a cache that cannot be written.
    """
    reporter.say(f"Anchors {images.name}: {len(images):,} images.")
    with counted(reporter, "Decoding anchors", "images") as tell:
        cache = pixels(images, model, progress=tell, cache_dir=cache_dir, cache_size=cache_size, say=reporter.say)
    layout = plan(model.tower, dtype="float32", device=device, chunk=chunk)
    with reporter.stage("Embedding anchors", 1.0, "of the images") as advance:
        ((_, found),) = embed(model.tower, cache, [Mask.identity(model.tower.grid)], layout, progress=advance)
    return Anchored(images, cache, found.clone())


@dataclass(frozen=True)
class Moved:
    """
    Arguments:
        means: of every mask the mean over the anchors of 1 − cosine with where the unchanged model puts them.
        ffe: what that cost; one FFE is a pass over the anchors.
    """

    means: tuple[float, ...]
    ffe: float


def how_far(
    anchored: Anchored, tower: Tower, layout: Plan, masks: Sequence[Mask], means: Means | None, reporter: Reporter
) -> Moved:
    """How far masks move the anchors, in the precision in which the run evaluates.

    Arguments:
        masks: different ones; of identity it is 0.
    """
    everything = [Mask.identity(tower.grid), *masks]
    cost = sum(ffe(tower, batch) for batch in walks(everything))
    with reporter.stage("How far finalists move the anchors", cost, "FFE") as advance:
        each = embed(tower, anchored.pixels, everything, layout, means=means, progress=advance)
        before = next(each)[1].clone()  # identity is the first, whatever the order of the masks
        found = {mask.key: float((1 - F.cosine_similarity(e, before, dim=1)).double().mean()) for mask, e in each}
    return Moved(tuple(found.get(mask.key, 0.0) for mask in masks), cost)

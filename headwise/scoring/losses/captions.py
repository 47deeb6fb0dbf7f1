"""The contrastive loss of a batch of images against every caption of the split.

    softmax   −½ log p(t | i) − ½ log p(i | t)       L = scale · cos(x_i, w_t)           x (B, E), w (T, E)
    sigmoid   softplus(−L) + Σ over foreign texts of softplus(L)       L = scale · cos(x_i, w_t) + bias

CLIP's loss (Radford et al., arXiv 2103.00020) and SigLIP's (Zhai et al., arXiv 2303.15343). It is the loss of
`headwise.scoring.ranking.retrieve` (with one batch of all images the same number), differentiable, and with fewer
images in the text → image direction: captions come from a memory that is computed once, because the text tower stays
as it is; images change with every step, so only those of the batch can be negatives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from headwise.errors import HeadwiseError
from headwise.scoring.losses.contract import TILE, places, unit
from headwise.scoring.ranking import check_loss, checked_links


@dataclass(frozen=True, eq=False)
class Captions:
    """A `Loss`: all captions of a split as negatives of every batch.

    The mean over the batch's links of a text t to its image i of, for `softmax`, with L = scale · cosine,
    ½ · (−log softmax of L[i, t] among t and all of i's foreign texts of the split) + ½ · (−log softmax of L[i, t]
    among i and the batch's images that are foreign to t); for `sigmoid`, with L = scale · cosine + bias, the mean
    over the batch's texts of the sums of softplus(−L) over their images, and softplus(L) of every image with every
    foreign text of the split. Texts of one image, and images of one text, are never each other's negatives.

    Arguments:
        texts: embeddings at length 1, (T, E), on the device of the image embeddings; those of no link are distractors.
        image, text: image and text of every link, (L,) int64 each, on the same device.
        images: how many images the split has.
        loss: `softmax` or `sigmoid`.
        scale, bias: similarity → logit; tensors where they are trained.
    """

    texts: torch.Tensor
    image: torch.Tensor
    text: torch.Tensor
    images: int
    loss: str = "softmax"
    scale: float | torch.Tensor = 100.0
    bias: float | torch.Tensor = 0.0
    units = None

    def on(self, device: torch.device | str) -> Captions:
        """The same captions on another device."""
        texts, image, text = (x.to(device) for x in (self.texts, self.image, self.text))
        return replace(self, texts=texts, image=image, text=text)

    def logits(self, x: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
        """Embeddings (b, E), any length, and texts (t, E) at length 1 → (b, t)."""
        x = unit(x)
        return self.scale * (x @ texts.to(x.dtype).T) + self.bias

    def terms(self, embeddings: torch.Tensor, numbers: torch.Tensor, *, tile: int = TILE) -> Iterator[torch.Tensor]:
        """See `Loss.terms`."""
        row = places(numbers, self.images)[self.image]  # (L)
        text, row = self.text[row >= 0], row[row >= 0]  # (P) each: the batch's links
        found, column = text.unique(return_inverse=True)  # (U): the batch's texts; (P): each link's among them
        count = len(row) if self.loss == "softmax" else len(found)
        high = max(1, tile // len(self.texts))
        for start in range(0, len(numbers), high):
            logits = self.logits(embeddings[start : start + high], self.texts)  # (b, T)
            mine = (row >= start) & (row < start + high)
            r, t = row[mine] - start, text[mine]  # (p) each
            own = torch.zeros_like(logits, dtype=torch.bool)  # (b, T)
            own[r, t] = True
            if self.loss == "sigmoid":
                foreign = F.softplus(logits).masked_fill(own, 0.0)  # (b, T)
                yield (foreign.sum() + F.softplus(-logits[r, t]).sum()) / count
            else:
                negatives = logits.masked_fill(own, -torch.inf).logsumexp(1)  # (b)
                yield 0.5 * F.softplus(negatives[r] - logits[r, t]).sum() / count
        if self.loss == "sigmoid":
            return
        wide = max(1, tile // len(numbers))
        for start in range(0, len(found), wide):
            logits = self.logits(embeddings, self.texts[found[start : start + wide]])  # (B, u)
            mine = (column >= start) & (column < start + wide)
            r, c = row[mine], column[mine] - start  # (p) each
            own = torch.zeros_like(logits, dtype=torch.bool)  # (B, u)
            own[r, c] = True
            negatives = logits.masked_fill(own, -torch.inf).logsumexp(0)  # (u)
            yield 0.5 * F.softplus(negatives[c] - logits[r, c]).sum() / count


def captions(
    texts: torch.Tensor,
    owner: np.ndarray,
    images: int,
    *,
    of: np.ndarray | None = None,
    loss: str = "softmax",
    scale: float = 100.0,
    bias: float = 0.0,
    distractors: torch.Tensor | None = None,
    device: torch.device | str = "cpu",
) -> Captions:
    """The captions of a split, checked.

    Arguments:
        texts: embeddings (T, E), normalised or not.
        owner, of: as for `ranking.retrieve`: the image of each caption (T,), or image and text of each link (L,).
        images: how many images the split has.
        loss, scale, bias: the model's own.
        distractors: embeddings of texts that belong to no image (D, E): negatives of every one.
        device: where the images will be embedded.

    Raises:
        HeadwiseError: owners that do not fit, an unknown loss, a scale that no model has, texts that are not finite.
    """
    check_loss(loss, scale, bias)
    image, text = (torch.as_tensor(x, device=device) for x in checked_links(owner, of, images, len(texts)))  # (L) each
    if distractors is not None:  # no link leads to them
        texts = torch.cat([texts, distractors])
    return Captions(ready(texts, device, "caption"), image, text, images, loss, scale, bias)


def ready(texts: torch.Tensor, device: torch.device | str, what: str) -> torch.Tensor:
    """Text embeddings at length 1 on the device, (T, E).

    Raises:
        HeadwiseError: a value that is not finite.
    """
    if not bool(torch.isfinite(texts).all()):
        raise HeadwiseError(f"The embedding of a {what} is not finite. Check the model's text tower.")
    with torch.no_grad():  # normalising makes a copy, so that inference tensors can take part in gradients
        return unit(texts.to(device))

"""The loss that gates and baselines are trained on, for a batch of images against every caption of the split.

It is the loss of `headwise.metrics.retrieve` (with one batch of all images the same number), differentiable, and
with fewer images in the text → image direction: captions come from a memory that is computed once, because the
text tower stays as it is; images change with every step, so only those of the batch can be negatives. With labels
it is the cross-entropy of `headwise.objectives.Classification`, a mean over images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from headwise.errors import HeadwiseError
from headwise.metrics import check_loss, checked_owner


@dataclass(frozen=True, eq=False)
class Captions:
    """All captions of a split, as negatives of every batch, and how the model turns similarity into a loss.

    Arguments:
        texts: embeddings at length 1, (T, E), on the device of the image embeddings; with labels one per class.
        owner: the image of each caption, (T,) int64, on the same device; with labels the class of each image, (N,).
        loss: `softmax`, `sigmoid` or, with labels, `cross_entropy`.
        scale, bias: similarity → logit; tensors where they are trained.
    """

    texts: torch.Tensor
    owner: torch.Tensor
    loss: str = "softmax"
    scale: float | torch.Tensor = 100.0
    bias: float | torch.Tensor = 0.0


def captions(
    texts: torch.Tensor,
    owner: np.ndarray,
    images: int,
    *,
    loss: str = "softmax",
    scale: float = 100.0,
    bias: float = 0.0,
    device: torch.device | str = "cpu",
) -> Captions:
    """The captions of a split, checked.

    Arguments:
        texts: embeddings (T, E), normalised or not; for `cross_entropy` one per class.
        owner: (T,), the image of each caption; for `cross_entropy` (N,), the class of each image.
        images: how many images the split has.
        loss, scale, bias: the model's own; `cross_entropy` for labels.
        device: where the images will be embedded.

    Raises:
        HeadwiseError: owners that do not fit, an unknown loss, a scale that no model has, texts that are not finite.
    """
    if loss == "cross_entropy":
        check_loss("softmax", scale, bias)
        numbers = torch.as_tensor(_checked_labels(owner, images, len(texts)), device=device)  # (N)
    else:
        check_loss(loss, scale, bias)
        numbers = torch.as_tensor(checked_owner(owner, images, len(texts)), device=device)  # (T)
    if not bool(torch.isfinite(texts).all()):
        raise HeadwiseError("A caption's embedding is not finite. Check the model's text tower.")
    with torch.no_grad():  # normalising makes a copy, so that inference tensors can take part in gradients
        return Captions(unit(texts.to(device)), numbers, loss, scale, bias)


def _checked_labels(labels: np.ndarray, images: int, classes: int) -> np.ndarray:
    labels = np.asarray(labels, dtype=np.int64)
    if labels.shape != (images,):
        raise HeadwiseError(f"{images} images need a label each; the labels have shape {labels.shape}.")
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        raise HeadwiseError(f"Labels reach from {labels.min()} to {labels.max()}; there are {classes} classes, from 0.")
    return labels


def unit(x: torch.Tensor) -> torch.Tensor:
    """Rows at length 1, at least float32; a zero row stays zero."""
    return F.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1, eps=1e-12)


def contrastive(embeddings: torch.Tensor, numbers: torch.Tensor, memory: Captions) -> torch.Tensor:
    """The loss of a batch of different images.

    The mean over the batch's captions t with image i of, for `softmax`, with L = scale · cosine,
    ½ · (−log softmax of L[i, t] among t and all foreign captions of the split) + ½ · (−log softmax of L[i, t] among
    the batch's images); for `sigmoid`, with L = scale · cosine + bias, softplus(−L[i, t]), and over the batch's
    images softplus(L) of all their foreign captions. Captions of one image are never each other's negatives.
    For `cross_entropy`: the mean over the batch's images of −log softmax of L[i, class] among the classes.

    Arguments:
        embeddings: of the batch's images, (B, E), not normalised; gradients flow through it.
        numbers: which images of the split they are, (B,) int64.
        memory: all captions of the split.

    Returns:
        A scalar.
    """
    x = unit(embeddings)  # (B, E)
    logits = memory.scale * (x @ memory.texts.to(x.dtype).T) + memory.bias  # (B, T)
    if memory.loss == "cross_entropy":
        return F.cross_entropy(logits, memory.owner[numbers])
    own = numbers[:, None] == memory.owner[None, :]  # (B, T)
    image, text = own.nonzero(as_tuple=True)  # (P) each: the batch's captions and their images
    positive = logits[image, text]  # (P)
    if memory.loss == "sigmoid":
        foreign = F.softplus(logits).masked_fill(own, 0.0)  # (B, T)
        return (foreign.sum() + F.softplus(-positive).sum()) / len(positive)
    negatives = logits.masked_fill(own, -torch.inf).logsumexp(1)  # (B)
    to_text = F.softplus(negatives[image] - positive)  # (P)
    to_image = logits[:, text].logsumexp(0) - positive  # (P)
    return 0.5 * (to_text + to_image).mean()


def contrastive_terms(
    embeddings: torch.Tensor, numbers: torch.Tensor, memory: Captions, *, tile: int = 2**24
) -> Iterator[torch.Tensor]:
    """Terms whose sum is `contrastive`, each of which holds at most about `tile` similarities.

    Calling `backward` on one after the other frees each before the next, so that the gradient of the loss of a
    whole split never needs the matrix of all its similarities.

    Arguments:
        embeddings, numbers, memory: as for `contrastive`.
        tile: similarities at a time.

    Yields:
        Scalars.
    """
    if memory.loss == "cross_entropy":
        for part in torch.arange(len(numbers), device=numbers.device).split(max(1, tile // len(memory.texts))):
            yield contrastive(embeddings[part], numbers[part], memory) * (len(part) / len(numbers))
        return
    place = torch.full((int(memory.owner.max()) + 1,), -1, device=numbers.device)
    place[numbers] = torch.arange(len(numbers), device=numbers.device)  # image of the split → row of embeddings
    text = (place[memory.owner] >= 0).nonzero()[:, 0]  # (P): the captions of these images
    high = max(1, tile // len(memory.texts))
    for start in range(0, len(numbers), high):
        x = unit(embeddings[start : start + high])  # (b, E)
        logits = memory.scale * (x @ memory.texts.to(x.dtype).T) + memory.bias  # (b, T)
        own = numbers[start : start + high, None] == memory.owner[None, :]  # (b, T)
        positive = logits[own]  # (p)
        if memory.loss == "sigmoid":
            yield (F.softplus(logits).masked_fill(own, 0.0).sum() + F.softplus(-positive).sum()) / len(text)
        else:
            negatives = logits.masked_fill(own, -torch.inf).logsumexp(1)  # (b)
            yield 0.5 * F.softplus(negatives[own.nonzero()[:, 0]] - positive).sum() / len(text)
    if memory.loss == "softmax":
        for part in text.split(max(1, tile // len(numbers))):
            x = unit(embeddings)  # (B, E)
            logits = memory.scale * (x @ memory.texts[part].to(x.dtype).T)  # (B, p)
            positive = logits.gather(0, place[memory.owner[part]][None, :])[0]  # (p)
            yield 0.5 * (logits.logsumexp(0) - positive).sum() / len(text)

"""The contract of a loss, and what several losses need.

In: embeddings of a batch, (B, E), and the images' numbers, (B). Out: scalars whose sum is the loss, one after the
other, so that a whole split's gradient never needs the matrix of all similarities. Who steps, and where gradients go,
is not known.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
import torch.nn.functional as F

from headwise.errors import HeadwiseError

TILE = 2**24  # similarities at a time


class Loss(Protocol):
    """A differentiable loss over the images of one split.

    Arguments:
        images: how many images the split has.
        units: images that say something only together, such as the two of a Cola pair: a batch holds all of a unit
            or nothing of it. None: every image stands alone.
    """

    @property
    def images(self) -> int:
        """N, how many images the split has."""
        ...

    @property
    def units(self) -> Sequence[Sequence[int]] | None:
        """Images that say something only together; None: every image stands alone."""
        ...

    def terms(self, embeddings: torch.Tensor, numbers: torch.Tensor, *, tile: int = TILE) -> Iterator[torch.Tensor]:
        """Terms whose sum is the loss of a batch of different images, each of at most about `tile` similarities.

        Calling `backward` on one after the other frees each before the next, so that the gradient of the loss of a
        whole split never needs the matrix of all its similarities.

        Arguments:
            embeddings: of the batch's images, (B, E), not normalised; gradients flow through it.
            numbers: which images of the split they are, (B,) int64, on the same device.
            tile: similarities at a time.

        Yields:
            Scalars, at least one.
        """
        ...


def value_of(loss: Loss, embeddings: torch.Tensor, numbers: torch.Tensor) -> torch.Tensor:
    """The loss of a batch, a scalar; arguments as for `Loss.terms`."""
    return torch.stack(list(loss.terms(embeddings, numbers))).sum()


def check_images(loss: Loss, images: int) -> None:
    """
    Raises:
        HeadwiseError: the loss is about another number of images than there are.
    """
    if loss.images != images:
        raise HeadwiseError(f"The loss is about {loss.images} images, but there are {images}. Give those of one split.")


def unit(x: torch.Tensor) -> torch.Tensor:
    """Rows at length 1, at least float32; a zero row stays zero."""
    return F.normalize(x if x.dtype == torch.float64 else x.float(), dim=-1, eps=1e-12)


def places(numbers: torch.Tensor, images: int) -> torch.Tensor:
    """Image of the split → its row in the batch, (images,) int64; −1 where the batch does not hold it."""
    place = torch.full((images,), -1, device=numbers.device)
    place[numbers] = torch.arange(len(numbers), device=numbers.device)
    return place

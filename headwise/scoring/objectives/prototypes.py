"""Classification without texts: each class is the mean of its own images.

    w_c(n) = unit(Σ over m ≠ n with y_m = c of x_m)       x (N, E) at length 1, y (N)

The nearest class mean, as in Snell et al. (arXiv 1703.05175) without training. Differs from `classes.py` in where
classes come from, and in that an image takes no part in its own class's mean.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from headwise.scoring.objectives.classes import TILE, Classification
from headwise.scoring.objectives.score import Score, unit_images
from headwise.scoring.ranking import unit


@dataclass(frozen=True, eq=False)
class Prototypes(Classification):
    """Classification of one split by the nearest class mean, each image left out of its own class's mean.

    For models without a text tower. A class's prototype is the direction of the sum of its images' embeddings at
    length 1, under the same mask as the images that are classified: who uses a refined encoder makes the prototypes
    with it. An image whose class has no other image in the split cannot be right, under any mask. Classes without an
    image in the split take no part.

    Arguments:
        classes: (C, 0), for the number of classes alone.
        others: as for `Classification`.
    """

    name = "prototypes"

    def __call__(self, embeddings: torch.Tensor, /) -> Score:
        """
        Raises:
            HeadwiseError: a wrong number of images, or a value that is not finite.
        """
        x = unit_images(embeddings, self.images, self.device)  # (N, E)
        own = torch.as_tensor(self.labels, device=x.device)  # (N)
        count = torch.bincount(own, minlength=len(self.classes))  # (C)
        sums = x.new_zeros(len(self.classes), x.shape[1]).index_add_(0, own, x)  # (C, E)
        means = unit(sums, "class")  # (C, E)
        ranks, losses, step = [], [], max(1, TILE // len(self.classes))
        for start in range(0, len(x), step):
            part, label = x[start : start + step], own[start : start + step]  # (n, E), (n)
            alone = count[label] == 1  # (n)
            others = sums[label] - part  # (n, E): the own class without the image itself
            others[alone] = -part[alone]  # as far away as can be
            mine = (part * unit(others, "prototype")).sum(1, keepdim=True)  # (n, 1)
            s = (part @ means.T).masked_fill_(count == 0, -torch.inf).scatter_(1, label[:, None], mine)  # (n, C)
            ranks.append((s >= mine).sum(1, dtype=torch.int32) - 1)
            total = s.sub_(1).mul_(self.scale).exp_().sum(1)  # (n)
            losses.append(total.log() - self.scale * (mine[:, 0] - 1))
        loss = float(torch.cat(losses).mean())
        return self.score_from_ranks({"classification": torch.cat(ranks).cpu().numpy()}, loss)

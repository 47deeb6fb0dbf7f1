"""Zero-shot classification: accuracy, mean per-class recall, and accuracy of groups.

    right at k: fewer than k classes c ≠ y_n with cos(e_n, w_c) ≥ cos(e_n, w_y)       e (N, E), w (C, E), y (N)
    acc1 = mean over n;   mean_per_class_recall = mean over classes;   worst_group_acc = min over (group, class)

In: embeddings of a split's images. Out: a `Score`. Class embeddings are those of CLIP (Radford et al., arXiv
2103.00020), made in `scoring/prompts.py`; groups and the worst of them as in Sagawa et al. (arXiv 1911.08731).
Against `torch.topk` it differs in ties, which count against the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch

from headwise.errors import HeadwiseError
from headwise.scoring.design import Design, common_multiple
from headwise.scoring.objectives.score import Score, check_width, multiply_on, unit_images
from headwise.scoring.ranking import check_loss, unit

FITNESS = ("acc1", "mean_per_class_recall", "group_mean_acc", "worst_group_acc")
TILE = 2**20


@dataclass(frozen=True, eq=False)
class Classification:
    """Zero-shot classification of one split.

    An image is right at k if fewer than k other classes score as high as its own (ties count against it). `acc5`
    is left out where there are fewer than 5 classes. A group is an attribute value together with a class, as is
    usual for spurious attributes (bird × background); giving groups that name the class already changes nothing.

    Arguments:
        classes: one text embedding per class (C, E), from `prompts.class_embeddings`.
        labels: (N,), the class of each image.
        groups: (N,), the attribute value of each image, where there is one.
        fitness: `acc1`, `mean_per_class_recall`, `group_mean_acc` or `worst_group_acc`.
        scale: similarity → logit, for the cross-entropy that breaks ties of fitness.
        device: where to multiply.

    Raises:
        HeadwiseError: labels or groups that do not fit, fewer than two classes, or a fitness that is not known.
    """

    classes: torch.Tensor
    labels: np.ndarray
    groups: Sequence[str] | None = None
    fitness: str = "acc1"
    scale: float = 100.0
    device: str = "cpu"
    name = "classification"

    def __post_init__(self) -> None:
        labels = np.asarray(self.labels, dtype=np.int64)
        object.__setattr__(self, "labels", labels)
        check_loss("softmax", self.scale, 0.0)
        if len(self.classes) < 2 or not len(labels):
            raise HeadwiseError(
                f"Classification needs at least 2 classes and 1 image; got {len(self.classes)} and {len(labels)}."
            )
        wrong = np.flatnonzero((labels < 0) | (labels >= len(self.classes)))
        if len(wrong):
            row = int(wrong[0])
            raise HeadwiseError(
                f"Image {row} has label {labels[row]}, but there are {len(self.classes)} classes, from 0."
            )
        if self.groups is not None and len(self.groups) != len(labels):
            raise HeadwiseError(f"{len(labels)} images need a group each; there are {len(self.groups)} groups.")
        if self.fitness not in FITNESS:
            raise HeadwiseError(f"{self.fitness!r} is not a fitness. Use one of: {', '.join(FITNESS)}.")
        if self.groups is None and "group" in self.fitness:
            raise HeadwiseError(f"Fitness {self.fitness!r} needs a group for every image. Name the group column.")

    @property
    def images(self) -> int:
        """N, how many images an evaluation needs."""
        return len(self.labels)

    @property
    def spec(self) -> dict[str, object]:
        """See `Objective.spec`."""
        return {
            "name": self.name,
            "fitness": self.fitness,
            "ties": "pessimistic",
            "scale": round(self.scale, 6),
            "images": self.images,
            "classes": len(self.classes),
            "groups": len(self._groups[0]) if self.groups is not None else 0,
        }

    @cached_property
    def _classes(self) -> torch.Tensor:
        return unit(self.classes.to(multiply_on(self.device)), "class")

    @cached_property
    def _groups(self) -> tuple[list[str], np.ndarray]:
        names = [f"{group}, class {label}" for group, label in zip(self.groups or (), self.labels, strict=True)]
        unique, index = np.unique(names, return_inverse=True)
        return unique.tolist(), index

    @property
    def group_numbers(self) -> np.ndarray:
        """The group of each image, an attribute value with a class, (N,)."""
        return self._groups[1]

    def __call__(self, embeddings: torch.Tensor, /) -> Score:
        """
        Raises:
            HeadwiseError: a wrong shape, or a value that is not finite.
        """
        x = unit_images(embeddings, self.images, self.device)  # (N, E)
        check_width(x, self._classes)
        own = torch.as_tensor(self.labels, device=x.device)[:, None]  # (N, 1)
        ranks, losses, step = [], [], max(1, TILE // len(self._classes))
        for start in range(0, len(x), step):
            s = x[start : start + step] @ self._classes.T  # (n, C)
            mine = s.gather(1, own[start : start + step])  # (n, 1)
            ranks.append((s >= mine).sum(1, dtype=torch.int32) - 1)
            total = s.sub_(1).mul_(self.scale).exp_().sum(1)  # (n)
            losses.append(total.log() - self.scale * (mine[:, 0] - 1))
        loss = float(torch.cat(losses).mean())
        return self.score_from_ranks({"classification": torch.cat(ranks).cpu().numpy()}, loss)

    def score_from_ranks(self, ranks: Mapping[str, np.ndarray], loss: float) -> Score:
        """See `Objective.score_from_ranks`."""
        hit = (ranks["classification"] == 0).astype(np.int64)  # (N)
        metrics = {"acc1": float(hit.mean())}
        if len(self.classes) >= 5:
            metrics["acc5"] = float((ranks["classification"] < 5).mean())
        metrics["mean_per_class_recall"] = float(_accuracies(self.labels, hit).mean())
        hits = hit
        if self.groups is not None:
            names, index = self._groups
            accuracy = _accuracies(index, hit)  # (G)
            worst = int(accuracy.argmin())
            metrics |= {"worst_group_acc": float(accuracy[worst]), "group_mean_acc": float(accuracy.mean())}
            metrics |= {f"acc1 of {name}": float(value) for name, value in zip(names, accuracy, strict=True)}
            if self.fitness == "worst_group_acc":
                hits = hit * (index == worst)
        if self.fitness != "acc1":
            hits = hits * self._factors
        metrics[self.fitness] = self.design.value(hits)
        return Score(metrics[self.fitness], loss, metrics, hits, dict(ranks), self.design)

    @cached_property
    def _balance(self) -> tuple[np.ndarray, int, int, bool]:
        """Per image the size of its class (or group), how many there are, a common multiple of the sizes, and
        whether that is exact."""
        index = self.labels if self.fitness == "mean_per_class_recall" else self._groups[1]
        count = np.bincount(index)
        common, exact = common_multiple(count[count > 0])
        return count[index], int((count > 0).sum()), common, exact

    @cached_property
    def _factors(self) -> np.ndarray:
        """What a hit counts so that every class (or group) counts the same, int64 (N,)."""
        sizes, _, common, _ = self._balance
        return np.rint(common / sizes).astype(np.int64)

    @property
    def design(self) -> Design:
        """See `Objective.design`."""
        return self._design

    @cached_property
    def _design(self) -> Design:
        """How hits make the fitness."""
        if self.fitness == "acc1":
            return Design.mean(self.images)
        _, count, common, exact = self._balance
        among = 1 if self.fitness == "worst_group_acc" else count
        share, step = Fraction(self.images, common * among), int(self._factors.min())
        return Design.mean(self.images, share, rounded=not exact, step=step)


def _accuracies(index: np.ndarray, hit: np.ndarray) -> np.ndarray:
    """The accuracy of every class (or group) that has an image."""
    count = np.bincount(index)
    return np.bincount(index, hit, minlength=len(count))[count > 0] / count[count > 0]

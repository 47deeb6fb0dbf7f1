"""Cola: does the embedding bind attributes to the right objects?

    multi-object   right if s(i0, c0) > s(i1, c0) and s(i1, c1) > s(i0, c1)       mean over pairs of images
    single-object  mean over queries of average precision over the query's own images

s: cosine of image (N, E) and text. In: embeddings of a split's images. Out: a `Score` whose unit is the pair, or the
query. After Ray et al. (arXiv 2305.03689); equal scores are wrong. The files are read in `data/readers/cola.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import numpy as np
import torch

from headwise.errors import HeadwiseError
from headwise.scoring.design import FINE, Design
from headwise.scoring.objectives.score import Score, check_width, multiply_on, unit_images
from headwise.scoring.ranking import check_loss, unit


@dataclass(frozen=True, eq=False)
class MultiObject:
    """Cola, multi-object: two images and two captions that swap attributes.

    A pair is right if s(i0, c0) > s(i1, c0) and s(i1, c1) > s(i0, c1): each caption prefers its own image. Equal
    scores are wrong; chance is 25 %. The unit that is tested is the pair.

    Arguments:
        texts: embeddings of the captions (N, E), one per image, in the images' order.
        partner: (N,), the other image of each image's pair.
        scale: similarity → logit, for the loss that breaks ties: the cross-entropy of each caption's own image
            against its partner.
        device: where to multiply.

    Raises:
        HeadwiseError: images that are not in pairs.
    """

    texts: torch.Tensor
    partner: np.ndarray
    scale: float = 100.0
    device: str = "cpu"
    name = "cola_multi_object"

    def __post_init__(self) -> None:
        partner = np.asarray(self.partner, dtype=np.int64)
        object.__setattr__(self, "partner", partner)
        check_loss("softmax", self.scale, 0.0)
        everyone = np.arange(len(partner))
        if not len(partner) or len(self.texts) != len(partner):
            raise HeadwiseError(
                f"Cola needs one caption per image, and a pair at least: {len(self.texts)} captions, "
                f"{len(partner)} images."
            )
        if not np.isin(partner, everyone).all() or (partner[partner] != everyone).any() or (partner == everyone).any():
            raise HeadwiseError("Cola's images must come in pairs: each image's partner must have it as its partner.")

    @staticmethod
    def partners(pairs: Sequence[str]) -> np.ndarray:
        """Each image's partner, from a column that names the pair of each image.

        Raises:
            HeadwiseError: a pair that does not have exactly two images.
        """
        names, index, count = np.unique(np.asarray(pairs), return_inverse=True, return_counts=True)
        if (count != 2).any():
            bad = int(np.flatnonzero(count != 2)[0])
            raise HeadwiseError(f"Cola's pairs have two images each; pair {str(names[bad])!r} has {count[bad]}.")
        both = np.argsort(index, kind="stable").reshape(-1, 2)  # (P, 2)
        partner = np.empty(len(index), np.int64)
        partner[both[:, 0]], partner[both[:, 1]] = both[:, 1], both[:, 0]
        return partner

    @property
    def images(self) -> int:
        """N, how many images an evaluation needs."""
        return len(self.partner)

    @property
    def design(self) -> Design:
        """See `Objective.design`."""
        return self._design

    @cached_property
    def _design(self) -> Design:
        """How hits make the fitness."""
        return Design.mean(self.images // 2)

    @property
    def spec(self) -> dict[str, object]:
        """See `Objective.spec`."""
        return {
            "name": self.name,
            "fitness": "multi_object_acc",
            "ties": "pessimistic",
            "scale": round(self.scale, 6),
            "images": self.images,
        }

    @cached_property
    def _texts(self) -> torch.Tensor:
        return unit(self.texts.to(multiply_on(self.device)), "text")

    def __call__(self, embeddings: torch.Tensor, /) -> Score:
        """
        Raises:
            HeadwiseError: a wrong shape, or a value that is not finite.
        """
        x = unit_images(embeddings, self.images, self.device)  # (N, E)
        check_width(x, self._texts)
        other = x[torch.as_tensor(self.partner, device=x.device)]  # (N, E)
        margin = (x * self._texts).sum(1) - (other * self._texts).sum(1)  # (N), exact: both are multiples of 2⁻⁵²
        loss = float(torch.log1p((-self.scale * margin).exp()).mean())
        return self.score_from_ranks({self.name: (margin <= 0).int().cpu().numpy()}, loss)

    def score_from_ranks(self, ranks: Mapping[str, np.ndarray], loss: float) -> Score:
        """See `Objective.score_from_ranks`."""
        right = ranks[self.name] == 0  # (N)
        first = np.flatnonzero(np.arange(self.images) < self.partner)  # (P)
        hits = (right[first] & right[self.partner[first]]).astype(np.int64)  # (P)
        accuracy = self.design.value(hits)
        return Score(accuracy, loss, {"multi_object_acc": accuracy}, hits, dict(ranks), self.design)


@dataclass(frozen=True, eq=False)
class SingleObject:
    """Cola, single-object: mean average precision of retrieving images for each attribute-object query.

    For a query only its counted images take part (Cola's "hard" set, which share a word with the query). Precision
    at a positive is taken after every image that scores as high. The unit that is tested is the query.

    Arguments:
        texts: embeddings of the queries (C, E).
        present: bool (N, C), whether a query holds for an image.
        counted: bool (N, C), which images take part in a query; None: all of them.
        device: where to multiply.

    Raises:
        HeadwiseError: tables that do not fit, or no query with a positive image.
    """

    texts: torch.Tensor
    present: np.ndarray
    counted: np.ndarray | None = None
    device: str = "cpu"
    name = "cola_single_object"

    def __post_init__(self) -> None:
        present = np.asarray(self.present, dtype=bool)
        object.__setattr__(self, "present", present)
        counted = self.all_counted
        if present.ndim != 2 or counted.shape != present.shape or present.shape[1] != len(self.texts):
            raise HeadwiseError(
                f"Cola needs tables of images × {len(self.texts)} queries; got {present.shape} and {counted.shape}."
            )
        if not (present & counted).any():
            raise HeadwiseError("No query has an image for which it holds; there is nothing to retrieve.")

    @cached_property
    def all_counted(self) -> np.ndarray:
        """Which images take part in a query, bool (N, C)."""
        return np.ones_like(self.present) if self.counted is None else np.asarray(self.counted, dtype=bool)

    @property
    def images(self) -> int:
        """N, how many images an evaluation needs."""
        return len(self.present)

    @property
    def design(self) -> Design:
        """See `Objective.design`."""
        return self._design

    @cached_property
    def _design(self) -> Design:
        """How hits make the fitness."""
        queries = np.unique(self._positives[0])
        right = (self.present & self.all_counted).sum(0)[queries]
        both = zip(right.tolist(), self.all_counted.sum(0)[queries].tolist(), strict=True)
        least = min((_smallest_step(*each) for each in both if each[0] < each[1]), default=1.0)
        return Design.mean(len(queries), Fraction(1, FINE), rounded=True, step=max(1, round(least * FINE)))

    @property
    def spec(self) -> dict[str, object]:
        """See `Objective.spec`."""
        return {
            "name": self.name,
            "fitness": "mean_average_precision",
            "ties": "pessimistic",
            "images": self.images,
            "queries": len(self.texts),
            "counted": int(self.all_counted.sum()),
        }

    @cached_property
    def _texts(self) -> torch.Tensor:
        return unit(self.texts.to(multiply_on(self.device)), "text")

    @cached_property
    def _positives(self) -> tuple[np.ndarray, np.ndarray]:
        """The (query, image) of every positive that takes part, query after query."""
        query, image = np.nonzero((self.present & self.all_counted).T)
        return query, image

    def __call__(self, embeddings: torch.Tensor, /) -> Score:
        """
        Raises:
            HeadwiseError: a wrong shape, or a value that is not finite.
        """
        x = unit_images(embeddings, self.images, self.device)  # (N, E)
        check_width(x, self._texts)
        query, image = self._positives
        ranks, gap = np.empty(len(query), np.int32), 0.0
        for c in np.unique(query):
            scores = (x @ self._texts[c]).cpu().numpy()  # (N)
            ordered = np.sort(scores[self.all_counted[:, c]])
            own = scores[image[query == c]]
            ranks[query == c] = len(ordered) - np.searchsorted(ordered, own, side="left") - 1
            gap += float(ordered.mean() - own.mean())
        # ties of fitness go to the larger mean distance between positives and all images
        return self.score_from_ranks({self.name: ranks}, gap / len(np.unique(query)))

    def score_from_ranks(self, ranks: Mapping[str, np.ndarray], loss: float) -> Score:
        """See `Objective.score_from_ranks`."""
        query, _ = self._positives
        place = ranks[self.name]
        hits = []
        for c in np.unique(query):
            of = np.sort(place[query == c])
            found = np.searchsorted(of, of, side="right")  # positives that score as high
            hits.append(round((found / (of + 1)).mean() * FINE))  # average precision, in steps of 2⁻⁴⁰
        whole = np.array(hits, np.int64)  # (C)
        value = self.design.value(whole)
        return Score(value, loss, {"mean_average_precision": value}, whole, dict(ranks), self.design)


def _smallest_step(positives: int, images: int) -> float:
    """The smallest change of a query's average precision: the j-th of n positives falls by one, from the last place r that
    leaves room for those after it: j / r − j / (r + 1) = j / (r (r + 1)), over n. There are other images than positives."""
    j = np.arange(1, positives + 1)
    r = images - positives + j - 1
    return float((j / (positives * r * (r + 1.0))).min())

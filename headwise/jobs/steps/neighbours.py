"""What lies near a query in the explorer: images and texts, before an edit and after.

In: a text or the number of an image, as a page asks; embeddings of all images. Out: numbers of images, texts. It knows no mask.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch.nn.functional import normalize

from headwise.data.pairs import Pairs
from headwise.errors import HeadwiseError
from headwise.jobs.steps.tasks import Task
from headwise.towers.base import Model

SHOWN = 8
LONGEST = 500  # characters of a query
KEPT = 256  # texts

Query = torch.Tensor | int | None  # the embedding of a text, (E); the number of an image


@dataclass
class Neighbours:
    """
    Arguments:
        model: in float32, for texts.
        pairs: the images that are shown, in this order.
        whole: all pairs of the run.
        task: with the embeddings of its texts.
        width: E, of an image's embedding.
    """

    model: Model
    pairs: Pairs
    whole: Pairs
    task: Task
    width: int
    _texts: dict[str, torch.Tensor] = field(default_factory=dict)
    _turn: threading.Lock = field(default_factory=threading.Lock)

    def query(self, asked: Any) -> Query:
        """What a page asks for: None, {text} or {image: number}.

        Raises:
            HeadwiseError: anything else, an image that is not there, a text without a text tower.
        """
        if asked is None:
            return None
        if isinstance(asked, Mapping):
            text, number = asked.get("text"), asked.get("image")
            if isinstance(text, str) and text.strip():
                return self._embedded(text.strip()[:LONGEST])
            if isinstance(number, int) and not isinstance(number, bool):
                if 0 <= number < len(self.pairs):
                    return number
                raise HeadwiseError(f"There is no image {number}; there are {len(self.pairs):,}.")
        raise HeadwiseError("A query is a text that is not empty, or the number of an image.")

    def found(self, query: Query, before: torch.Tensor, after: torch.Tensor) -> dict[str, Any] | None:
        """The nearest images, and of an image the nearest texts, with the unchanged and the changed embeddings.

        Arguments:
            before, after: of the first n images, of length 1, (n, E).
        """
        if query is None or (isinstance(query, int) and query >= len(after)):
            return None
        found: dict[str, Any] = {}
        for name, e in (("before", before), ("after", after)):
            one = query if isinstance(query, torch.Tensor) else e[query]  # (E)
            order = (e @ one).argsort(descending=True).tolist()
            found[name] = [i for i in order if not isinstance(query, int) or i != query][:SHOWN]
            if isinstance(query, int) and self._words:
                near = (self._word_embeddings @ one).argsort(descending=True).tolist()
                found[f"{name}_texts"] = [self._words[i] for i in near[:SHOWN]]
        return found

    def _embedded(self, text: str) -> torch.Tensor:
        if self.model.encode_texts is None:
            raise HeadwiseError(f"{self.model.name} has no text tower: look for images by an image.")
        with self._turn:
            if text not in self._texts:
                self._texts[text] = normalize(self.model.encode_texts([text]).float().cpu(), dim=-1)[0]
            while len(self._texts) > KEPT:
                self._texts.pop(next(iter(self._texts)))
            return self._texts[text]

    @cached_property
    def _words(self) -> list[str]:
        """Captions, or names of classes, that can be found; none where texts have no embeddings."""
        if self.task.texts.ndim != 2 or self.task.texts.shape[1] != self.width:
            return []
        return list(dict.fromkeys(self.pairs.texts)) if self.pairs.texts else list(self.pairs.class_names or ())

    @cached_property
    def _word_embeddings(self) -> torch.Tensor:
        texts = self.task.texts.float()
        if self.pairs.texts:
            place = {text: i for i, text in enumerate(self.whole.texts)}
            texts = texts[[place[text] for text in self._words]]
        return normalize(texts, dim=-1)

"""Images with their captions or labels, whatever the source."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from headwise.errors import HeadwiseError


@dataclass(frozen=True)
class ImageRef:
    """Where the bytes of one image are.

    Arguments:
        origin: file and line or row, for messages.
        fetch: returns the encoded bytes (JPEG, PNG, ...).
        hash: of those bytes.
        look: perceptual hash, 8 bytes; empty when the images were not checked.
        path: the image file, where there is one.
    """

    origin: str
    fetch: Callable[[], bytes]
    hash: str
    look: bytes = b""
    path: str | None = None

    def read(self) -> bytes:
        """The encoded bytes.

        Raises:
            HeadwiseError: they cannot be read any more, or have changed since the source was read.
        """
        try:
            data = self.fetch()
        except OSError as error:
            raise HeadwiseError(f"{self.origin}: cannot be read any more: {error.strerror or error}") from None
        if hash_bytes(data) != self.hash:
            raise HeadwiseError(f"{self.origin}: the image changed while headwise was running. Start again.")
        return data


@dataclass(frozen=True)
class Pairs:
    """Images with captions (retrieval) or labels (classification).

    Arguments:
        name: as the user typed it.
        images: N images.
        captions: for each image its captions; empty tuples for classification.
        ids: for each image its name in the source, unique.
        splits: the split of each image as the source names it.
        groups: the concept or group of each image.
        labels: the class of each image, an index into `class_names`.
        class_names: of a classification data set.
        templates: prompt templates that came with a classification data set, `{c}` for the class name.
        skipped: bad rows that were left out.
    """

    name: str
    images: tuple[ImageRef, ...]
    captions: tuple[tuple[str, ...], ...]
    ids: tuple[str, ...]
    splits: tuple[str, ...] | None = None
    groups: tuple[str, ...] | None = None
    labels: tuple[int, ...] | None = None
    class_names: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None
    skipped: int = 0

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int]) -> Pairs:
        """These images only, in this order."""
        chosen = [int(i) for i in indices]

        def pick(values: tuple | None) -> tuple | None:
            return None if values is None else tuple(values[i] for i in chosen)

        return replace(
            self,
            **{key: pick(getattr(self, key)) for key in ("images", "captions", "ids", "splits", "groups", "labels")},
        )

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """All captions, image after image (T)."""
        return tuple(caption for captions in self.captions for caption in captions)

    @cached_property
    def owner(self) -> np.ndarray:
        """The image of each text, int64 (T)."""
        return np.repeat(np.arange(len(self)), [len(captions) for captions in self.captions]).astype(np.int64)

    @cached_property
    def hash(self) -> str:
        """Hash of the images' bytes, captions, labels and class names, in order."""
        digest = hashlib.sha256()
        for i, image in enumerate(self.images):
            label = self.labels[i] if self.labels else None
            digest.update(json.dumps([image.hash, self.captions[i], label]).encode())
        digest.update(json.dumps(self.class_names).encode())
        return digest.hexdigest()[:32]


def hash_bytes(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:32]

"""Images with their captions or labels, whatever the source.

`Pairs` holds N images as references (`ImageRef`: origin, how to fetch the bytes, hash), never pixels; captions,
splits, groups and labels are tuples of N beside them. An immutable value: `subset` and `joined` make others. It knows
neither files nor models.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
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
        look: its thumbnail, 8 × 8 × RGB; empty when the images were not checked.
    """

    origin: str
    fetch: Callable[[], bytes] = field(repr=False)
    hash: str
    look: bytes = field(default=b"", repr=False)

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
class Part:
    """One source of a mixture.

    Arguments:
        name: goes before its metrics.
        pairs: its own images, captions or labels.
        weight: its share of the fitness, relative to the others.
        split_by: how it is split, as `headwise.data.splits.split` takes it.
        goal: its own `fitness`, `templates`, `class_names` and `distractors`, where they were given.
    """

    name: str
    pairs: Pairs
    weight: float = 1.0
    split_by: str = "auto"
    goal: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, repr=False)
class Pairs:
    """Images with captions (retrieval), labels (classification), or what Cola asks of them.

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
        text_ids: for each image, for each of its captions, which text it is; equal numbers are one text that belongs
            to several images. None: every caption is a text of its own.
        kind: `cola_multi_object` (one caption an image; groups are the pairs), `cola_single_object` (class names are
            the queries), or None: captions or labels.
        present: `cola_single_object`: for each image the queries that hold for it.
        counted: `cola_single_object`: for each image the queries in which it takes part.
        parts: of a mixture; its images are theirs, one part after the other.
        notes: what a reader of the numbers should know about how the source was read.
        equal_captions: `shared`: equal captions of several images are one text; `own`: each is a text of its own,
            and the other images are wrong answers to it.
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
    text_ids: tuple[tuple[int, ...], ...] | None = None
    kind: str | None = None
    present: tuple[tuple[int, ...], ...] | None = None
    counted: tuple[tuple[int, ...], ...] | None = None
    parts: tuple[Part, ...] = ()
    notes: tuple[str, ...] = ()
    equal_captions: str = "shared"

    def __repr__(self) -> str:
        told = [f"{len(self):,} images", f"{self.text_count:,} captions"]
        if self.class_names is not None:
            told.append(f"{len(self.class_names):,} {'classes' if self.kind is None else 'queries'}")
        if self.splits is not None:
            told.append("splits " + _few(self.splits))
        if self.groups is not None:
            told.append(f"{len(set(self.groups)):,} groups")
        if self.parts:
            told.append(f"{len(self.parts)} parts: " + _few([part.name for part in self.parts]))
        if self.skipped:
            told.append(f"{self.skipped:,} bad rows skipped")
        return f"Pairs({self.name[:80]!r}: {', '.join(told)})"

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, indices: Sequence[int]) -> Pairs:
        """These images only, in this order."""
        chosen = [int(i) for i in indices]
        if self.parts:
            return joined(
                self.name, [replace(part, pairs=part.pairs.subset(own)) for part, own in self.by_part(chosen)]
            )

        def pick(values: tuple | None) -> tuple | None:
            return None if values is None else tuple(values[i] for i in chosen)

        return replace(
            self,
            **{key: pick(getattr(self, key)) for key in PER_IMAGE},
        )

    def by_part(self, indices: Sequence[int]) -> list[tuple[Part, list[int]]]:
        """The images of every part among these, as the part numbers them."""
        starts = np.cumsum([0, *(len(part.pairs) for part in self.parts)])
        return [
            (part, [int(i) - first for i in indices if first <= i < end])
            for part, first, end in zip(self.parts, starts[:-1].tolist(), starts[1:].tolist(), strict=True)
        ]

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """All captions, image after image (T); a text of several images once for each."""
        return tuple(caption for captions in self.captions for caption in captions)

    @cached_property
    def owner(self) -> np.ndarray:
        """The image of each text, int64 (T)."""
        return np.repeat(np.arange(len(self)), [len(captions) for captions in self.captions]).astype(np.int64)

    @cached_property
    def same(self) -> np.ndarray | None:
        """Which text each of `texts` is, int64 (T), numbered as they come; None where all are different."""
        if self.text_ids is None:
            return None
        numbers: dict[int, int] = {}
        return np.array([numbers.setdefault(i, len(numbers)) for ids in self.text_ids for i in ids], dtype=np.int64)

    @property
    def text_count(self) -> int:
        """How many texts there are to retrieve."""
        if self.parts:
            return sum(part.pairs.text_count for part in self.parts)
        return len(self.texts) if self.same is None else int(self.same.max(initial=-1)) + 1

    @cached_property
    def repeated(self) -> int:
        """How many captions are, word for word, those of another image too."""
        if self.parts:
            return sum(part.pairs.repeated for part in self.parts)
        owners: dict[str, set[int]] = {}
        for i, captions in enumerate(self.captions):
            for caption in captions:
                owners.setdefault(caption, set()).add(i)
        return sum(len(owners[caption]) > 1 for captions in self.captions for caption in captions)

    @cached_property
    def hash(self) -> str:
        """Hash of the images' bytes, captions, labels and class names, in order."""
        digest = hashlib.sha256()
        if self.parts:
            digest.update(json.dumps([[part.name, part.pairs.hash] for part in self.parts]).encode())
            return digest.hexdigest()[:32]
        for i, image in enumerate(self.images):
            label = self.labels[i] if self.labels else None
            digest.update(json.dumps([image.hash, self.captions[i], label]).encode())
        digest.update(json.dumps(self.class_names).encode())
        if self.same is not None:
            digest.update(json.dumps(self.same.tolist()).encode())
        if self.kind is not None:
            digest.update(json.dumps([self.kind, self.groups, self.present, self.counted]).encode())
        return digest.hexdigest()[:32]


COLA_PAIRS = "cola_multi_object"  # the kind whose groups are pairs of images
PER_IMAGE = ("images", "captions", "ids", "splits", "groups", "labels", "text_ids", "present", "counted")


def joined(name: str, parts: Sequence[Part]) -> Pairs:
    """A mixture: the images of all parts, one after the other."""
    every = [part.pairs for part in parts]

    def chain(what: str) -> tuple:
        return tuple(value for pairs in every for value in getattr(pairs, what))

    return Pairs(
        name=name,
        images=chain("images"),
        captions=chain("captions"),
        ids=tuple(f"{part.name}/{value}" for part in parts for value in part.pairs.ids),
        skipped=sum(pairs.skipped for pairs in every),
        notes=tuple(f"{part.name}: {note}" for part in parts for note in part.pairs.notes),
        parts=tuple(parts),
        equal_captions=every[0].equal_captions,
    )


def drawn(pairs: Pairs, indices: Sequence[int], most: int) -> list[int]:
    """At most so many of these images, in the order of their hashes, so that the first n of them are drawn by chance.

    Of a mixture every part has its share, two images at least, one part after the other; of Cola's pairs both images are
    drawn or none.
    """
    if pairs.parts:
        found, start = [], 0
        for part, own in pairs.by_part(indices):
            share = max(2, most * len(own) // max(1, len(indices)))
            found += [start + i for i in drawn(part.pairs, own, share)]
            start += len(part.pairs)
        return found
    order = sorted(indices, key=lambda i: (pairs.images[i].hash, i))
    if pairs.kind != COLA_PAIRS or pairs.groups is None:
        return order[:most]
    both: dict[str, list[int]] = {}
    for i in order:
        both.setdefault(pairs.groups[i], []).append(i)
    return [i for pair in list(both.values())[: max(1, most // 2)] for i in pair]


def with_partners(pairs: Pairs, images: np.ndarray) -> np.ndarray:
    """These images, and of Cola's pairs the other halves, in a mixture too; bool (N,) both."""
    if pairs.parts:
        starts = np.cumsum([len(part.pairs) for part in pairs.parts])[:-1]
        own = np.split(np.asarray(images), starts)
        return np.concatenate([with_partners(part.pairs, one) for part, one in zip(pairs.parts, own, strict=True)])
    if pairs.kind != COLA_PAIRS or pairs.groups is None:
        return np.asarray(images)
    groups = {pairs.groups[i] for i in np.flatnonzero(images)}
    return np.array([group in groups for group in pairs.groups], bool)


def _few(names: Sequence[str]) -> str:
    found = list(dict.fromkeys(names))
    return ", ".join(name[:40] for name in found[:6]) + (" …" if len(found) > 6 else "")


def hash_bytes(data: bytes) -> str:
    """A short hash of the content."""
    return hashlib.sha256(data).hexdigest()[:32]

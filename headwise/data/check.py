"""`headwise data check`: what a source holds and what is wrong with it, without writing anything.

In: a source as `read` takes it. Out: a `Report` of counts, duplicates, bad rows and samples. It judges rows alone,
not what a model would make of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from headwise.data.assemble import Bad
from headwise.data.columns import Wanted
from headwise.data.neardup import near_duplicates
from headwise.data.pairs import Pairs
from headwise.data.read import read_with_bad_rows
from headwise.data.workers import Progress

SAMPLES = 5


@dataclass(frozen=True)
class Report:
    """
    Arguments:
        name: the source as typed.
        images, captions: how many are good.
        captions_per_image: number of captions → number of images.
        splits, groups, classes: name → number of images; empty where the source has none.
        duplicates: images of the same bytes, by their origins.
        near_duplicates: images that look the same but have other bytes, two by two.
        across_splits: duplicates, exact or near, whose images are in different splits of the source.
        repeated_captions: texts that several images have, each as a caption of its own; retrieval counts only one
            of them right.
        bad: bad rows with the reason.
        samples: (image's name, its captions or class) of a few images, spread over the source.
        notes: as in `Pairs`.
        hash: of the content, as in results.
    """

    name: str
    images: int
    captions: int
    captions_per_image: Mapping[int, int]
    splits: Mapping[str, int]
    groups: Mapping[str, int]
    classes: Mapping[str, int]
    duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, str], ...]
    across_splits: int
    repeated_captions: int
    bad: tuple[Bad, ...]
    samples: tuple[tuple[str, tuple[str, ...]], ...]
    notes: tuple[str, ...]
    hash: str

    @property
    def ok(self) -> bool:
        """Whether the source can be used as it is."""
        return not self.bad


def check(
    source: object,
    *,
    image: str | None = None,
    caption: str | None = None,
    split: str | None = None,
    group: str | None = None,
    label: str | None = None,
    images: str | None = None,
    remote: bool = False,
    progress: Progress | None = None,
) -> Report:
    """Look at a source; arguments as for `read`.

    Raises:
        HeadwiseError: it cannot be read at all, or no row is good.
    """
    wanted = Wanted(image, caption, split, group, label)
    pairs, bad = read_with_bad_rows(source, wanted, images=images, remote=remote, progress=progress)
    same = defaultdict(list)
    for i, ref in enumerate(pairs.images):
        same[ref.hash].append(i)
    copies = [members for members in same.values() if len(members) > 1]
    near = [
        (a, b)
        for a, b in near_duplicates([ref.look for ref in pairs.images])
        if pairs.images[a].hash != pairs.images[b].hash
    ]
    owners = defaultdict(set)
    for text, owner in zip(pairs.texts, pairs.owner, strict=True):
        owners[text].add(int(owner))
    return Report(
        name=pairs.name,
        images=len(pairs),
        captions=sum(map(len, pairs.captions)),  # as written; which of them are one text is a matter of evaluation
        captions_per_image=dict(sorted(Counter(map(len, pairs.captions)).items())) if pairs.labels is None else {},
        splits=dict(Counter(pairs.splits or ())),
        groups=dict(Counter(pairs.groups or ())),
        classes=_classes(pairs),
        duplicates=tuple(tuple(pairs.images[i].origin for i in members) for members in copies),
        near_duplicates=tuple((pairs.images[a].origin, pairs.images[b].origin) for a, b in near),
        across_splits=_across(pairs, [*copies, *near]),
        repeated_captions=sum(len(found) > 1 for found in owners.values()),
        bad=bad,
        samples=_samples(pairs),
        notes=pairs.notes,
        hash=pairs.hash,
    )


def _classes(pairs: Pairs) -> dict[str, int]:
    if pairs.parts:
        found = [(part.name, _classes(part.pairs)) for part in pairs.parts]
        return {f"{name}/{key}": count for name, classes in found for key, count in classes.items()}
    if pairs.labels is None or pairs.class_names is None:
        return {}
    counts = Counter(pairs.labels)
    names: Counter[str] = Counter()
    for i, name in enumerate(pairs.class_names):
        names[name] += counts[i]
    return dict(names)


def _across(pairs: Pairs, together: list) -> int:
    splits = pairs.splits
    return 0 if splits is None else sum(len({splits[i] for i in members}) > 1 for members in together)


def _samples(pairs: Pairs) -> tuple[tuple[str, tuple[str, ...]], ...]:
    if pairs.parts:
        found = [(part.name, _samples(part.pairs)) for part in pairs.parts]
        return tuple((f"{name}/{image}", says) for name, samples in found for image, says in samples)
    chosen = np.unique(np.linspace(0, len(pairs) - 1, SAMPLES).astype(int))

    def says(i: int) -> tuple[str, ...]:
        if pairs.present is not None and pairs.class_names is not None:
            return tuple(pairs.class_names[query] for query in pairs.present[i])
        if pairs.labels is None or pairs.class_names is None:
            return pairs.captions[i]
        return (pairs.class_names[pairs.labels[i]],)

    return tuple((pairs.ids[i], says(i)) for i in chosen)

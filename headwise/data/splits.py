"""search / pick / test: disjoint by image, by look, and by group where one is known.

In: `Pairs`. Out: `Splits`, three tuples of indices with a hash and how they came about. The order of images is a
seeded hash of their bytes, so a split depends on the content alone. It does not know what is measured on a split.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from headwise.data.pairs import COLA_PAIRS, Pairs, joined, with_partners
from headwise.data.split_words import MEANING, meaning
from headwise.errors import HeadwiseError
from headwise.wording import option

NAMES = ("search", "pick", "test")
BY = ("auto", "given", "group", "image")
FRACTIONS = (0.5, 0.2, 0.3)
LEAST = 2  # images a split needs: with one, every recall is 100 %
LISTED = 20


@dataclass(frozen=True, repr=False)
class Splits:
    """Indices of images, each tuple sorted.

    Arguments:
        how: how it was split, for printing.
        hash: of the images in each part.
    """

    search: tuple[int, ...]
    pick: tuple[int, ...]
    test: tuple[int, ...]
    how: str
    hash: str

    def __repr__(self) -> str:
        sizes = ", ".join(f"{name}={len(getattr(self, name)):,}" for name in NAMES)
        return f"Splits({sizes}, how={self.how!r}, hash={self.hash!r})"


def check_split_by(by: str) -> None:
    """
    Raises:
        HeadwiseError: not one of `BY`.
    """
    if by not in BY:
        raise HeadwiseError(f"Cannot split by {by!r}. Use auto, given, group or image.")


def split(
    pairs: Pairs,
    *,
    by: str = "auto",
    fractions: Sequence[float] = FRACTIONS,
    seed: int = 0,
    near_duplicates: bool = True,
    keep_groups: bool = True,
) -> Splits:
    """Split the images; the same images and seed give the same split, whatever their order.

    Arguments:
        pairs: a mixture is split part by part, each as its file says or by `by`; an image of one part that another
            part has on a later side (search < pick < test) is left out.
        by: `given` (the source's split column), `group` (a group never straddles), `image`, or `auto`: the first
            of these that the source has.
        fractions: of the images, for search, pick and test.
        seed: of the hash that orders the images.
        near_duplicates: keep images that look the same on one side (not for given splits).
        keep_groups: False where groups are an attribute that every split must have (worst-group accuracy): only
            `group` asked for by name then keeps a group on one side.

    Raises:
        HeadwiseError: a split with fewer than two images; an unknown split name; the same image on two sides of a
            given split; images that the source holds for testing only, unless a way to split them is asked for.
    """
    check_split_by(by)
    if len(fractions) != 3 or min(fractions) <= 0:
        raise HeadwiseError(f"Fractions {tuple(fractions)} must be three positive numbers: search, pick, test.")
    if pairs.parts:
        return _mixture(pairs, by, fractions, seed, near_duplicates)
    words = {} if pairs.splits is None else _words(pairs, strict=by in ("auto", "given"))
    unused = f"; the split column ({', '.join(words)}) is not used" if words else ""
    if by == "auto":
        if set(words.values()) == {"test"}:
            raise HeadwiseError(
                f"{pairs.name}: its split column says {', '.join(words)} of every image, so that all of them are for "
                "testing and none is left to search on. Give images with other splits, too; or, to search on a part of "
                f"the test images all the same, say {option('split_by', 'image')}."
            )
        several = len(set(words.values())) > 1
        by = "given" if several else "group" if pairs.groups is not None and keep_groups else "image"
    if by == "given":
        parts, how = _given(pairs, fractions, seed, keep_groups, near_duplicates)
    else:
        if by == "group" and pairs.groups is None:
            raise HeadwiseError(f"{pairs.name} has no group column to split by. Name one with group=COLUMN.")
        together = by == "group" or pairs.kind == COLA_PAIRS  # halves of pairs are not to be measured
        clusters = _clusters(pairs, range(len(pairs)), together, near_duplicates)
        parts = _fill(pairs, clusters, fractions, seed)
        total = sum(fractions)
        shares = "/".join(f"{100 * f / total:.0f}" for f in fractions)
        how = f"by {by}, {shares} %, seed {seed}" + (", near-duplicates together" if near_duplicates else "")
        how += unused
    for name, part in zip(NAMES, parts, strict=True):
        if len(part) < LEAST:
            raise HeadwiseError(
                f"{pairs.name}: the {name} split has {len(part)} of {len(pairs)} images, it needs {LEAST} or more "
                f"(split {how}). Give more images, or other fractions."
            )
    return _splits(pairs, parts, how)


def _splits(pairs: Pairs, parts: Sequence[Sequence[int]], how: str) -> Splits:
    search, pick, test = (tuple(sorted(part)) for part in parts)
    digest = hashlib.sha256()
    for part in (search, pick, test):
        digest.update(("".join(sorted(pairs.images[i].hash for i in part)) + ";").encode())
    return Splits(search, pick, test, how, digest.hexdigest()[:32])


def _mixture(pairs: Pairs, by: str, fractions: Sequence[float], seed: int, near: bool) -> Splits:
    """Every part by itself; what would be searched on in one part and tested on in another is left out."""
    sides: dict[int, tuple[int, str]] = {}  # image → (0, 1, 2 for search, pick, test; its part)
    hows, start = [], 0
    for part in pairs.parts:
        own = part.split_by if part.split_by != "auto" else by
        keep = "group" not in dict(part.goal).get("fitness", "")
        found = split(part.pairs, by=own, fractions=fractions, seed=seed, near_duplicates=near, keep_groups=keep)
        for side, name in enumerate(NAMES):
            sides |= {start + i: (side, part.name) for i in getattr(found, name)}
        hows.append(f"{part.name}: {found.how}")
        start += len(part.pairs)
    dropped = np.zeros(len(pairs), bool)
    for cluster in _clusters(pairs, sorted(sides), False, near):
        for i in cluster:
            side, name = sides[i]
            if any(sides[j][0] > side and sides[j][1] != name for j in cluster):
                dropped[i] = True
    dropped = with_partners(pairs, dropped)
    parts = [[i for i, (side, _) in sides.items() if side == number and not dropped[i]] for number in range(3)]
    for name, indices in zip(NAMES, parts, strict=True):
        for part, left in pairs.by_part(indices):
            if len(left) < LEAST:
                raise HeadwiseError(
                    f"{pairs.name}: the {name} split of {part.name} has {len(left)} images left, after those that "
                    f"another part has on a later side were left out; it needs {LEAST}. Give both parts one split."
                )
    gone = f"; {dropped.sum():,} images left out that another part tests on" if dropped.any() else ""
    return _splits(pairs, parts, "; ".join(hows) + gone)


def evaluation_part(pairs: Pairs) -> Pairs:
    """What the field evaluates on: the test images, where the source has several splits; else all.

    Raises:
        HeadwiseError: several splits, none of which is a test split.
    """
    if pairs.parts:
        parts = [replace(part, pairs=evaluation_part(part.pairs)) for part in pairs.parts]
        return joined(pairs.name, parts)
    if pairs.splits is None or len(set(pairs.splits)) < 2:
        return pairs
    chosen = [i for i, name in enumerate(pairs.splits) if meaning(name) == "test"]
    if not chosen:
        raise HeadwiseError(
            f"{pairs.name} has the splits {', '.join(sorted(set(pairs.splits)))}, none of them is 'test'. "
            f"Say which one to evaluate with ?split=NAME, or {option('only_split', 'NAME')}."
        )
    return pairs.subset(chosen)


def _words(pairs: Pairs, strict: bool) -> dict[str, str]:
    """The words of the split column, each with what it means.

    Arguments:
        strict: refuse words that are not known; else they mean nothing ("").
    """
    found: dict[str, str] = {}
    for i, name in enumerate(pairs.splits or ()):
        if name in found:
            continue
        known = meaning(name)
        if known is None and strict:
            raise HeadwiseError(
                f"{pairs.images[i].origin}: unknown split {name!r}. Known are {', '.join(MEANING)}. Rename it, or split "
                f"without this column: {option('split_by', 'image')}."
            )
        found[name] = known or ""
    return found


def _given(
    pairs: Pairs, fractions: Sequence[float], seed: int, keep_groups: bool, near: bool
) -> tuple[list[list[int]], str]:
    """As the split column says. A part that it lacks is made of another, never of the test images."""
    if pairs.splits is None:
        raise HeadwiseError(
            f"{pairs.name} has no split column. Name one with {option('split', 'COLUMN')}, or split by image."
        )
    _refuse_straddling(pairs)
    words = _words(pairs, strict=True)
    parts: dict[str, list[int]] = {name: [] for name in NAMES}
    for i, name in enumerate(pairs.splits):
        parts[words[name]].append(i)
    how = "as given: " + ", ".join(f"{name} → {known}" for name, known in words.items())
    if not parts["test"] and parts["search"] and parts["pick"]:
        parts["test"], parts["pick"] = parts["pick"], []
        how += "; nothing is called test, so these validation images are the test split"
    source = next((name for name in ("search", "pick") if parts[name]), None)
    if source and not (parts["search"] and parts["pick"]) and parts["test"]:
        clusters = _clusters(pairs, parts[source], pairs.groups is not None and keep_groups, near)
        parts["search"], parts["pick"] = _fill(pairs, clusters, fractions[:2], seed)
        made = "pick taken from search" if source == "search" else "search taken from the validation images"
        how += f"; {made}, seed {seed}"
    return [parts[name] for name in NAMES], how


def _refuse_straddling(pairs: Pairs) -> None:
    """Refuse the same bytes under two split names."""
    assert pairs.splits is not None
    seen: dict[str, int] = {}
    found = []
    for i, image in enumerate(pairs.images):
        first = seen.setdefault(image.hash, i)
        if pairs.splits[first] != pairs.splits[i]:
            found.append(f"  {pairs.images[first].origin} ({pairs.splits[first]}) = {image.origin} ({pairs.splits[i]})")
    if found:
        more = [f"  and {len(found) - LISTED:,} more"] if len(found) > LISTED else []
        raise HeadwiseError(
            "\n".join([f"{pairs.name}: {len(found):,} images are in two splits:", *found[:LISTED], *more])
            + "\nRemove them from one side, or split by image."
        )


def _clusters(pairs: Pairs, indices: Sequence[int], by_group: bool, near: bool) -> list[list[int]]:
    """Images that must stay together: same bytes, same look, same group."""
    parent = {i: i for i in indices}

    def root(i: int) -> int:
        while parent[i] != i:
            parent[i] = i = parent[parent[i]]
        return i

    def join(members: Sequence[int]) -> None:
        for i in members[1:]:
            parent[root(i)] = root(members[0])

    same: dict[object, list[int]] = defaultdict(list)
    for i in indices:
        same["bytes", pairs.images[i].hash].append(i)
        if by_group and pairs.groups is not None:
            same["group", pairs.groups[i]].append(i)
    for members in same.values():
        join(members)
    if near:
        from headwise.data.neardup import near_duplicates

        for a, b in near_duplicates([pairs.images[i].look for i in indices]):
            join([indices[a], indices[b]])
    clusters: dict[int, list[int]] = defaultdict(list)
    for i in indices:
        clusters[root(i)].append(i)
    return list(clusters.values())


def _fill(pairs: Pairs, clusters: list[list[int]], fractions: Sequence[float], seed: int) -> list[list[int]]:
    """Clusters, in an order that depends on the seed and their content alone, to the part that lacks most."""
    total = sum(len(cluster) for cluster in clusters)
    if total < LEAST * len(fractions):
        raise HeadwiseError(
            f"{pairs.name}: {total} {'image' if total == 1 else 'images'}; {' / '.join(NAMES[: len(fractions)])} "
            f"need at least {LEAST} each, {LEAST * len(fractions)} together."
        )
    targets = [max(LEAST, round(total * f / sum(fractions))) for f in fractions[1:]]
    targets = [total - sum(targets), *targets]

    def order(cluster: list[int]) -> bytes:
        content = min(pairs.images[i].hash for i in cluster)
        return hashlib.sha256(f"{seed} {content}".encode()).digest()

    parts: list[list[int]] = [[] for _ in fractions]
    for cluster in sorted(clusters, key=order):
        lack = [target - len(part) for target, part in zip(targets, parts, strict=True)]
        parts[lack.index(max(lack))] += cluster
    return parts

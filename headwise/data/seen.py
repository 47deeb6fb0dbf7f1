"""Which images a mask was searched and picked on, kept with it in a few bytes each, and found again in other data.

An image is recognised by its bytes, or by how it looks: 8 × 8 grey values and its mean colour. So it is also found
renamed, re-encoded (JPEG down to quality 50), at another size or mirrored; a part cut out of it is not. Two images
count as one where no grey value differs by more than 12 of 255 and their difference is small beside their own
contrast; without the latter all pictures of fine noise would be one.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from headwise.data.look import SIDE
from headwise.data.neardup import unpack
from headwise.data.pairs import ImageRef, Pairs, with_partners
from headwise.data.splits import LEAST, Splits
from headwise.errors import HeadwiseError

HASH = 8  # bytes of an image's hash that are kept
LOOK = SIDE * SIDE + 3  # grey values and the mean colour
REACH = 12.0  # of 255
CONTRAST = 0.25  # of an image's own standard deviation


def remembered(pairs: Pairs, indices: Sequence[int]) -> dict[str, str]:
    """These images as base64 texts: `hashes` of 8 bytes each, and `looks` of 67 bytes where the images were checked."""
    images = [pairs.images[i] for i in indices]
    known = {"hashes": base64.b64encode(b"".join(_short(image) for image in images)).decode()}
    if images and all(image.look for image in images):
        known["looks"] = base64.b64encode(_looks(images).round().astype(np.uint8).tobytes()).decode()
    return known


def together(memories: Sequence[Mapping[str, str]]) -> dict[str, str]:
    """Several memories as one."""
    found = {}
    for name, width in (("hashes", HASH), ("looks", LOOK)):
        data = b"".join(_decoded(memory, name, width) for memory in memories)
        if data or name == "hashes":
            found[name] = base64.b64encode(data).decode()
    return found


def recognised(pairs: Pairs, memories: Sequence[Mapping[str, str]]) -> np.ndarray:
    """Which of these images one of the memories holds, bool (N,).

    Raises:
        HeadwiseError: a memory that is damaged.
    """
    found = np.zeros(len(pairs), bool)
    looks = _looks(pairs.images) if pairs.images and all(image.look for image in pairs.images) else None
    for memory in memories:
        hashes = _decoded(memory, "hashes", HASH)
        known = {hashes[i : i + HASH] for i in range(0, len(hashes), HASH)}
        found |= [_short(image) in known for image in pairs.images]
        seen = np.frombuffer(_decoded(memory, "looks", LOOK), np.uint8).reshape(-1, LOOK).astype(np.float32)
        if looks is not None and len(seen):
            seen = seen[np.argsort(seen[:, -1])]  # by mean blue, so that few of many are compared
            for i in np.flatnonzero(~found):
                first, last = np.searchsorted(seen[:, -1], (looks[i, -1] - REACH, looks[i, -1] + REACH + 1e-3))
                found[i] = _same(seen[first:last], looks[i]) or _same(seen[first:last], _mirrored(looks[i]))
    return found


def _same(seen: np.ndarray, look: np.ndarray) -> bool:
    """Whether a look (67,) is among others (n, 67)."""
    near = seen[np.abs(seen[:, -3:] - look[-3:]).max(1) <= REACH]
    difference = near[:, :-3] - look[:-3]  # (n, 64)
    contrast = np.minimum(near[:, :-3].std(1), look[:-3].std())
    close = (np.abs(difference).max(1, initial=0) <= REACH) & (
        np.sqrt((difference**2).mean(1)) <= CONTRAST * contrast + 1e-6
    )
    return bool(close.any())


def _mirrored(look: np.ndarray) -> np.ndarray:
    """The look (67,) of the picture with left and right exchanged."""
    return np.concatenate([look[:-3].reshape(SIDE, SIDE)[:, ::-1].ravel(), look[-3:]])


def without(pairs: Pairs, gone: np.ndarray) -> Pairs:
    """The other images; of Cola's pairs both go where one does.

    Arguments:
        gone: bool (N,).

    Raises:
        HeadwiseError: fewer than two images are left, of a mixture in one of its parts.
    """
    left = np.flatnonzero(~with_partners(pairs, gone)).tolist()
    counts = [(part.name, len(own)) for part, own in pairs.by_part(left)] or [(pairs.name, len(left))]
    for name, count in counts:
        if count < LEAST:
            raise HeadwiseError(f"{name}: {count} of its images are left, {LEAST} are needed.")
    return pairs if len(left) == len(pairs) else pairs.subset(left)


def narrowed(pairs: Pairs, splits: Splits, gone: Mapping[str, np.ndarray]) -> Splits:
    """Splits without some images of each; a hash of its own, as scores on it are others.

    Arguments:
        gone: split → bool (N,), which images leave it.

    Raises:
        HeadwiseError: a split with fewer than two images left.
    """
    parts = {}
    for name, out in gone.items():
        out = with_partners(pairs, out)
        parts[name] = tuple(i for i in getattr(splits, name) if not out[i])
        if len(parts[name]) < LEAST:
            raise HeadwiseError(f"{pairs.name}: {len(parts[name])} images of its {name} split are left, not {LEAST}.")
    if all(len(part) == len(getattr(splits, name)) for name, part in parts.items()):
        return splits
    digest = hashlib.sha256(splits.hash.encode())
    for name, part in sorted(parts.items()):
        digest.update(f"{name}: {part}".encode())
    return replace(splits, **parts, hash=digest.hexdigest()[:32])


def _short(image: ImageRef) -> bytes:
    return hashlib.sha256(image.hash.encode()).digest()[:HASH]


def _looks(images: Sequence[ImageRef]) -> np.ndarray:
    """Grey values and mean colours, float32 (n, 67)."""
    thumbnails = unpack([image.look for image in images]).reshape(len(images), SIDE * SIDE, 3)
    return np.hstack([thumbnails.mean(2), thumbnails.mean(1)])


def _decoded(memory: Mapping[str, str], name: str, width: int) -> bytes:
    try:
        data = base64.b64decode(memory.get(name, ""), validate=True)
    except (ValueError, TypeError, AttributeError) as error:
        raise HeadwiseError(f"The mask's list of searched images is damaged ({name}: {error}).") from error
    if len(data) % width:
        raise HeadwiseError(f"The mask's list of searched images is damaged ({name}: {len(data)} bytes).")
    return data

"""Images that look the same: their thumbnails (`look.py`) are close.

Exact search: thumbnails are projected onto the directions in which they vary most, which can only bring them
closer, a k-d tree finds candidates there, and the full distance decides.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

REACH = 80.0  # Euclidean distance of two looks (192 values of 0..255) up to which they count as the same
DIRECTIONS = 10
BLOCK = 4096


def unpack(looks: Sequence[bytes]) -> np.ndarray:
    """Looks as numbers 0..255, (n, 192) float32."""
    return np.frombuffer(b"".join(looks), np.uint8).reshape(len(looks), -1).astype(np.float32)


def near_duplicates(looks: Sequence[bytes], reach: float = REACH) -> Iterator[tuple[int, int]]:
    """Pairs of images that look the same.

    Arguments:
        looks: one per image, as `look_of` makes them.
        reach: the largest distance that counts as the same.

    Yields:
        (i, j) with i < j; of images with identical looks only those with the first of them.
    """
    from scipy.spatial import KDTree

    if len(looks) < 2 or not looks[0]:
        return
    first: dict[bytes, int] = {}
    for i, look in enumerate(looks):
        if (known := first.setdefault(look, i)) != i:
            yield known, i
    index = np.array(list(first.values()))  # (u) images with different looks
    points = unpack(list(first))  # (u, 192)
    centred = points - points.mean(0)
    _, axes = np.linalg.eigh(centred.T @ centred)
    low = centred @ axes[:, -DIRECTIONS:]  # (u, 10)
    tree = KDTree(low)
    for start in range(0, len(points), BLOCK):
        found = tree.query_ball_point(low[start : start + BLOCK], reach + 1e-2)
        for offset, candidates in enumerate(found):
            i = start + offset
            later = np.array([j for j in candidates if j > i], dtype=np.int64)
            distance = np.linalg.norm(points[later] - points[i], axis=1)
            for j in later[distance <= reach]:
                a, b = sorted((int(index[i]), int(index[j])))
                yield a, b

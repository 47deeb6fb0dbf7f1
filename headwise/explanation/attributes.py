"""What can be measured on a picture itself, and the user's own columns: candidates beside texts.

In: images, or the group, class and source of each. Out: float32 (N, A). Simple measures of light, colour, edges and
of what stands out from the border; no model is asked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from PIL import Image

from headwise.data.decode import decode_small, pillow_warnings
from headwise.data.pairs import ImageRef, Pairs
from headwise.errors import HeadwiseError

SIDE = 128  # pictures are measured at this length of their longer side
EDGE = 0.1  # a Sobel gradient above a tenth of the range from black to white is an edge
SPECK = 0.0005  # smaller parts and holes, as a share of the picture, do not count
LEAST_OF_KIND = 8  # images that a value of a column needs on both sides
MOST_VALUES = 40

MEASURED = {
    "brightness": "mean lightness",
    "ink": "share of the picture that differs from its background",
    "contrast": "standard deviation of lightness",
    "colourfulness": "how far colours are from grey (Hasler and Süsstrunk)",
    "edge density": "share of pixels on an edge",
    "sharpness": "logarithm of the Laplacian's variance: low where a picture is blurred",
    "symmetry": "correlation of the picture with its mirror image, left to right",
    "symmetry up-down": "correlation of the picture with its mirror image, top to bottom",
    "parts": "separate pieces of what is not background",
    "holes": "places that are enclosed by it",
    "width": "extent of what is not background, left to right",
    "height": "extent of what is not background, top to bottom",
    "centre x": "where its middle is, left to right",
    "centre y": "where its middle is, top to bottom",
    "elongation": "how much longer than wide it is, along its own axis",
    "horizontal": "how far its axis lies along the horizontal (1) or the vertical (−1)",
    "aspect": "width of the picture by its height, logarithm",
}


def measure(
    images: Sequence[ImageRef], progress: Callable[[float], None] | None = None, workers: int | None = None
) -> tuple[np.ndarray, tuple[int, ...]]:
    """The attributes of `MEASURED` for every image.

    Arguments:
        progress: called with the images done since the last call.
        workers: threads; one per core by default.

    Returns:
        float32 (N, A), nan for pictures that cannot be read; and which these are.
    """
    values = np.full((len(images), len(MEASURED)), np.nan, np.float32)
    unreadable = []

    def one(image: ImageRef) -> np.ndarray | None:
        try:
            return picture_attributes(decode_small(image.read(), SIDE))
        except HeadwiseError:
            return None

    with pillow_warnings(), ThreadPoolExecutor(workers) as pool:
        for i, found in enumerate(pool.map(one, images)):
            if found is None:
                unreadable.append(i)
            else:
                values[i] = found
            if progress:
                progress(1)
    return values, tuple(unreadable)


def own_columns(pairs: Pairs) -> tuple[tuple[str, ...], np.ndarray]:
    """Group, class and source of every image as columns of 0 and 1, one for each value that is common enough.

    Returns:
        Their names, and float32 (N, A).
    """
    said: dict[str, list[str]] = {}
    if pairs.parts:
        said["source"] = [part.name for part in pairs.parts for _ in range(len(part.pairs))]
    if pairs.groups is not None:
        said["group"] = list(pairs.groups)
    if pairs.labels is not None:
        known = pairs.class_names
        said["class"] = [known[label] if known else str(label) for label in pairs.labels]
    names, columns = [], []
    for what, own in said.items():
        for value, count in Counter(own).most_common(MOST_VALUES):
            if LEAST_OF_KIND <= count <= len(own) - LEAST_OF_KIND:
                names.append(f"{what}: {value}")
                columns.append([float(one == value) for one in own])
    return tuple(names), np.array(columns, np.float32).reshape(len(names), len(pairs)).T


def picture_attributes(picture: Image.Image) -> np.ndarray:
    """The attributes of `MEASURED`, in its order, float32."""
    from scipy import ndimage

    aspect = np.log(picture.width / picture.height)
    scale = SIDE / max(picture.size)
    size = (max(2, round(picture.width * scale)), max(2, round(picture.height * scale)))
    rgb = np.asarray(picture.convert("RGB").resize(size, Image.Resampling.BOX), np.float32) / 255  # (h, w, 3)
    light = rgb @ np.array([0.299, 0.587, 0.114], np.float32)  # (h, w)
    gradient = np.hypot(ndimage.sobel(light, 0), ndimage.sobel(light, 1)) / 4  # (h, w)
    red_green, yellow_blue = rgb[..., 0] - rgb[..., 1], (rgb[..., 0] + rgb[..., 1]) / 2 - rgb[..., 2]
    colour = np.hypot(red_green.std(), yellow_blue.std()) + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean())
    figure = not_background(rgb)
    return np.array(
        [
            light.mean(),
            figure.mean(),
            light.std(),
            colour,
            (gradient > EDGE).mean(),
            np.log(ndimage.laplace(light).var() + 1e-6),
            _correlation(light, light[:, ::-1]),
            _correlation(light, light[::-1]),
            *_shape(figure),
            aspect,
        ],
        np.float32,
    )


def not_background(rgb: np.ndarray) -> np.ndarray:
    """What differs from the border's median colour by more than Otsu's threshold: bool (h, w).

    Of a drawing or a cut-out that is the thing; of a photograph it is what stands out from its surroundings.
    """
    border = np.concatenate([rgb[0], rgb[-1], rgb[:, 0], rgb[:, -1]])  # (·, 3)
    distance = np.linalg.norm(rgb - np.median(border, axis=0), axis=-1)  # (h, w)
    if distance.max() < 0.02:
        return np.zeros(distance.shape, bool)
    counts, edges = np.histogram(distance, 64)
    middle = (edges[:-1] + edges[1:]) / 2
    below, mass = np.cumsum(counts), np.cumsum(counts * middle)
    above, rest = below[-1] - below, mass[-1] - mass
    spread = below * above * (mass / below.clip(1) - rest / above.clip(1)) ** 2
    return distance > edges[1:][int(spread.argmax())]


def _shape(figure: np.ndarray) -> list[float]:
    """Parts, holes, width, height, centre x and y, elongation, horizontal; positions in −1…1, extents in 0…1."""
    h, w = figure.shape
    rows, columns = np.nonzero(figure)
    if len(rows) < 3:
        return [0.0] * 8
    least = SPECK * figure.size
    pieces = _pieces(figure, np.ones((3, 3)))
    parts = int((np.bincount(pieces.ravel())[1:] >= least).sum())
    empty = _pieces(~np.pad(figure, 1))  # the padding joins all that touches the border
    holes = int((np.bincount(empty.ravel())[2:] >= least).sum())  # 0: the figure; 1: the outside
    y, x = rows / h * 2 - 1, columns / w * 2 - 1
    covariance = np.cov(np.stack([columns, rows]).astype(np.float64))
    low, high = np.linalg.eigvalsh(covariance)
    lean = np.arctan2(2 * covariance[0, 1], covariance[0, 0] - covariance[1, 1])  # twice the axis' angle
    longer = 1 - np.sqrt(max(low, 0.0) / max(high, 1e-12))
    return [
        parts, holes, (np.ptp(columns) + 1) / w, (np.ptp(rows) + 1) / h, x.mean(), y.mean(), longer,
        longer * np.cos(lean),
    ]  # fmt: skip


def _pieces(figure: np.ndarray, around: np.ndarray | None = None) -> np.ndarray:
    """The number of the connected piece that each pixel belongs to, 0 for none: int32 (h, w)."""
    from scipy import ndimage

    found = np.zeros(figure.shape, np.int32)
    ndimage.label(figure, around, output=found)
    return found


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    scale = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / scale) if scale > 1e-6 else 1.0  # an even picture is its own mirror image

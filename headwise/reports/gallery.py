"""The queries that a mask gained and lost on a split, worst first, with thumbnails of their images.

In: pairs of one split, the ranks before and after (`Score.ranks`). Out: plain values and WebP pictures as data URIs,
each stored once. What a query's merit is: `scoring/per_query.py`.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from headwise.data.decode import decode, pillow_warnings
from headwise.data.pairs import ImageRef, Pairs
from headwise.errors import HeadwiseError
from headwise.scoring.per_query import query_changes

if TYPE_CHECKING:
    from PIL import Image

SHOWN = 24  # gained and lost each
SIDE = 112  # pixels of a thumbnail's longer side
WORDS = 160  # characters of a text that are shown


@dataclass(frozen=True)
class Query:
    """One query whose merit changed.

    Arguments:
        task: as `headwise.scoring.per_query.TASKS` names it.
        text: what it says, or what its image is called; cut to `WORDS` characters.
        image: the image's name in the source.
        picture: key of its thumbnail; None where the image could not be read.
        before, after: ranks, from 1.
        change: of its merit, −1…1.
    """

    task: str
    text: str
    image: str
    picture: str | None
    before: int
    after: int
    change: float


@dataclass(frozen=True)
class Gallery:
    """
    Arguments:
        gained, lost: the largest changes first, at most `SHOWN` each.
        counts: how many queries gained, lost, and how many there are.
        pictures: key → data URI.
        missing: images that could not be read any more.
    """

    gained: tuple[Query, ...]
    lost: tuple[Query, ...]
    counts: tuple[int, int, int]
    pictures: Mapping[str, str]
    missing: int


def gallery(pairs: Pairs, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> Gallery:
    """Compare two sets of ranks query by query.

    Arguments:
        pairs: the images and texts of the split, in the order of the ranks.
        before, after: `Score.ranks` of the unchanged and of the edited model.

    Raises:
        HeadwiseError: ranks that do not fit the pairs.
    """
    old, ranks, change = query_changes(pairs, before, after)
    tasks = old["task"].to_pylist()
    order = np.lexsort((np.arange(len(change)), -np.abs(ranks[1] - ranks[0]), -np.abs(change)))
    places = {name: i for i, name in enumerate(pairs.ids)}
    pictures: dict[str, str] = {}
    broken: set[str] = set()

    def picture(name: str) -> str | None:
        if name not in pictures and name not in broken:
            try:
                pictures[name] = thumbnail(pairs.images[places[name]])
            except HeadwiseError:
                broken.add(name)
        return name if name in pictures else None

    def chosen(sign: int) -> tuple[Query, ...]:
        rows = [int(i) for i in order if sign * change[i] > 0][:SHOWN]
        found = []
        for i in rows:
            name, text = old["image_id"][i].as_py(), old["text"][i].as_py()
            own = pairs.captions[places[name]] if text is None and name in places and pairs.captions else ()
            words = text if text is not None else " | ".join(own) or name
            found.append(
                Query(
                    task=tasks[i],
                    text=words if len(words) <= WORDS else words[: WORDS - 1] + "…",
                    image=name,
                    picture=picture(name) if name in places else None,
                    before=int(ranks[0, i]) + 1,
                    after=int(ranks[1, i]) + 1,
                    change=float(change[i]),
                )
            )
        return tuple(found)

    with pillow_warnings():
        gained, lost = chosen(1), chosen(-1)
    counts = (int((change > 0).sum()), int((change < 0).sum()), len(change))
    return Gallery(gained, lost, counts, pictures, len(broken))


def thumbnail(image: ImageRef, side: int = SIDE) -> str:
    """A picture as a WebP data URI, its longer side `side` pixels (smaller ones are enlarged without blurring).

    Raises:
        HeadwiseError: the image cannot be read or decoded any more.
    """
    return data_uri(decode(image.read()), side)


def data_uri(picture: Image.Image, side: int = SIDE) -> str:
    """The same of a picture in memory."""
    from PIL import Image

    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    small = picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=70, method=4)
    return "data:image/webp;base64," + base64.b64encode(buffer.getvalue()).decode()


def as_json(found: Sequence[Query]) -> list[dict[str, object]]:
    """Queries as plain JSON values."""
    return [vars(query) for query in found]

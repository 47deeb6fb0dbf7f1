"""Everything known of every head, as the plain JSON values of explanation.json.

In: what the other files of this room found. Out: dictionaries, one for each head, and the list of images that they
point into. docs/explanation.md says what each value is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from headwise.data.pairs import Pairs
from headwise.edits.heads import Grid, Head
from headwise.explanation.associations import Associations
from headwise.explanation.attention import Looks
from headwise.explanation.effects import Effects
from headwise.explanation.examples import changed_queries
from headwise.explanation.labels import axes


def effect_json(effects: Effects, row: int, direct: np.ndarray | None) -> dict:
    """Size of a head's effect, and how much of it is direct.

    Arguments:
        direct: the head's direct contributions, (N, E); None where it has none.
    """
    total = effects.of(row)  # (N, E)
    norm = np.linalg.norm(effects.identity, axis=1).clip(1e-12)  # (N)
    own = axes(total[: effects.label])
    found = {
        "size": float((np.linalg.norm(total, axis=1) / norm).mean()),
        "varying": float((np.linalg.norm(total - total.mean(0), axis=1) / norm).mean()),
        "axes": len(own.spread),
        "kept": own.kept,
        "direct": None,
    }
    if direct is not None:
        part = np.asarray(direct, np.float32)
        a, b = part - part.mean(0), total - total.mean(0)
        scale = math.sqrt(float((a * a).sum()) * float((b * b).sum()))
        found["direct"] = {
            "size": float((np.linalg.norm(part, axis=1) / norm).mean()),
            "agreement": float((a * b).sum()) / scale if scale > 0 else 0.0,
        }
    return found


def attributes_json(names: Sequence[str], found: Associations, row: int) -> list[dict]:
    """One head's attributes, the one that its effect carries best first."""
    rows = [
        {
            "name": name,
            "carried": float(found.carried.r[row, a]),
            "carried_p": float(found.carried.p[row, a]),
            "embedding": float(found.embedding[a]),
            "size": float(found.size.r[row, a]),
            "size_p": float(found.size.p[row, a]),
        }
        for a, name in enumerate(names)
    ]
    return sorted(rows, key=lambda one: (-one["carried"], one["name"]))


def attention_json(looks: Looks) -> dict:
    """One head's attention statistics."""
    return {
        "entropy": looks.entropy,
        "class_share": looks.class_share,
        "distance": looks.distance,
        "sink_share": looks.sink_share,
        "sink_norm": looks.sink_norm,
        "sink": looks.sink,
    }


def examples_json(sizes: np.ndarray, largest: Sequence[int], smallest: Sequence[int]) -> dict:
    """Places of images in `images` of the JSON, with the size of the effect on them.

    Arguments:
        sizes: one head's, (N).
    """

    def listed(images: Sequence[int]) -> list[dict]:
        return [{"image": image, "size": float(sizes[image])} for image in images]

    return {"largest": listed(largest), "smallest": listed(smallest)}


def queries_json(effects: Effects, checked: Pairs, row: int) -> dict | None:
    """Fitness without the head minus with it, and the queries that are gained and lost; None without scores."""
    if not effects.scores:
        return None
    whole, without = effects.scores["identity"], effects.score(row)
    return {"delta": without.fitness - whole.fitness, **changed_queries(checked, whole, without)}


def images_json(pairs: Pairs, images: Sequence[int], captions: Sequence[Sequence[str]], label: int) -> list[dict]:
    """The images in the order of all arrays.

    Arguments:
        captions: of all images of `pairs`.
        label: how many are for labelling.
    """
    return [
        {"id": pairs.ids[i], "part": "label" if place < label else "check", "captions": list(captions[i])}
        for place, i in enumerate(images)
    ]


def head_json(grid: Grid, head: Head, edited: bool, facts: Mapping[str, object]) -> dict:
    """`row` counts the rows of the heat map: the blocks, then attention pooling."""
    return {"head": str(head), "row": grid.row_of(head), "edited": edited, **facts}

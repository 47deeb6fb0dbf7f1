"""A row of a study: a mask and its score as plain columns with a checksum, and back.

In: a split's name, a mask, a score. Out: the values of `COLUMNS`, and the same score from them, bit for bit. What is
damaged is said to be, and sizes are checked before memory is taken.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence

import numpy as np

from headwise.checked import Damaged, checksum, inflate
from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.scoring.objectives.score import Score

COLUMNS = ("split", "mask_key", "walk", "operator", "mask", "gates", "fitness", "loss", "metrics", "arrays", "data")
DTYPES = ("<i4", "<i8")


def to_row(split: str, walk: int, mask: Mask, score: Score) -> tuple:
    """The values of `COLUMNS`, then their checksum."""
    means = [[str(head), list(values)] for head, values in mask.means]
    gates = {"layers": mask.grid.layers, "pool": mask.grid.pool, "gates": mask.gates, "means": means}
    hits = np.asarray(score.hits, np.int64)
    small = hits.size == 0 or (hits.min() >= -(2**31) and hits.max() < 2**31)
    arrays = [("hits", hits.astype("<i4" if small else "<i8"))]
    arrays += [(name, np.asarray(ranks, "<i4")) for name, ranks in score.ranks.items()]
    row = (
        split,
        mask.key,
        walk,
        mask.operator,
        str(mask),
        json.dumps(gates),
        float(score.fitness),
        float(score.loss),
        json.dumps(dict(score.metrics)),
        json.dumps([[name, array.dtype.str, array.shape] for name, array in arrays]),
        zlib.compress(b"".join(array.tobytes() for _, array in arrays)),
    )
    return (*row, checksum(row))


def intact(row: Sequence) -> bool:
    """Whether the checksum after the columns is theirs."""
    return checksum(row[:-1]) == row[-1]


def mask_of(row: Sequence) -> Mask:
    """
    Raises:
        Damaged: the columns do not describe a mask.
    """
    columns = dict(zip(COLUMNS, row, strict=False))
    try:
        stored = json.loads(columns["gates"])
        means = tuple((Head.parse(name), tuple(values)) for name, values in stored["means"])
        grid = Grid(tuple(stored["layers"]), stored["pool"])
        return Mask(grid, tuple(map(tuple, stored["gates"])), columns["operator"], means)
    except (ValueError, TypeError, KeyError, RecursionError, HeadwiseError) as error:
        raise Damaged(str(error)) from error


def score_of(row: Sequence) -> Score:
    """
    Raises:
        Damaged: the columns do not describe a score; sizes are checked before memory is taken.
    """
    columns = dict(zip(COLUMNS, row, strict=False))
    try:
        listed = [(str(name), dtype, tuple(shape)) for name, dtype, shape in json.loads(columns["arrays"])]
        for name, dtype, shape in listed:
            if dtype not in DTYPES or not all(type(side) is int and side >= 0 for side in shape):
                raise Damaged(f"{name} is {dtype} of shape {shape}")
        counts = [math.prod(shape) for _, _, shape in listed]
        size = sum(np.dtype(dtype).itemsize * count for (_, dtype, _), count in zip(listed, counts, strict=True))
        raw, offset, named = inflate(columns["data"], size), 0, {}
        for (name, dtype, shape), count in zip(listed, counts, strict=True):
            array = np.frombuffer(raw, dtype, count, offset).reshape(shape)
            named[name] = array.astype(array.dtype.newbyteorder("="))  # a copy: the buffer is read-only
            offset += array.nbytes
        hits = named.pop("hits").astype(np.int64)
        fitness, loss = (math.nan if columns[key] is None else columns[key] for key in ("fitness", "loss"))
        return Score(fitness, loss, json.loads(columns["metrics"]), hits, named)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise error if isinstance(error, Damaged) else Damaged(str(error)) from error

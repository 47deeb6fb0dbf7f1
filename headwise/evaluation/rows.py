"""The tables of a study, and a row of it: a mask and its score as plain columns with a checksum, and back.

In: a split's name, a mask, a score. Out: the values of `COLUMNS`, and the same score from them, bit for bit. What is
damaged is said to be, and sizes are checked before memory is taken.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Mapping, Sequence

import numpy as np

from headwise.checked import Damaged, checksum, inflate
from headwise.edits.arrays import Array
from headwise.edits.edit import Edit, Letter
from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.scoring.objectives.score import Score

COLUMNS = ("split", "mask_key", "walk", "mask", "edits", "fitness", "loss", "metrics", "arrays", "data")
ROW = ", ".join((*COLUMNS, "crc"))  # as SQL names them
DTYPES = ("<i4", "<i8")
_FACTS = "CREATE TABLE study (key TEXT PRIMARY KEY, value TEXT NOT NULL, crc INTEGER NOT NULL)"
_EVALUATIONS = """
CREATE TABLE evaluations (
    id INTEGER PRIMARY KEY,
    split TEXT NOT NULL,
    mask_key TEXT NOT NULL,
    walk INTEGER NOT NULL,  -- the id of the first row that was written with this one
    mask TEXT NOT NULL,     -- as people read it
    edits TEXT NOT NULL,    -- JSON, exact: the grid, and of each head its edit and the digests of its arrays
    fitness REAL,           -- NULL: not a number
    loss REAL,
    metrics TEXT NOT NULL,  -- JSON
    arrays TEXT NOT NULL,   -- JSON: name, dtype and shape of each array in data, in order
    data BLOB NOT NULL,     -- zlib: the per-image hits, then the per-query ranks
    crc INTEGER NOT NULL,   -- of all columns but id (headwise.checked.checksum)
    UNIQUE (split, mask_key)
)
"""
_ARRAYS = """
CREATE TABLE arrays (       -- shifts, principal axes, means: each once
    digest TEXT PRIMARY KEY,
    shape TEXT NOT NULL,    -- JSON
    data BLOB NOT NULL,     -- little-endian float32
    crc INTEGER NOT NULL
)
"""
TABLES = (_FACTS, _EVALUATIONS, _ARRAYS)


def to_row(split: str, walk: int, mask: Mask, score: Score) -> tuple:
    """The values of `COLUMNS`, then their checksum."""
    grid = {"layers": mask.grid.layers, "pool": mask.grid.pool}
    edits = {str(head): [edit.text(exact=True), *_digests(edit)] for head, edit in mask.edits.items()}
    hits = np.asarray(score.hits, np.int64)
    small = hits.size == 0 or (hits.min() >= -(2**31) and hits.max() < 2**31)
    arrays = [("hits", hits.astype("<i4" if small else "<i8"))]
    arrays += [(name, np.asarray(ranks, "<i4")) for name, ranks in score.ranks.items()]
    row = (
        split,
        mask.key,
        walk,
        str(mask),
        json.dumps({"grid": grid, "edits": edits}),
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


def arrays_of(mask: Mask) -> dict[str, Array]:
    """The arrays of a mask's edits by digest: a study keeps each once."""
    letters = [letter for edit in mask.edits.values() for letter in edit.letters]
    return {array.digest: array for letter in letters for _, array in letter.arrays}


def _digests(edit: Edit) -> list[str]:
    return [array.digest for letter in edit.letters for _, array in letter.arrays]


def mask_of(row: Sequence, arrays: Mapping[str, Array]) -> Mask:
    """
    Arguments:
        arrays: those that the study keeps, by digest.

    Raises:
        Damaged: the columns do not describe edits, or one of their arrays is not there.
    """
    columns = dict(zip(COLUMNS, row, strict=False))
    try:
        stored = json.loads(columns["edits"])
        grid = Grid(tuple(stored["grid"]["layers"]), stored["grid"]["pool"])
        return Mask.of(grid, {head: _edit(*written, arrays=arrays) for head, written in stored["edits"].items()})
    except (ValueError, TypeError, KeyError, RecursionError, HeadwiseError) as error:
        raise Damaged(str(error)) from error


def _edit(text: str, *digests: str, arrays: Mapping[str, Array]) -> Edit:
    edit = Edit.parse(text)
    if not digests or edit.value is None:
        return edit
    names = [name for name, _ in edit.value.kind.arrays]
    found = tuple((name, arrays[digest]) for name, digest in zip(names, digests, strict=True))
    return Edit(edit.attention, Letter(edit.value.name, edit.value.number, found))


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

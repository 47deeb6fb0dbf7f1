"""Every query's rank as a table, so that users do their own statistics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headwise.artefact import write_files
from headwise.errors import HeadwiseError

if TYPE_CHECKING:
    import pyarrow as pa


def per_query_table(
    ranks: Mapping[str, np.ndarray],
    *,
    ids: Sequence[str],
    owner: np.ndarray | None = None,
    texts: Sequence[str] | None = None,
    of: np.ndarray | None = None,
    labels: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
) -> pa.Table:
    """One row per query: task, image, image_id, caption (number), text, rank.

    `rank` counts from 0: a query is a hit at k if rank < k. Of a text → image query `image` is the image it should
    find; of an image → text or classification query it is the query, and `caption` is null.

    Arguments:
        ranks: `Score.ranks` of retrieval or classification.
        ids: (N,), names of the images.
        owner, texts: (T,), the image and the words of each caption (retrieval).
        of: (T,), which text each caption is, where texts belong to several images: they are one query, and `image`
            is the first of theirs.
        labels, class_names: (N,) and (C,): the class of each image (classification); its name becomes `text`.

    Raises:
        HeadwiseError: ranks of another kind, or of another number of images or captions than given.
    """
    import pyarrow as pa

    if of is not None and owner is not None:
        first = np.unique(of, return_index=True)[1]
        owner = np.asarray(owner)[first]
        texts = None if texts is None else [texts[int(i)] for i in first]
    parts = []
    for task, rank in ranks.items():
        by_text = task == "image_retrieval"
        if task not in ("image_retrieval", "text_retrieval", "classification"):
            raise HeadwiseError(f"Ranks of {task!r} have no per-query table; retrieval and classification have.")
        if by_text and owner is None:
            raise HeadwiseError("A per-query table of text → image retrieval needs the owner of each caption.")
        image = np.asarray(owner if by_text else np.arange(len(ids)), dtype=np.int64)
        if len(image) != len(rank) or (texts is not None and by_text and len(texts) != len(rank)):
            raise HeadwiseError(f"{task}: {len(rank)} ranks do not fit {len(image)} queries; use the same pairs.")
        words: Sequence[str | None] = [None] * len(rank)
        if by_text and texts is not None:
            words = texts
        elif task == "classification" and labels is not None and class_names is not None:
            words = [class_names[label] for label in labels]
        columns = {
            "task": pa.array([task] * len(rank), pa.string()).dictionary_encode(),
            "image": pa.array(image),
            "image_id": pa.array([ids[i] for i in image], pa.string()),
            "caption": pa.array(np.arange(len(rank)) if by_text else [None] * len(rank), pa.int64()),
            "text": pa.array(words, pa.string()),
            "rank": pa.array(np.asarray(rank), pa.int32()),
        }
        parts.append(pa.table(columns))
    return pa.concat_tables(parts).unify_dictionaries()


def write_per_query(table: pa.Table, path: Path | str) -> None:
    """Write the table to a Parquet file; it appears whole or not at all.

    Raises:
        HeadwiseError: the file cannot be written.
    """
    import pyarrow.parquet as pq

    path, buffer = Path(path), BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    write_files(path.parent, {path.name: buffer.getvalue()})

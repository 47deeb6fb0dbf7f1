"""Every query's rank as a table, so that users do their own statistics.

In: pairs and the ranks of a score. Out: a Parquet file with one row per query.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from headwise.errors import HeadwiseError
from headwise.files import write_files

if TYPE_CHECKING:
    import pyarrow as pa

    from headwise.data.pairs import Pairs

DEPTHS = {"image_retrieval": (1, 5, 10), "text_retrieval": (1, 5, 10)}  # every other task counts rank 0 alone
TASKS = ("image_retrieval", "text_retrieval", "classification", "cola_multi_object", "cola_single_object")


def queries_of(pairs: Pairs, ranks: Mapping[str, np.ndarray]) -> pa.Table:
    """`per_query_table` of a source, of a mixture part after part, with the column `dataset` before the others: the
    source's name, or that of the part.

    Arguments:
        pairs: what was evaluated.
        ranks: `Score.ranks`.
    """
    import pyarrow as pa

    if pairs.parts:
        tables = []
        for part in pairs.parts:
            own = {
                name.removeprefix(f"{part.name}/"): r for name, r in ranks.items() if name.startswith(f"{part.name}/")
            }
            tables.append(queries_of(replace(part.pairs, name=part.name), own))
        return pa.concat_tables(tables)
    table = per_query_table(
        ranks,
        ids=pairs.ids,
        owner=pairs.owner if pairs.texts else None,
        of=pairs.same,
        texts=pairs.texts or None,
        labels=pairs.labels,
        class_names=pairs.class_names,
        positives=_positives(pairs) if pairs.present is not None else None,
    )
    return table.add_column(0, "dataset", pa.array([pairs.name] * len(table), pa.string()))


def _positives(pairs: Pairs) -> tuple[list[int], list[int]]:
    """Cola, single-object: query and image of every rank, in the order of `SingleObject.score_from_ranks`."""
    assert pairs.present is not None
    counted = pairs.counted or pairs.present
    both = sorted(
        (query, image) for image, queries in enumerate(pairs.present) for query in set(queries) & set(counted[image])
    )
    return [query for query, _ in both], [image for _, image in both]


def per_query_table(
    ranks: Mapping[str, np.ndarray],
    *,
    ids: Sequence[str],
    owner: np.ndarray | None = None,
    texts: Sequence[str] | None = None,
    of: np.ndarray | None = None,
    labels: Sequence[int] | None = None,
    class_names: Sequence[str] | None = None,
    positives: tuple[Sequence[int], Sequence[int]] | None = None,
) -> pa.Table:
    """One row per query: task, image, image_id, caption (number), text, rank.

    `rank` counts from 0: a query is a hit at k if rank < k. Of a text → image query `image` is the image it should
    find; of an image → text or classification query it is the query, and `caption` is null. Of Cola's pairs the rank
    is 0 where a caption prefers its own image and 1 where not; of its single objects there is a row for every image
    for which a query holds, `text` is the query and the rank that image's among those that count.

    Arguments:
        ranks: `Score.ranks`.
        ids: (N,), names of the images.
        owner, texts: (T,), the image and the words of each caption (retrieval).
        of: (T,), which text each caption is, where texts belong to several images: they are one query, and `image`
            is the first of theirs.
        labels, class_names: (N,) and (C,): the class of each image (classification); its name becomes `text`.
        positives: query and image of every rank of Cola's single objects; the names of the queries are `class_names`.

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
        by_text = task in ("image_retrieval", "cola_multi_object")
        if task not in TASKS:
            raise HeadwiseError(f"Ranks of {task!r} have no per-query table; there are: {', '.join(TASKS)}.")
        if by_text and owner is None:
            raise HeadwiseError("A per-query table of text → image retrieval needs the owner of each caption.")
        image = np.asarray(owner if by_text else np.arange(len(ids)), dtype=np.int64)
        words: Sequence[str | None] = [None] * len(rank)
        if positives is not None and task == "cola_single_object":
            image = np.asarray(positives[1], dtype=np.int64)
            words = [class_names[query] for query in positives[0]] if class_names is not None else words
        if len(image) != len(rank) or (texts is not None and by_text and len(texts) != len(rank)):
            raise HeadwiseError(f"{task}: {len(rank)} ranks do not fit {len(image)} queries; use the same pairs.")
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


def query_changes(
    pairs: Pairs, before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]
) -> tuple[pa.Table, np.ndarray, np.ndarray]:
    """How every query fares before and after. Its merit is the mean of its hits at 1, 5 and 10 (mean recall's own share
    of it); of labels and of Cola, whether it is right.

    Arguments:
        pairs: the images and texts of the split, in the order of the ranks.
        before, after: `Score.ranks`.

    Returns:
        The table of queries before, ranks (2, Q), and the change of each merit, (Q), −1…1.

    Raises:
        HeadwiseError: ranks that do not fit the pairs.
    """
    old, new = queries_of(pairs, before), queries_of(pairs, after)
    tasks = np.array(old["task"].to_pylist())  # (Q)
    ranks = np.stack([old["rank"].to_numpy(), new["rank"].to_numpy()])  # (2, Q)
    merit = np.zeros(ranks.shape)
    for task in set(tasks.tolist()):
        at = tasks == task
        merit[:, at] = np.mean([ranks[:, at] < k for k in DEPTHS.get(task, (1,))], axis=0)
    return old, ranks, merit[1] - merit[0]


def check_place(path: Path | str) -> None:
    """Whether a table can be written there, before anything is computed; nothing is made or changed.

    Raises:
        HeadwiseError: it is a folder, lies below a file, or in a folder that cannot be written to.
    """
    path = Path(path)
    if "\0" in str(path):
        raise HeadwiseError(f"{str(path)!r}: no file can have this name. Give another one for the table of queries.")
    try:
        if path.is_dir():
            raise HeadwiseError(f"{path} is a folder; give a file in it for the table of queries.")
        path.exists()  # a name that is too long is refused
        above = next(folder for folder in path.absolute().parents if folder.exists())
        if not above.is_dir():
            raise HeadwiseError(f"{path} cannot be written: {above} is a file. Give another place.")
        if not os.access(above, os.W_OK | os.X_OK):
            raise HeadwiseError(f"{path} cannot be written: no right to write in {above}. Give another place.")
    except OSError as error:
        raise HeadwiseError(f"{path} cannot be written: {error.strerror}. Give another place.") from error


def write_per_query(tables: Sequence[pa.Table], path: Path | str) -> None:
    """Write tables, one after the other, to a Parquet file; it appears whole or not at all.

    Raises:
        HeadwiseError: the file cannot be written.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path, buffer = Path(path), BytesIO()
    pq.write_table(pa.concat_tables(tables).unify_dictionaries(), buffer, compression="zstd")
    write_files(path.parent, {path.name: buffer.getvalue()})

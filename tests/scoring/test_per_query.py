"""The per-query table: users get the same metrics out of it."""

import numpy as np
import pyarrow.parquet as pq
import pytest

from headwise.errors import HeadwiseError
from headwise.scoring.per_query import check_place, per_query_table, write_per_query
from headwise.scoring.recall import recalls

RANKS = {"image_retrieval": np.array([0, 3, 1, 0], np.int32), "text_retrieval": np.array([0, 7], np.int32)}
PAIRS = {"ids": ["a.jpg", "b.jpg"], "owner": np.array([0, 0, 1, 1]), "texts": ["x", "y", "z", "w"]}


def test_the_metrics_come_out_of_the_parquet_file(tmp_path):
    write_per_query([per_query_table(RANKS, **PAIRS)], tmp_path / "new" / "queries.parquet")
    rows = pq.read_table(tmp_path / "new" / "queries.parquet").to_pylist()
    assert len(rows) == 6
    for task in RANKS:
        mine = [row["rank"] < 5 for row in rows if row["task"] == task]
        assert np.mean(mine) == recalls(RANKS)[f"{task}_recall@5"]
    assert rows[2] == {
        "task": "image_retrieval",
        "image": 1,
        "image_id": "b.jpg",
        "caption": 2,
        "text": "z",
        "rank": 1,
    }
    assert rows[5]["image_id"] == "b.jpg"
    assert rows[5]["caption"] is None
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["queries.parquet"]


def test_classification_names_the_class():
    table = per_query_table(
        {"classification": np.array([0, 2], np.int32)}, ids=["a", "b"], labels=[1, 0], class_names=["cat", "dog"]
    )
    assert table["text"].to_pylist() == ["dog", "cat"]
    assert table["rank"].to_pylist() == [0, 2]


def test_bad_input_is_a_clear_error(tmp_path):
    with pytest.raises(HeadwiseError, match="4 ranks do not fit 3"):
        per_query_table(RANKS, ids=["a", "b"], owner=np.array([0, 0, 1]))
    with pytest.raises(HeadwiseError, match="needs the owner"):
        per_query_table(RANKS, ids=["a", "b"])
    with pytest.raises(HeadwiseError, match="no per-query table"):
        per_query_table({"cola": np.zeros(2)}, ids=["a", "b"])
    (tmp_path / "file").write_text("")
    with pytest.raises(HeadwiseError):
        write_per_query([per_query_table(RANKS, **PAIRS)], tmp_path / "file" / "queries.parquet")


def test_a_place_is_judged_as_writing_there_ends_and_nothing_is_made(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    there = sorted(tmp_path.rglob("*"))
    table = [per_query_table(RANKS, **PAIRS)]
    for name in ("folder", "file/queries.parquet", "file/a/queries.parquet", "x" * 300, "a\0b"):
        with pytest.raises(HeadwiseError):
            check_place(tmp_path / name)
    assert sorted(tmp_path.rglob("*")) == there
    for name in ("file", "new.parquet", "a/b/new.parquet"):
        check_place(tmp_path / name)
        write_per_query(table, tmp_path / name)
        check_place(tmp_path / name)  # a former table is replaced

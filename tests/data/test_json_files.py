"""JSON files of records in the shapes that people and pandas write."""

import json
from pathlib import Path

import pandas as pd
import pytest

from headwise.data.read import read
from headwise.errors import HeadwiseError

RECORDS = [{"image": f"{i}.png", "caption": f"number {i}", "split": s} for i, s in enumerate(("train", "val", "test"))]
FRAME = pd.DataFrame(RECORDS)
SHAPES = {
    "records": json.dumps(RECORDS),
    "lines": "\n".join(map(json.dumps, RECORDS)),
    "in an object": json.dumps({"info": {"year": 2026}, "version": "1", "data": RECORDS}),
    "columns": json.dumps({key: [r[key] for r in RECORDS] for key in RECORDS[0]}),
    **{f"pandas {orient}": FRAME.to_json(orient=orient) for orient in ("records", "columns", "index", "split", "table")},
}  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES)
def test_records(images: Path, shape: str) -> None:
    (images / "p.json").write_text(SHAPES[shape])
    pairs = read(images / "p.json")
    assert pairs.captions == (("number 0",), ("number 1",), ("number 2",))
    assert pairs.splits == ("train", "val", "test")
    assert pairs.ids == ("0.png", "1.png", "2.png")


@pytest.mark.parametrize(
    "value",
    [
        {"0.png": ["a", "b"], "1.png": "c"},
        {"0.png": {"captions": ["a", "b"]}, "1.png": {"captions": ["c"]}},
        [["0.png", ["a", "b"]], ["1.png", "c"]],
        [{"image": "0.png", "caption": "a"}, {"image": "1.png", "caption": "c"}, {"image": "0.png", "caption": "b"}],
        {"image": ["0.png", "1.png"], "captions": [["a", "b"], ["c"]]},
    ],
)
def test_captions_by_image(images: Path, value: object) -> None:
    (images / "p.json").write_text(json.dumps(value))
    assert read(images / "p.json").captions == (("a", "b"), ("c",))


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"images": [{"id": 1, "file_name": "0.png"}], "annotations": []}, "read it as coco:"),
        ({"images": [{"filename": "0.png", "sentences": []}]}, "read it as karpathy:"),
        ({"labels": ["a"], "data": []}, "read it as cola:"),
        ([1, 2], "no records"),
        ([], "no records"),
        ("text", "without records"),
        ({}, "without records"),
        ({"a": 1}, "its keys are a"),
        ({"image": ["0.png"], "caption": ["a", "b"]}, "image: 1, caption: 2"),
        ([{"image": "0.png", "caption": "a"}, 5], "item 1: a JSON int, not an object"),
        ([{"picture": "0.png", "caption": "a"}], "no column looks like the image"),
    ],
)
def test_json_of_another_shape(images: Path, value: object, says: str) -> None:
    (images / "p.json").write_text(json.dumps(value))
    with pytest.raises(HeadwiseError) as caught:
        read(images / "p.json")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    "text", ["", "{", '[{"image": "0.png"', "[" * 100_000, "[" * 900 + "]" * 900, "9" * 5000, "\0", "nul"]
)
def test_broken_json(images: Path, text: str) -> None:
    (images / "p.json").write_text(text)
    for kind in ("", "coco:", "karpathy:", "cola:", "mix:"):
        with pytest.raises(HeadwiseError) as caught:
            read(f"{kind}{images / 'p.json'}")
        assert "p.json" in str(caught.value)

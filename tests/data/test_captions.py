"""Captions as people write them: lists in a cell, several columns, blank cells."""

import ast
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.data.captions import texts_of
from headwise.data.columns import caption_columns
from headwise.data.read import read
from headwise.errors import HeadwiseError

CAPTIONS = ["a red bus", "it's a bus", 'the "bus"', "a, b", "[bus]", "two\nlines", "公共汽车", "back\\slash"]


def written(captions: list[str]) -> dict[str, str]:
    """A list of captions as tables hold it: after json.dumps, str(list), str(array), repr(array) and so on."""
    array = np.array(captions, dtype=object)
    return {
        "json": json.dumps(captions),
        "json, other letters": json.dumps(captions, ensure_ascii=False),
        "python": str(captions),
        "tuple": str(tuple(captions)) if len(captions) > 1 else str(captions),
        "numpy": str(array),
        "numpy repr": repr(array),
        "numpy text repr": repr(np.array(captions)),
        "list of numpy texts": str([np.str_(c) for c in captions]),
    }


@pytest.mark.parametrize("form", written(["x"]))
def test_a_list_in_a_cell_is_several_captions(form: str) -> None:
    for number in range(1, len(CAPTIONS) + 1):
        cell = written(CAPTIONS[:number])[form]
        assert texts_of([cell]) == CAPTIONS[:number], cell


@settings(deadline=None, max_examples=300)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), min_size=1), min_size=1, max_size=4))
def test_whatever_the_captions_are(captions: list[str]) -> None:
    expected = [caption.strip() for caption in captions if caption.strip()]
    for form in ("json", "python"):
        assert texts_of([written(captions)[form]]) == expected
    # an independent reader of Python's own form
    assert [c.strip() for c in ast.literal_eval(str(captions)) if c.strip()] == expected


def test_what_pandas_writes_is_read_back(images: Path) -> None:
    rows = [["a red bus", "a bus"], ["it's one"], ['say "x"', "b", "c"]]
    for make in (list, tuple, lambda values: np.array(values, dtype=object)):
        frame = pd.DataFrame({"image": [f"{i}.png" for i in range(3)], "captions": [make(row) for row in rows]})
        frame.to_csv(images / "p.csv")
        assert read(images / "p.csv").captions == tuple(map(tuple, rows))


@pytest.mark.parametrize(
    "cell",
    ["['a red bus', 'a b", "['a' ... 'c']", '["a", "b"', "[['a'], ['b']]", "array(['a', 'b'", "['a', b]", "['a'; 'b']"],
)
def test_half_a_list_is_a_bad_row(cell: str) -> None:
    with pytest.raises(HeadwiseError, match="begins like a list of captions and is no whole one"):
        texts_of([cell])


@pytest.mark.parametrize(
    "cell",
    [
        "[a dog]",
        "(a dog)",
        "('quoted') and more",
        "[1",
        "{'a'}",
        "a 'b', 'c'",
        "array of boxes",
        "[" * 5000,
        "'a', 'b'",
    ],
)
def test_brackets_and_quotes_may_be_a_caption(cell: str) -> None:
    assert texts_of([cell]) == [cell]


@pytest.mark.parametrize("value", [None, "", "  ", float("nan"), np.nan, pd.NA, pd.NaT, "[]", "['']", "[None, nan]"])
def test_blank_cells_are_no_captions(value: object) -> None:
    assert texts_of([value]) == []
    assert texts_of(["a", value, "b"]) == ["a", "b"]


def test_an_image_is_bad_only_without_any_caption(images: Path) -> None:
    rows = ["0.png,a,,x", "1.png,,b,", "2.png,, ,", "3.png,c,d,e"]
    (images / "p.csv").write_text("image,caption_1,caption_2,caption_10\n" + "\n".join(rows) + "\n")
    pairs = read(images / "p.csv", skip_bad=True)
    assert pairs.captions == (("a", "x"), ("b",), ("c", "d", "e"))
    assert pairs.skipped == 1
    named = read(images / "p.csv", caption="caption_10,caption_1", skip_bad=True)
    assert named.captions == (("x", "a"), ("e", "c"))  # as they were named; 1.png has neither
    (images / "q.csv").write_text("image,caption\n0.png,a\n0.png,\n1.png,b\n2.png,\n2.png, \n3.png,NA\n")
    with pytest.raises(HeadwiseError, match="2 of 6 rows are bad") as caught:
        read(images / "q.csv")
    assert "line 5: the caption is empty" in str(caught.value)
    assert "line 3" not in str(caught.value)
    pairs = read(images / "q.csv", skip_bad=True)
    assert pairs.captions == (("a",), ("b",), ("NA",))
    assert pairs.notes == ("1 blank caption was left out.",)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["image", "caption_1", "caption_2"], ["caption_1", "caption_2"]),
        (["image", "captions/0", "captions/1"], ["captions/0", "captions/1"]),
        (["image", "caption_10", "caption_9", "caption_2"], ["caption_2", "caption_9", "caption_10"]),
        (["Caption 1", "Caption 2"], ["Caption 1", "Caption 2"]),
        (["caption", "caption.1", "caption.2"], ["caption", "caption.1", "caption.2"]),
        (["caption0", "caption1", "split"], ["caption0", "caption1"]),
        (["sentence_0", "sentence_1", "text_length"], ["sentence_0", "sentence_1"]),
        (["caption", "caption_zh", "caption_1x"], ["caption"]),
        (["x1", "comment_number"], []),
    ],
)
def test_numbered_columns(columns: list[str], expected: list[str]) -> None:
    assert list(caption_columns(columns)) == expected


def test_a_mark_that_may_join_captions_is_said(images: Path) -> None:
    (images / "p.csv").write_text("image,caption\n0.png,a|b\n1.png,c|d\n2.png,e\n")
    pairs = read(images / "p.csv")
    assert pairs.captions == (("a|b",), ("c|d",), ("e",))
    assert len(pairs.notes) == 1
    assert "2 of 3 captions hold a '|', such as 'a|b'" in pairs.notes[0]
    (images / "q.csv").write_text("image,caption\n0.png,a|b\n1.png,c\n2.png,e\n")
    assert read(images / "q.csv").notes == ()


@pytest.mark.parametrize(
    ("cell", "captions"),
    [
        ({"raw": " a bus "}, ["a bus"]),
        ([{"raw": "a bus", "tokens": ["a"]}, "a car", {"caption": ["x", "y"]}], ["a bus", "a car", "x", "y"]),
        ('{"caption": "a bus", "id": 7}', ["a bus"]),
        ('[{"text": "a bus"}, {"text": ""}]', ["a bus"]),
        ("{'raw': 'it is'}", ["it is"]),
        ("[{'raw': \"it's\"}, {'raw': 'a bus'}]", ["it's", "a bus"]),
        ({"caption_1": "a", "caption_2": "b"}, ["a", "b"]),
    ],
)
def test_objects_with_captions(cell: object, captions: list[str]) -> None:
    assert texts_of([cell]) == captions


@pytest.mark.parametrize(
    ("cell", "says"),
    [
        ({"en": "a bus"}, "an object without a field that is named as captions are"),
        ('{"en": "a bus"}', "an object without a field"),
        ("{'raw': 'a bus', ", "begins like an object and is no whole one"),
        ("[{'raw': 'a bus'}, {'raw':", "begins like an object and is no whole one"),
        ("{'a bus', 'a car'}", "is a set as Python prints it"),
        (str(pd.Series(["a bus", "a car"])), "is a pandas.Series as it is printed"),
        (str(pd.Series(["a bus", "a car"], name="caption")), "is a pandas.Series as it is printed"),
        ({"raw": 7}, "is 7, a int and not text"),
    ],
)
def test_objects_that_hold_no_captions_are_bad_rows(cell: object, says: str) -> None:
    with pytest.raises(HeadwiseError, match=says):
        texts_of([cell])


def test_words_for_a_blank_cell_are_said(images: Path) -> None:
    (images / "p.csv").write_text("image,caption_1,caption_2\n0.png,a,nan\n1.png,b,None\n2.png,c,NA\n")
    pairs = read(images / "p.csv")
    assert pairs.captions == (("a", "nan"), ("b", "None"), ("c", "NA"))
    assert "2 of 6 captions are 'nan' or the like" in pairs.notes[0]


@pytest.mark.parametrize("mark", [";", "<br>", "\n"])
def test_other_marks_that_may_join_captions_are_said(images: Path, mark: str) -> None:
    lines = [json.dumps({"image": f"{i}.png", "caption": f"a{i}{mark}b"}) for i in range(3)]
    (images / "p.jsonl").write_text("\n".join(lines))
    assert f"3 of 3 captions hold a {mark!r}" in read(images / "p.jsonl").notes[0]

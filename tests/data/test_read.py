"""Every source that a user has becomes the same pairs; bad ones are refused with their place."""

import json
from pathlib import Path

import numpy as np
import pytest

from headwise.data.read import read
from headwise.errors import HeadwiseError

from .conftest import bomb, encoded, picture


def write(path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_csv_rows_of_one_image_are_its_captions(images: Path) -> None:
    path = write(images / "pairs.csv", 'image,caption\n0.png,"a cat, sitting"\n1.png,NA\n0.png,"the ""cat"""\n')
    pairs = read(path)
    assert pairs.captions == (("a cat, sitting", 'the "cat"'), ("NA",))
    assert pairs.texts == ("a cat, sitting", 'the "cat"', "NA")
    assert pairs.owner.tolist() == [0, 0, 1]
    assert pairs.ids == ("0.png", "1.png")


def test_a_cell_may_hold_a_json_list(images: Path) -> None:
    path = write(images / "p.csv", 'filename,raw\n0.png,"[""one"", ""two""]"\n1.png,[not json]\n')
    assert read(path).captions == (("one", "two"), ("[not json]",))


def test_a_caption_of_brackets_is_a_caption(images: Path) -> None:
    path = write(images / "p.csv", f"image,caption\n0.png,{'[' * 5000}\n1.png,b\n")
    assert read(path).texts == ("[" * 5000, "b")


def test_tsv_may_be_quoted_or_not(images: Path) -> None:
    path = write(images / "p.tsv", 'filepath\ttitle\n0.png\t"quoted ""a"" text"\n1.png\t"open mark\n')
    assert read(path).captions == (('quoted "a" text',), ('"open mark',))


def test_all_tables_give_the_same_pairs(images: Path) -> None:
    from datasets import Dataset

    rows = [{"image": f"{i}.png", "captions": [f"number {i}", f"{i}"], "split": "test"} for i in range(4)]
    csv = "image,captions,split\n" + "".join(
        f'{row["image"]},"{json.dumps(row["captions"]).replace(chr(34), chr(34) * 2)}",test\n' for row in rows
    )
    Dataset.from_list(rows).to_parquet(images / "p.parquet")
    sources = [
        write(images / "p.csv", csv),
        write(images / "p.jsonl", "\n".join(json.dumps(row) for row in rows)),
        str(images / "p.parquet"),
    ]
    inside = [row | {"image": {"bytes": encoded(i), "path": None}} for i, row in enumerate(rows)]
    Dataset.from_list(inside).to_parquet(images / "inside.parquet")
    found = [read(source) for source in [*sources, str(images / "inside.parquet")]]
    assert len({pairs.hash for pairs in found}) == 1
    assert {pairs.splits for pairs in found} == {("test",) * 4}
    assert found[0].texts[:2] == ("number 0", "0")


def test_objects_in_memory_give_the_same_pairs(images: Path) -> None:
    from datasets import Dataset

    pictures = [picture(i) for i in range(3)]
    captions = ["a", "b", ["c", "d"]]
    from_list = read(list(zip(pictures, captions, strict=True)))
    from_columns = read({"images": [np.asarray(p) for p in pictures], "captions": captions})
    assert from_list.captions == from_columns.captions == (("a",), ("b",), ("c", "d"))
    assert from_list.hash == from_columns.hash
    dataset = Dataset.from_dict({"image": [str(images / f"{i}.png") for i in range(3)], "text": ["a", "b", "c"]})
    assert read(dataset).captions == (("a",), ("b",), ("c",))


def test_folder_with_text_files(images: Path) -> None:
    (images / "deep").mkdir()
    for i in range(10):
        (images / f"{i}.png").rename(images / "deep" / f"{i}.png")
        write(images / "deep" / f"{i}.txt", f"number {i}\n\nanother {i}\n")
    pairs = read(images)
    assert len(pairs) == 10
    assert pairs.captions[3] == ("number 3", "another 3")


def test_folder_with_metadata(images: Path) -> None:
    write(images / "metadata.csv", "file_name,text\n2.png,two\n3.png,three\n")
    assert read(images).captions == (("two",), ("three",))


def test_labels_make_a_classification_set(images: Path) -> None:
    path = write(images / "p.csv", "image,label\n0.png,10\n1.png,9\n2.png,10\n")
    pairs = read(path)
    assert pairs.class_names == ("9", "10")
    assert pairs.labels == (1, 0, 1)


def test_group_and_split_columns(images: Path) -> None:
    path = write(images / "p.csv", "image,caption,concept,split\n0.png,a,cat,train\n1.png,b,dog,test\n")
    pairs = read(path)
    assert pairs.groups == ("cat", "dog")
    assert pairs.splits == ("train", "test")


def test_column_options_win_over_names(images: Path) -> None:
    path = write(images / "p.csv", "x,caption,other\n0.png,a,A\n1.png,b,B\n")
    assert read(path, image="x", caption="other").captions == (("A",), ("B",))
    assert read(path, image="x", caption="caption,other").captions == (("a", "A"), ("b", "B"))


def test_hash_follows_content_not_paths(images: Path) -> None:
    first = read(write(images / "p.csv", "image,caption\n0.png,a\n1.png,b\n"))
    (images / "0.png").rename(images / "moved.png")
    assert read(write(images / "p.csv", "image,caption\nmoved.png,a\n1.png,b\n")).hash == first.hash
    assert read(write(images / "p.csv", "image,caption\nmoved.png,a\n1.png,B\n")).hash != first.hash
    assert read(write(images / "p.csv", "image,caption\nmoved.png,a\n2.png,b\n")).hash != first.hash


def test_subset_keeps_what_belongs_together(images: Path) -> None:
    path = write(images / "p.csv", "image,caption,concept\n0.png,a,x\n1.png,b,y\n2.png,c,z\n1.png,d,y\n")
    part = read(path).subset([2, 1])
    assert part.texts == ("c", "b", "d")
    assert part.groups == ("z", "y")
    assert part.owner.tolist() == [0, 1, 1]


# ---- bad input


def fails(*source: object, **options: object) -> str:
    with pytest.raises(HeadwiseError) as found:
        read(*source, **options)  # type: ignore
    return str(found.value)


def test_all_bad_rows_are_listed_at_once_and_can_be_skipped(images: Path) -> None:
    good = encoded(1, "JPEG")
    (images / "cut.jpg").write_bytes(good[:-60])
    (images / "cut.png").write_bytes(encoded(1)[:-30])
    (images / "text.jpg").write_text("not an image")
    (images / "nothing.jpg").write_bytes(b"")
    (images / "bomb.png").write_bytes(bomb())
    bad = [
        "cut.jpg,x",
        "cut.png,x",
        "text.jpg,x",
        "nothing.jpg,x",
        "bomb.png,x",
        "gone.jpg,x",
        "3.png, ",
        ",x",
        "4.png",
    ]
    path = write(images / "p.csv", "image,caption\n0.png,a\n" + "\n".join(bad) + "\n1.png,b\n")
    message = fails(path)
    assert "9 of 11 rows are bad" in message
    for line, reason in [
        (3, "truncated"), (4, "truncated"), (5, "not an image"), (6, "0 bytes"), (7, "decompression bomb"),
        (8, "gone.jpg does not exist"), (9, "caption is empty"), (10, "names no image"), (11, "1 fields, the header has 2"),
    ]:  # fmt: skip
        assert any(f"line {line}:" in found and reason in found for found in message.splitlines()), (line, message)
    assert "leave them out with skip_bad=True" in message
    pairs = read(path, skip_bad=True)
    assert pairs.texts == ("a", "b")
    assert pairs.skipped == 9
    assert read(path, skip_bad=True).skipped == 9  # also when the verdict comes from the cache


def test_a_long_list_of_bad_rows_is_cut(images: Path) -> None:
    path = write(images / "p.csv", "image,caption\n0.png,a\n" + "gone.png,b\n" * 50)
    message = fails(path)
    assert "50 of 51 rows are bad" in message
    assert "and 30 more" in message


def test_captions_must_be_text(images: Path) -> None:
    rows = [
        {"image": "0.png", "caption": 7},
        {"image": "1.png", "caption": None},
        {"image": "2.png", "caption": ["a", {}]},
    ]
    message = fails(write(images / "p.jsonl", "\n".join(map(json.dumps, rows))))
    assert "line 1: the caption is 7, a int and not text" in message
    assert "line 2: the caption is missing" in message
    assert "line 3: the caption is {}, a dict and not text" in message


def test_captions_must_be_utf8(images: Path) -> None:
    (images / "p.csv").write_bytes(b"image,caption\n0.png,caf\xe9\n1.png,ok\n")
    assert "line 2: the caption is not valid UTF-8" in fails(images / "p.csv")


def test_missing_columns_name_those_there_are(images: Path) -> None:
    path = write(images / "p.csv", "image,words\n0.png,a\n")
    assert "no column looks like the caption. Its columns are: image, words. Say which one it is with" in fails(path)
    assert "no column 'text' for the caption" in fails(path, caption="text")
    assert "no column looks like the image" in fails(write(images / "q.csv", "x,caption\n0.png,a\n"))


@pytest.mark.parametrize("name", ["p.csv", "p.tsv", "p.jsonl", "p.parquet"])
def test_empty_and_missing_files(tmp_path: Path, name: str) -> None:
    assert "does not exist" in fails(tmp_path / name)
    (tmp_path / name).write_bytes(b"")
    assert "is empty" in fails(tmp_path / name)


def test_a_header_alone_has_no_rows(tmp_path: Path) -> None:
    assert "no rows" in fails(write(tmp_path / "p.csv", "image,caption\n"))


def test_not_what_the_ending_says(tmp_path: Path) -> None:
    assert "not a readable Parquet file" in fails(write(tmp_path / "p.parquet", "image,caption\n"))
    assert "each line must be a JSON object" in fails(write(tmp_path / "p.jsonl", "image,caption\n"))
    assert "ending .xlsx is not known" in fails(write(tmp_path / "p.xlsx", "x"))


def test_an_open_quotation_mark_is_said(images: Path) -> None:
    assert "line 3" in fails(write(images / "p.csv", 'image,caption\n0.png,a\n1.png,"b\n2.png,c\n'))


def test_one_class_is_not_a_classification(images: Path) -> None:
    assert "has 1 class (cat)" in fails(write(images / "p.csv", "image,label\n0.png,cat\n1.png,cat\n"))


def test_an_image_in_two_groups(images: Path) -> None:
    path = write(images / "p.csv", "image,caption,group\n0.png,a,x\n0.png,b,y\n")
    assert "two values of group: 'x'" in fails(path)


def test_links_out_of_a_folder_are_refused(images: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    outside = tmp_path_factory.mktemp("outside") / "secret.png"
    outside.write_bytes(encoded(99))
    (images / "link.png").symlink_to(outside)
    write(images / "metadata.csv", f"file_name,text\n0.png,a\nlink.png,b\n../{outside.parent.name}/secret.png,c\n")
    message = fails(images)
    assert "2 of 3 rows are bad" in message
    assert "outside the folder" in message


def test_a_name_that_no_file_can_have(images: Path) -> None:
    write(images / "metadata.csv", "file_name,text\n0.png,a\n1\0.png,b\n")
    assert "line 3: the image" in fails(images)
    assert "line 3: the image" in fails(images / "metadata.csv")


def test_folders_without_captions_or_images(images: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert "10 images but no captions" in fails(images)
    assert "holds no images" in fails(tmp_path_factory.mktemp("empty"))
    write(images / "0.txt", "a")
    write(images / "alone.txt", "b")
    message = fails(images)
    assert "alone.txt: captions without an image" in message
    assert "1.png: there is no .txt" in message


@pytest.mark.parametrize("source", [3, None, "", [1, 2], {"images": [1], "captions": [1, 2]}, [], {}, [("a.png", 1)]])
def test_objects_that_are_no_pairs(source: object) -> None:
    assert fails(source)

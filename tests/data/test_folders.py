"""Folders as people have them: hidden files, links, class folders, captions beside the images."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headwise.data.read import read
from headwise.errors import HeadwiseError
from tests.data.conftest import encoded


def lay(root: Path, names: list[str], **texts: str) -> Path:
    for i, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(encoded(i))
    return root


def fails(source: object) -> str:
    with pytest.raises(HeadwiseError) as caught:
        read(source)
    return str(caught.value)


@pytest.mark.parametrize(("image", "text"), [("a.png", "a.png.txt"), ("é.png", "e\u0301.txt"), ("a.JFIF", "a.TXT")])
def test_texts_beside_images(tmp_path: Path, image: str, text: str) -> None:
    lay(tmp_path, [image, ".ipynb_checkpoints/a.png", "._a.png", "__MACOSX/x.png"])
    (tmp_path / text).write_bytes("one\r\ntwo\rthree\u2028four\n".encode("utf-16"))
    assert read(tmp_path).captions == (("one", "two", "three\u2028four"),)


def test_texts_that_belong_to_no_image(tmp_path: Path) -> None:
    lay(tmp_path, ["cat/1.png", "dog/2.png"])
    (tmp_path / "README.txt").write_text("cats and dogs")
    assert read(tmp_path).class_names == ("cat", "dog")


@pytest.mark.parametrize("names", [["train/1.png", "test/2.png"], ["train/cat/1.png", "val/2.png"]])
def test_folders_of_splits_are_no_classes(tmp_path: Path, names: list[str]) -> None:
    assert "but no captions" in fails(lay(tmp_path, names))


def test_folders_of_which_some_are_splits(tmp_path: Path) -> None:
    names = ["train/cat/1.png", "train/dog/2.png", "mine/cat/3.png"]
    assert "but not mine. Name it as a split" in fails(lay(tmp_path, names))


@pytest.mark.parametrize("names", [["0/1.png", "1/2.png"], ["0/x/1.png", "1/x/2.png"], ["test/1.png", "cat/2.png"]])
def test_classes_that_are_numbers_or_sound_like_splits(tmp_path: Path, names: list[str]) -> None:
    pairs = read(lay(tmp_path, names))
    assert pairs.splits is None
    assert set(pairs.class_names or ()) == {name.split("/")[0] for name in names}


def test_a_link_to_a_folder_is_said(tmp_path: Path) -> None:
    data = lay(tmp_path / "data", ["cat/1.png", "dog/2.png"])
    (data / "bird").symlink_to(lay(tmp_path / "else", ["3.png"]))
    assert "bird is a link to a folder" in fails(data)


def test_a_table_of_another_name_is_named(tmp_path: Path) -> None:
    (lay(tmp_path, ["1.png"]) / "my.csv").write_text("image,caption\n1.png,a\n")
    assert "If my.csv holds the captions" in fails(tmp_path)


# ---- annotation files


def test_two_images_of_one_id(images: Path) -> None:
    data = {"annotations": [{"image_id": i, "caption": f"c{i}"} for i in (0, 0, 1)]}
    files = [(0, "0.png"), (1, "1.png"), (0, "0.png")]
    (images / "a.json").write_text(json.dumps(data | {"images": [{"id": i, "file_name": name} for i, name in files]}))
    assert read(f"coco:{images}/a.json").captions == (("c0", "c0"), ("c1",))
    files[2] = (0, "2.png")
    (images / "a.json").write_text(json.dumps(data | {"images": [{"id": i, "file_name": name} for i, name in files]}))
    assert "image 2.png has the id 0, as 0.png has" in fails(f"coco:{images}/a.json")


def test_flickrs_files(images: Path) -> None:
    (images / "results.token").write_text("0.png#0\ta, b\n0.png#1\tc\n1.png#0\td\n")
    assert read(f"flickr:{images}/results.token").captions == (("a, b", "c"), ("d",))
    (images / "results.csv").write_text("image_name| comment_number| comment\n0.png| 0| a\n1.png| 4   A dog runs .\n")
    assert read(f"flickr:{images}/results.csv").captions == (("a",), ("A dog runs .",))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0.png,a\n1.png,b\n", "the first line must be image,caption"),
        ("image,caption,source\n0.png,a,web\n", "the caption must be the last column"),
        ("caption,image\na,0.png\n", "the caption must be the last column"),
    ],
)
def test_files_that_are_not_flickrs(images: Path, text: str, says: str) -> None:
    (images / "p.csv").write_text(text)
    assert says in fails(f"flickr:{images}/p.csv")


# ---- pictures


@pytest.mark.parametrize("high", [1.0001, 1.2, 5.0])
def test_floats_just_above_one_are_refused(tmp_path: Path, high: float) -> None:
    values = np.linspace(0, high, 64, dtype=np.float32).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "a.tiff")
    assert "neither in 0..1 nor in 0..255" in fails([(tmp_path / "a.tiff", "a")])


@pytest.mark.parametrize(
    ("data", "says"),
    [(b"version https://git-lfs", "git lfs pull"), (b"<html>", "web page"), (b"abc", "no format that")],
)
def test_what_is_no_image(images: Path, data: bytes, says: str) -> None:
    assert says in fails([(data, "a"), (encoded(1), "b")])
    stream = io.BytesIO(data)
    assert "a BytesIO" in fails([(stream, "a")])

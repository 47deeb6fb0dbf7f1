"""WebDataset archives in clip_benchmark's layout, whole and broken."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import fsspec
import pytest

from headwise.data.read import read
from headwise.errors import HeadwiseError

from .conftest import encoded


def archive(files: dict[str, bytes], **links: str) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        for name, target in links.items():
            info = tarfile.TarInfo(f"{name}.png")
            info.type, info.linkname = tarfile.SYMTYPE, target
            tar.addfile(info)
    return stream.getvalue()


def sample(i: int, text: str, ending: str = "txt") -> dict[str, bytes]:
    return {f"s{i:07}.png": encoded(i), f"s{i:07}.{ending}": text.encode()}


def write(root: Path, split: str, shards: list[dict[str, bytes]], **about: str) -> None:
    (root / split).mkdir()
    (root / split / "nshards.txt").write_text(f"{len(shards)}\n")
    for i, files in enumerate(shards):
        (root / split / f"{i}.tar").write_bytes(archive(files))
    for name, text in about.items():
        (root / f"{name}.txt").write_text(text)


def fails(source: object, **options: object) -> str:
    with pytest.raises(HeadwiseError) as found:
        read(source, **options)  # type: ignore
    return str(found.value)


@pytest.fixture
def retrieval(tmp_path: Path) -> Path:
    shards = [sample(0, "a\nb") | sample(1, "c"), sample(2, "d\ne\nf")]
    write(tmp_path, "test", shards, dataset_type="retrieval\n")
    return tmp_path


def test_retrieval(retrieval: Path) -> None:
    pairs = read(f"wds:{retrieval}?split=test")
    assert pairs.captions == (("a", "b"), ("c",), ("d", "e", "f"))
    assert pairs.images[2].read() == encoded(2)
    assert read(f"wds:{retrieval}").hash == pairs.hash
    assert read(f"wds:{retrieval}/test/*.tar").hash == pairs.hash
    assert read(f"wds:{retrieval}/test/{{0..1}}.tar").hash == pairs.hash
    assert read(f"wds:{retrieval}/test").hash == pairs.hash


def test_equal_images_stay_separate_samples(tmp_path: Path) -> None:
    twice = {"a.png": encoded(0), "a.txt": b"one", "b.png": encoded(0), "b.txt": b"two"}
    write(tmp_path, "test", [twice], dataset_type="retrieval")
    assert read(f"wds:{tmp_path}").captions == (("one",), ("two",))


def test_classification(tmp_path: Path) -> None:
    shards = [sample(0, "1", "cls") | sample(1, "0", "cls"), sample(2, "1", "cls")]
    templates = "a photo of a {c}.\nthe {c}.\n"
    write(tmp_path, "test", shards, classnames="cat\ndog\n", zeroshot_classification_templates=templates)
    pairs = read(f"wds:{tmp_path}")
    assert pairs.class_names == ("cat", "dog")
    assert pairs.labels == (1, 0, 1)
    assert pairs.templates == ("a photo of a {c}.", "the {c}.")
    assert pairs.texts == ()


def test_splits(retrieval: Path) -> None:
    write(retrieval, "train", [sample(5, "x")])
    assert read(f"wds:{retrieval}").splits == ("test", "test", "test", "train")
    assert read(f"wds:{retrieval}?split=train").texts == ("x",)
    assert "no split 'val' (val/nshards.txt is missing). Its splits are: test, train" in fails(
        f"wds:{retrieval}?split=val"
    )


def test_remote(retrieval: Path) -> None:
    memory = fsspec.filesystem("memory")
    for path in retrieval.rglob("*.*"):
        memory.pipe(f"/wds/{path.relative_to(retrieval)}", path.read_bytes())
    assert read("wds:memory://wds").hash == read(f"wds:{retrieval}").hash


def test_bad_samples(tmp_path: Path) -> None:
    files = sample(0, "fine") | {"s1.png": encoded(1), "s2.txt": b"alone", "s3.png": b"x", "s3.txt": b"y"}
    files |= {"s4.png": encoded(4), "s4.txt": b"\xff", "s5.png": encoded(5), "s5.txt": b" \n"}
    write(tmp_path, "test", [files], dataset_type="retrieval")
    message = fails(f"wds:{tmp_path}")
    for expected in [
        "s1: no .txt",
        "s2: no image",
        "s3: not an image",
        "s4: the caption is not valid",
        "s5: the caption is",
    ]:
        assert expected in message, (expected, message)
    assert read(f"wds:{tmp_path}", skip_bad=True).texts == ("fine",)


def test_names_that_lead_out_and_links_are_refused(tmp_path: Path) -> None:
    files = sample(0, "fine") | {"../evil.png": encoded(1), "/etc/evil.png": encoded(2)}
    write(tmp_path, "test", [files], dataset_type="retrieval")
    (tmp_path / "test" / "0.tar").write_bytes(archive(files, link="/etc/passwd"))
    message = fails(f"wds:{tmp_path}")
    assert "'../evil.png' leads out of the archive" in message
    assert "'/etc/evil.png' leads out" in message
    assert "'link.png' is a link" in message
    assert not (tmp_path.parent / "evil.png").exists()


@pytest.mark.parametrize("keep", [0.3, 0.55, 0.8])
def test_truncated_archives(retrieval: Path, keep: float) -> None:
    path = retrieval / "test" / "0.tar"
    data = archive(sample(0, "a\nb") | sample(1, "c")).rstrip(b"\0")
    path.write_bytes(data[: int(len(data) * keep)])
    assert "truncated" in fails(f"wds:{retrieval}")


def test_an_archive_cut_between_two_files(retrieval: Path) -> None:
    path = retrieval / "test" / "0.tar"
    with tarfile.open(path) as tar:
        second = tar.getmembers()[2].offset
    path.write_bytes(path.read_bytes()[:second])
    assert "truncated after 2 files (it has no end mark)" in fails(f"wds:{retrieval}")
    assert read(f"wds:{retrieval}", skip_bad=True).captions == (("a", "b"), ("d", "e", "f"))


def test_bad_folders(tmp_path: Path) -> None:
    assert "neither {split}/nshards.txt nor .tar" in fails(f"wds:{tmp_path}")
    assert "no such folder" in fails(f"wds:{tmp_path}/none")
    write(tmp_path, "test", [sample(0, "a")])
    (tmp_path / "test" / "nshards.txt").write_text("many")
    assert "'many' is not a number" in fails(f"wds:{tmp_path}")
    (tmp_path / "test" / "nshards.txt").write_text("2")
    assert "1.tar: cannot be read" in fails(f"wds:{tmp_path}")
    (tmp_path / "test" / "1.tar").write_bytes(b"not a tar at all" * 100)
    assert "1.tar: not a readable tar archive" in fails(f"wds:{tmp_path}")
    (tmp_path / "test" / "1.tar").write_bytes(gzip.compress(b"an archive"))
    assert "compressed with gzip; unpack it first" in fails(f"wds:{tmp_path}")


def test_bad_classes(tmp_path: Path) -> None:
    shards = [sample(0, "0", "cls") | sample(1, "5", "cls") | sample(2, "x", "cls")]
    write(tmp_path, "test", shards, dataset_type="classification")
    assert "classnames.txt is missing or empty" in fails(f"wds:{tmp_path}")
    (tmp_path / "classnames.txt").write_text("cat\n")
    assert "has 1 class (cat)" in fails(f"wds:{tmp_path}")
    (tmp_path / "classnames.txt").write_text("cat\ndog\n")
    message = fails(f"wds:{tmp_path}")
    assert "label '5' is not a class number below 2" in message
    assert "label 'x'" in message
    (tmp_path / "test" / "0.tar").write_bytes(archive(sample(0, "0", "cls") | sample(1, "0", "cls")))
    assert "1 of 2 classes have no image: 1 (dog)" in fails(f"wds:{tmp_path}")
    assert read(f"wds:{tmp_path}", skip_bad=True).class_names == ("cat", "dog")
    (tmp_path / "dataset_type.txt").write_text("multilabel")
    assert "'multilabel' sets cannot be evaluated" in fails(f"wds:{tmp_path}")


def test_lines_of_a_caption_file(tmp_path: Path) -> None:
    """Blank lines are none, at the end or between; only a line feed parts captions."""
    text = "one\u2028two\u0085three\x0cfour"
    files = sample(0, f"a\r\nb\n\n{text}\n\n \n") | sample(1, "\ufeffc\n") | sample(2, "d")
    write(tmp_path, "test", [files], dataset_type="retrieval")
    assert read(f"wds:{tmp_path}").captions == (("a", "b", text), ("c",), ("d",))


@pytest.mark.parametrize("image", ["img", "image", "jpeg", "PNG", "left.png", "gif", "tiff"])
@pytest.mark.parametrize("text", ["cap", "caption", "captions", "text", "txt", "TXT"])
def test_other_endings(tmp_path: Path, image: str, text: str) -> None:
    files = {f"{i}.{image}": encoded(i) for i in range(2)} | {f"{i}.{text}": f"a {i}\nb".encode() for i in range(2)}
    write(tmp_path, "test", [dict(sorted(files.items()))])
    assert read(f"wds:{tmp_path}").captions == (("a 0", "b"), ("a 1", "b"))


def test_captions_in_json(tmp_path: Path) -> None:
    fields = [
        {"caption": "a", "url": "http://x/0.png", "key": "0"},  # img2dataset
        {"captions": ["b", "c"], "title": "t"},
        {"caption_1": "d", "caption_2": ""},
    ]
    files = {}
    for i, field in enumerate(fields):
        files |= {f"{i}.jpg": encoded(i, "JPEG"), f"{i}.json": json.dumps(field).encode()}
    files |= {"3.jpg": encoded(3), "3.json": b'{"caption": "from json"}', "3.txt": b"from txt"}
    files |= {"4.jpg": encoded(4), "4.json": b'{"caption": "from json"}', "4.txt": b" \n"}
    write(tmp_path, "test", [files])
    found = (("a",), ("b", "c"), ("d",), ("from txt",), ("from json",))
    assert read(f"wds:{tmp_path}").captions == found
    assert read(f"wds:{tmp_path}?caption=title", skip_bad=True).captions == (("t",), ("from txt",))


def test_json_without_captions(tmp_path: Path) -> None:
    files = {"0.png": encoded(0), "0.json": b'{"caption": "a"}'}
    for i, data in enumerate(
        [b"{", b"[1]", b'{"url": "x"}', b'{"caption": 5}', b'{"caption": null}', b"[" * 90_000], 1
    ):
        files |= {f"{i}.png": encoded(i), f"{i}.json": data}
    write(tmp_path, "test", [files])
    message = fails(f"wds:{tmp_path}")
    for expected in ["1: the .json beside the image is not JSON", "2: the .json beside the image holds a list",
                     "3: no field 'caption' in the .json beside the image, only url", "4: the caption is 5",
                     "5: the caption is missing", "6: the .json beside the image is not JSON"]:  # fmt: skip
        assert expected in message, (expected, message)
    assert read(f"wds:{tmp_path}", skip_bad=True).texts == ("a",)


@pytest.mark.parametrize("label", ["0000000000000000005", "9" * 400, "0000000005", "-1", "1.0", "", "\u00b2"])
def test_labels_that_are_no_class(tmp_path: Path, label: str) -> None:
    write(tmp_path, "test", [sample(0, "0", "cls") | sample(1, label, "cls")], classnames="cat\ndog\n")
    assert "is not a class number below 2" in fails(f"wds:{tmp_path}")


def test_dots_in_names(tmp_path: Path) -> None:
    files = {
        f"im.v1.{i}.{ending}": data for i in range(3) for ending, data in [("png", encoded(i)), ("txt", b"c%d" % i)]
    }
    write(tmp_path, "test", [files])
    pairs = read(f"wds:{tmp_path}")
    assert pairs.captions == (("c0",), ("c1",), ("c2",))
    assert [image.read() for image in pairs.images] == [encoded(i) for i in range(3)]


def test_several_files_of_one_sample(tmp_path: Path) -> None:
    files = {"a.seg.png": encoded(5), "a.jpg": encoded(0, "JPEG"), "a.2.txt": b"y", "a.10.txt": b"z", "a.1.txt": b"x"}
    write(tmp_path, "test", [{**files, "b.left.png": encoded(1), "b.right.png": encoded(2), "b.txt": b"q"}])
    assert "b: several images (left.png, right.png)" in fails(f"wds:{tmp_path}")
    pairs = read(f"wds:{tmp_path}", skip_bad=True)
    assert pairs.captions == (("x", "y", "z"),)
    assert pairs.images[0].read() == encoded(0, "JPEG")


def test_two_files_of_one_name(tmp_path: Path) -> None:
    write(tmp_path, "test", [{"a.png": encoded(0), "a.txt": b"x", "b.png": encoded(1), "b.txt": b"y"}])
    with tarfile.open(tmp_path / "test" / "0.tar", "a") as tar:
        info = tarfile.TarInfo("b.txt")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"z"))
    assert "0.tar b: two files have the same name b" in fails(f"wds:{tmp_path}")


def test_a_macs_notes_and_other_encodings(tmp_path: Path) -> None:
    files = {"._a.png": b"\0\5", "a.png": encoded(0), "._a.txt": b"\0", "a.txt": "ein Hund\r\nécru".encode("utf-16")}
    write(tmp_path, "test", [{**files, "b.png": encoded(1), "b.txt": b"x\ry"}])
    assert read(f"wds:{tmp_path}").captions == (("ein Hund", "écru"), ("x", "y"))

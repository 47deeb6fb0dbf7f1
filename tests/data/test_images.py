"""Which files a source may name: those in its folder or in the folder given for its images, and no others unasked."""

import json
from pathlib import Path

import pytest

from headwise.data import opening
from headwise.data.read import read
from headwise.errors import HeadwiseError

from .conftest import encoded


@pytest.fixture
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that is none of the source's."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "secret.png").write_bytes(encoded(50))
    return folder


def fails(source: object, **options: object) -> str:
    with pytest.raises(HeadwiseError) as found:
        read(source, **options)  # type: ignore
    return str(found.value)


def sources(folder: Path, name: str) -> list[str]:
    """Files of every format that name an image, beside a good one."""
    import datasets

    rows = [{"image": "0.png", "caption": "a"}, {"image": name, "caption": "b"}]
    (folder / "p.csv").write_text(f"image,caption\n0.png,a\n{name},b\n")
    (folder / "p.tsv").write_text(f"image\tcaption\n0.png\ta\n{name}\tb\n")
    (folder / "p.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "p.json").write_text(json.dumps(rows))
    datasets.Dataset.from_list(rows).to_parquet(folder / "p.parquet")
    held = [{"image": {"bytes": None, "path": row["image"]}, "caption": row["caption"]} for row in rows]
    datasets.Dataset.from_list(held).to_parquet(folder / "held.parquet")
    (folder / "k.json").write_text(
        json.dumps({"images": [{"filename": n, "sentences": [{"raw": "a"}]} for n in ("0.png", name)]})
    )
    (folder / "c.json").write_text(
        json.dumps(
            {
                "images": [{"id": i, "file_name": n} for i, n in enumerate(("0.png", name))],
                "annotations": [{"image_id": i, "caption": "a"} for i in range(2)],
            }
        )
    )
    (folder / "f.csv").write_text(f"image,caption\n0.png,a\n{name},b\n")
    (folder / "t.txt").write_text(f"0.png#0\ta\n{name}#0\tb\n")
    (folder / "m.json").write_text(json.dumps([["0.png", "a", name, "b"], ["0.png", "a", "1.png", "b"]]))
    named = [f"karpathy:{folder}/k.json", f"coco:{folder}/c.json", f"flickr:{folder}/f.csv", f"cna:{folder}/t.txt"]
    plain = [str(folder / name) for name in ("p.csv", "p.tsv", "p.jsonl", "p.json", "p.parquet", "held.parquet")]
    return [*plain, *named, f"cola:{folder}/m.json"]


@pytest.mark.parametrize("form", ["absolute", "up", "file url", "file url, one slash", "link", "link of a folder"])
def test_no_reader_leaves_the_folder(images: Path, elsewhere: Path, form: str) -> None:
    (images / "link.png").symlink_to(elsewhere / "secret.png")
    (images / "linked").symlink_to(elsewhere)
    name = {
        "absolute": f"{elsewhere}/secret.png",
        "up": f"../{elsewhere.name}/secret.png",
        "file url": f"file://{elsewhere}/secret.png",
        "file url, one slash": f"file:{elsewhere}/secret.png",
        "link": "link.png",
        "link of a folder": "linked/secret.png",
    }[form]
    for source in sources(images, name):
        message = fails(source)
        assert "secret.png is outside the folder" in message or "link.png is outside the folder" in message, source
        assert "images=DIR" in message


def test_the_folder_that_was_given_is_allowed(images: Path, elsewhere: Path) -> None:
    for name in (f"{elsewhere}/secret.png", f"file://{elsewhere}/secret.png"):
        (images / "p.csv").write_text(f"image,caption\n{images}/0.png,a\n{name},b\n")
        assert read(images / "p.csv", images=str(elsewhere)).images[1].read() == encoded(50)
        assert read(f"{images / 'p.csv'}?images={elsewhere}").images[1].read() == encoded(50)
        assert "outside the folder" in fails(images / "p.csv", images=str(elsewhere / "deeper"))
    (images / "q.csv").write_text("image,caption\nsecret.png,a\n./secret.png,b\n")
    assert read(images / "q.csv", images=str(elsewhere)).captions == (("a", "b"),)  # two names of one file


@pytest.mark.parametrize(
    "name",
    [
        "http://127.0.0.1/x.png", "https://example.org/x.png", "HTTPS://example.org/x.png", "s3://bucket/x.png",
        "gs://bucket/x.png", "hf://datasets/a/b/x.png",
    ],
)  # fmt: skip
def test_a_local_source_names_nothing_remote_unasked(images: Path, name: str) -> None:
    for source in sources(images, name):
        message = fails(source)
        assert "is not on this machine" in message, source
        assert "remote=True" in message


@pytest.mark.parametrize(
    "name",
    ["ftp://h/x.png", "sftp://h/x.png", "memory://x.png", "github://a:b@main/x", "simplecache::file:///etc/passwd",
     "zip://x.png::file:///tmp/a.zip", "s3://b/x::file:///etc/passwd", "reference://x", "smb://h/x", "hdfs://h/x"],
)  # fmt: skip
def test_other_protocols_are_never_followed(images: Path, name: str) -> None:
    (images / "p.csv").write_text(f"image,caption\n0.png,a\n{name},b\n")
    for remote in (False, True):
        assert "must be one of https, http, s3, gs, gcs, hf" in fails(images / "p.csv", remote=remote)


def test_a_remote_source_reads_no_local_file(images: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/far/0.png", encoded(0))
    for name in (f"{images}/1.png", f"file://{images}/1.png", "../1.png", "a/../../1.png", "/etc/passwd"):
        memory.pipe("/far/p.csv", f"image,caption\n0.png,a\n{name},b\n".encode())
        assert "is outside the folder memory://far" in fails("memory://far/p.csv")
    memory.pipe("/far/p.csv", f"image,caption\n0.png,a\n{images}/1.png,b\n".encode())
    assert len(read("memory://far/p.csv?images=" + str(images))) == 2  # a folder that the user named
    memory.pipe("/far/m.json", json.dumps({"parts": [{"source": f"{images}/p.csv"}]}).encode())
    assert "a file of this machine; it may not" in fails("mix:memory://far/m.json")


def test_a_mixture_names_nothing_remote_unasked(images: Path) -> None:
    (images / "m.json").write_text(json.dumps({"parts": [{"source": "https://example.org/p.csv"}]}))
    assert "remote=True" in fails(f"mix:{images / 'm.json'}")


def test_a_huge_image_is_not_read(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with (images / "huge.png").open("wb") as file:
        file.truncate(3 << 30)  # takes no space
    (images / "p.csv").write_text("image,caption\n0.png,a\nhuge.png,b\n")
    assert "3,221,225,472 bytes, an image may have 536,870,912" in fails(images / "p.csv")
    monkeypatch.setattr(opening, "LARGEST_IMAGE", len(encoded(0)) - 1)
    assert "2 of 2 rows are bad" in fails(images / "p.csv")


@pytest.mark.parametrize(
    "name", ["x" * 300 + ".png", "x/" * 4000 + "x.png", "a\0b.png", ".", "..", "/", "~/x.png", "sub", "é" * 200]
)
def test_names_that_no_image_has(images: Path, name: str) -> None:
    (images / "sub").mkdir()
    (images / "p.jsonl").write_text(
        "\n".join(json.dumps({"image": n, "caption": "a"}) for n in ("0.png", "1.png", name))
    )
    message = fails(images / "p.jsonl")
    assert "1 of 3 rows is bad" in message
    assert "line 3" in message
    assert len(read(images / "p.jsonl", skip_bad=True)) == 2


@pytest.mark.parametrize(
    "name", ["x" * 300, "x/" * 4000, "a\0b", "a\0b.csv", "wds:a\0b", "hf:a\0b", "coco:a\0b.json", "wds:" + "x" * 300]
)
def test_sources_that_no_file_is_called(name: str) -> None:
    message = fails(name)
    assert "\0" not in message


def test_numbers_of_400_digits(images: Path) -> None:
    big, bigger = "9" * 400, "8" * 6000
    (images / "p.csv").write_text(f"image,label,split\n0.png,{big},{big}\n1.png,{bigger},{big}\n")
    assert read(images / "p.csv").class_names == (bigger, big)  # as texts
    for text in (big, bigger):
        (images / "m.json").write_text('{"parts": [{"source": "{here}/p.csv", "weight": N}]}'.replace("N", text))
        assert "m.json" in fails(f"mix:{images / 'm.json'}")
        assert fails(f"wds:{images}/{{0..{text}}}.tar")
        assert fails(f"wds:{images}/{{{text}..{text}}}.tar")
        (images / "test").mkdir(exist_ok=True)
        (images / "test" / "nshards.txt").write_text(text)
        assert "not a number of archives" in fails(f"wds:{images}?split=test")
        (images / "c.json").write_text(
            '{"images": [{"id": N, "file_name": "0.png"}], "annotations": [{"image_id": 1, "caption": N}]}'.replace(
                "N", text
            )
        )
        assert "c.json" in fails(f"coco:{images / 'c.json'}")


def test_a_cache_size_of_400_digits() -> None:
    from headwise.data.cache import parse_size

    with pytest.raises(HeadwiseError, match="is not a cache size"):
        parse_size("9" * 400 + "GB")


def test_damaged_looks_are_made_again_and_said(images: Path, cache: Path, caplog: pytest.LogCaptureFixture) -> None:
    (images / "p.csv").write_text("image,caption\n0.png,a\n1.png,b\n")
    looks = [image.look for image in read(images / "p.csv").images]
    (file,) = (cache / "checked").iterdir()
    whole = file.read_bytes()
    for place in (3, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(whole)
        damaged[place] ^= 4
        file.write_bytes(damaged)
        caplog.clear()
        assert [image.look for image in read(images / "p.csv").images] == looks
        assert "is damaged; they are decoded and looked at again" in caplog.text
        assert file.read_bytes() == whole
    caplog.clear()
    read(images / "p.csv")
    assert not caplog.text

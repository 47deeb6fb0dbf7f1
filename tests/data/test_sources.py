"""The field's formats, on files written as their authors write them."""

import base64
import json
from pathlib import Path

import fsspec
import pytest

from headwise.data.read import read
from headwise.data.splits import evaluation_part, split
from headwise.errors import HeadwiseError

from .conftest import bomb, encoded


def fails(source: object, **options: object) -> str:
    with pytest.raises(HeadwiseError) as found:
        read(source, **options)  # type: ignore
    return str(found.value)


def write_json(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


# ---- Karpathy


def karpathy_image(i: int, part: str, **more: object) -> dict:
    sentences = [{"raw": f"{i} is number {k}", "tokens": [], "imgid": i, "sentid": 5 * i + k} for k in range(2)]
    return {"filename": f"{i}.png", "imgid": i, "split": part, "sentences": sentences, **more}


def test_karpathy(images: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    (images / "val2014").mkdir()
    (images / "1.png").rename(images / "val2014" / "1.png")
    items = [karpathy_image(0, "train"), karpathy_image(1, "restval", filepath="val2014", cocoid=7)]
    items += [karpathy_image(2, "val"), karpathy_image(3, "test", filepath="not-there")]
    path = write_json(tmp_path_factory.mktemp("json") / "dataset.json", {"dataset": "coco", "images": items})
    pairs = read(f"karpathy:{path}?images={images}")
    assert pairs.splits == ("train", "train", "val", "test")
    assert pairs.captions[1] == ("1 is number 0", "1 is number 1")
    assert read(f"karpathy:{path}?images={images}&split=test").texts == ("3 is number 0", "3 is number 1")
    assert evaluation_part(pairs).ids == ("3.png",)
    assert "no split 'tset'. Its splits are: test, train, val" in fails(f"karpathy:{path}?images={images}&split=tset")


def test_karpathy_with_broken_parts(images: Path) -> None:
    items = [karpathy_image(0, "train"), {"sentences": []}, karpathy_image(99, "test"), "x"]
    items += [karpathy_image(1, "test", sentences=[]), karpathy_image(2, "test", sentences=[{"raw": " "}])]
    message = fails(f"karpathy:{write_json(images / 'd.json', {'images': items})}")
    assert "5 of 6 rows are bad" in message
    assert "image 1: no filename" in message
    assert "99.png does not exist" in message
    assert "there is no caption" in message
    whole = json.dumps({"images": items})
    (images / "cut.json").write_text(whole[: len(whole) // 2])
    assert "not JSON" in fails(f"karpathy:{images / 'cut.json'}")
    assert "no list 'images'" in fails(f"karpathy:{write_json(images / 'e.json', {'a': 1})}")
    assert "does not exist" in fails(f"karpathy:{images / 'none.json'}")


# ---- COCO captions


def test_coco(images: Path) -> None:
    data = {
        "images": [{"id": 10 + i, "file_name": f"{i}.png"} for i in range(3)],
        "annotations": [{"image_id": 10 + i % 3, "id": i, "caption": f"caption {i}\n"} for i in range(6)],
    }
    pairs = read(f"coco:{write_json(images / 'captions.json', data)}?images={images}")
    assert pairs.captions == tuple((f"caption {i}", f"caption {i + 3}") for i in range(3))


def test_coco_captions_and_images_must_match(images: Path) -> None:
    data = {
        "images": [{"id": 1, "file_name": "1.png"}, {"id": 2, "file_name": "2.png"}],
        "annotations": [{"image_id": 1, "caption": "a"}, {"image_id": 3, "caption": "b"}],
    }
    path = write_json(images / "captions.json", data)
    message = fails(f"coco:{path}")
    assert "a caption of image 3, which is not listed" in message
    assert "image 2.png has no caption" in message
    assert read(f"coco:{path}", skip_bad=True).skipped == 2


# ---- Flickr, CNA


def test_flickr_captions_with_commas_quoted_or_not(images: Path) -> None:
    lines = ['0.png,"Two dogs, one ball"', "0.png,A dog, running", '1.png,"He said ""hi"""', '1.png,an "odd" one']
    (images / "captions.txt").write_text("image,caption\n" + "\n".join(lines) + "\n")
    pairs = read(f"flickr:{images / 'captions.txt'}?images={images}")
    assert pairs.captions == (("Two dogs, one ball", "A dog, running"), ('He said "hi"', 'an "odd" one'))
    (images / "results.csv").write_text("image_name| comment_number| comment\n0.png| 0| Two dogs , one ball .\n")
    assert read(f"flickr:{images / 'results.csv'}").texts == ("Two dogs , one ball .",)
    (images / "bad.csv").write_text("image,caption\n0.png\n1.png,x\n")
    assert "line 2: no caption" in fails(f"flickr:{images / 'bad.csv'}")


def test_cna(images: Path) -> None:
    (images / "test.txt").write_text("0#0\t一只猫\n0#1\t猫 在 睡觉\n1.png#0\t狗\n", encoding="utf-8")
    pairs = read(f"cna:{images / 'test.txt'}?images={images}")
    assert pairs.captions == (("一只猫", "猫 在 睡觉"), ("狗",))
    (images / "bad.txt").write_text("0#0\t猫\nno number\n77#0\t狗\n", encoding="utf-8")
    message = fails(f"cna:{images / 'bad.txt'}?images={images}")
    assert "line 2: not of the form" in message
    assert "line 3: the image" in message


# ---- Chinese-CLIP


def chinese_clip(folder: Path, part: str, ids: list[int], texts: list[dict], urlsafe: bool = False) -> None:
    encode = base64.urlsafe_b64encode if urlsafe else base64.b64encode
    rows = [f"{i}\t{encode(encoded(i)).decode()}" for i in ids]
    (folder / f"{part}_imgs.tsv").write_text("\n".join(rows) + "\n")
    lines = [json.dumps({"text_id": k, **text}, ensure_ascii=False) for k, text in enumerate(texts)]
    (folder / f"{part}_texts.jsonl").write_text("\n".join(lines), encoding="utf-8")


@pytest.mark.parametrize("urlsafe", [True, False])
def test_chinese_clip_inverts_texts_of_several_images(tmp_path: Path, urlsafe: bool) -> None:
    texts = [{"text": "猫", "image_ids": [1, 2]}, {"text": "狗", "image_ids": [2]}]
    chinese_clip(tmp_path, "valid", [1, 2], texts, urlsafe)
    chinese_clip(tmp_path, "test", [3], [{"text": "鸟", "image_ids": [3]}])
    pairs = read(f"chinese-clip:{tmp_path}")
    assert pairs.captions == (("鸟",), ("猫",), ("猫", "狗"))
    assert pairs.splits == ("test", "valid", "valid")
    assert pairs.text_ids is not None
    assert pairs.text_ids[1][0] == pairs.text_ids[2][0]  # one text, two images
    assert pairs.text_count == 3
    assert pairs.subset([2, 0]).same is not None
    assert pairs.subset([2, 0]).same.tolist() == [0, 1, 2]
    assert pairs.images[1].read() == encoded(1)
    assert read(f"chinese-clip:{tmp_path}?split=test").texts == ("鸟",)
    assert "no split 'train'. Its splits are: test, valid" in fails(f"chinese-clip:{tmp_path}?split=train")


def test_chinese_clip_with_broken_parts(tmp_path: Path) -> None:
    texts = [{"text": "a", "image_ids": [1, 9]}, {"text": "b", "image_ids": []}, {"text": 5, "image_ids": [3]}]
    chinese_clip(tmp_path, "test", [1, 2, 3, 4], texts)
    with (tmp_path / "test_imgs.tsv").open("a") as file:
        file.write("5\tnot base64!\n1\tAAAA\nno tab\n6\t" + base64.b64encode(encoded(6)).decode()[:-40])
    with (tmp_path / "test_texts.jsonl").open("a") as file:
        file.write('\n{"text": "c", "image_ids": [5, 6]}\n{"text": "cut')
    message = fails(f"chinese-clip:{tmp_path}")
    for expected in [
        "line 5: the image is not valid base64",
        "line 6: image 1 is already in line 1",
        "line 7: not of the form",
        "line 8: truncated or broken image",
        "no text names image 2",
        "image 9 is not in test_imgs.tsv",
        "image_ids names no image",
        "the caption is 5",
        "line 5: not JSON",
    ]:
        assert expected in message, (expected, message)
    assert read(f"chinese-clip:{tmp_path}", skip_bad=True).texts == ("a",)
    (tmp_path / "test_texts.jsonl").unlink()
    assert "test_texts.jsonl does not exist" in fails(f"chinese-clip:{tmp_path}")
    assert "holds no {split}_imgs.tsv" in fails(f"chinese-clip:{tmp_path.parent}")


# ---- datasets


def test_hub_layout_and_saved_folders(images: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    from datasets import Dataset, DatasetDict, Image

    rows = [{"image": str(images / f"{i}.png"), "raw": [f"{i}", f"no {i}"], "filename": f"{i}.jpg"} for i in range(4)]
    dataset = Dataset.from_list(rows).cast_column("image", Image())
    hub = tmp_path_factory.mktemp("hub")
    (hub / "data").mkdir()
    dataset.to_parquet(hub / "data" / "test-00000-of-00001.parquet")
    pairs = read(f"hf:{hub}?split=test&image=image&captions=raw&images={images}")
    assert pairs.captions[2] == ("2", "no 2")
    saved = tmp_path_factory.mktemp("saved")
    DatasetDict({"train": dataset.select([0, 1]), "test": dataset.select([2, 3])}).save_to_disk(saved / "both")
    dataset.save_to_disk(saved / "one")
    assert read(saved / "one").hash == pairs.hash
    both = read(saved / "both")
    assert both.splits == ("train", "train", "test", "test")
    assert both.hash == pairs.hash
    assert read(f"{saved / 'both'}?split=test").texts == ("2", "no 2", "3", "no 3")
    assert "no split 'val'" in fails(f"{saved / 'both'}?split=val")
    assert "no column 'picture' for the image" in fails(f"hf:{hub}?image=picture")


def test_class_labels_keep_their_names(images: Path) -> None:
    from datasets import ClassLabel, Dataset, Features, Image

    features = Features(image=Image(), label=ClassLabel(names=["cat", "dog"]))
    rows = {"image": [str(images / f"{i}.png") for i in range(3)], "label": [1, 0, 1]}
    pairs = read(Dataset.from_dict(rows, features=features))
    assert pairs.class_names == ("cat", "dog")
    assert pairs.labels == (1, 0, 1)


def test_a_hub_that_cannot_be_reached_is_said() -> None:
    assert "the data set cannot be read from the" in fails("hf:nobody/nothing-at-all?split=test")


# ---- names


def test_options_may_follow_any_name(images: Path) -> None:
    (images / "p.csv").write_text("a,b,split\n0.png,x,train\n1.png,y,test\n")
    assert read(f"{images / 'p.csv'}?image=a&caption=b&split=test").texts == ("y",)
    assert "unknown option 'colour'" in fails(f"{images / 'p.csv'}?colour=red")


def test_unknown_kinds_and_empty_names() -> None:
    message = fails("karpaty:x.json")
    assert "'karpaty' is not a kind of source" in message
    assert "karpathy:dataset_coco.json?images=DIR" in message
    assert "names no file" in fails("coco:")
    for kind in ("", "coco:", "chinese-clip:", "cola:", "mix:"):  # longer than any file's name
        assert "x" * 5000 in fails(f"{kind}{'x' * 5000}.csv")


def test_remote_files_through_fsspec() -> None:
    memory = fsspec.filesystem("memory")
    for i in range(2):
        memory.pipe(f"/bucket/{i}.png", encoded(i))
    memory.pipe("/bucket/p.csv", b"image,caption\n0.png,a\nmemory://bucket/1.png,b\n")
    pairs = read("memory://bucket/p.csv")
    assert pairs.texts == ("a", "b")
    assert pairs.images[1].read() == encoded(1)
    assert "cannot be read" in fails("memory://bucket/none.csv")
    assert "Protocol not known: nowhere" in fails("nowhere://bucket/p.csv")
    memory.pipe("/bucket/q.csv", b"image,caption\n0.png,a\n7.png,b\n")
    assert "memory://bucket/7.png does not exist" in fails("memory://bucket/q.csv")


def test_local_files_by_url(images: Path) -> None:
    (images / "p.csv").write_text("image,caption\n0.png,x\n1.png,y\n")
    assert read(f"file://{images}/p.csv").texts == ("x", "y")


def test_many_rows_with_one_broken(images: Path) -> None:
    (images / "bomb.png").write_bytes(bomb())
    lines = [f"{i % 10}.png,caption {i}" for i in range(120_000)]
    lines[112_345] = "bomb.png,boom"
    (images / "p.csv").write_text("image,caption\n" + "\n".join(lines) + "\n")
    message = fails(images / "p.csv")
    assert "1 of 120,000 rows is bad" in message
    assert "line 112347:" in message
    pairs = read(images / "p.csv", skip_bad=True)
    assert len(pairs) == 10
    assert len(pairs.texts) == 119_999


def test_splits_follow_the_source(images: Path) -> None:
    items = [karpathy_image(i, ["train", "val", "test"][i % 3]) for i in range(9)]
    pairs = read(f"karpathy:{write_json(images / 'd.json', {'images': items})}")
    assert split(pairs).test == (2, 5, 8)


# ---- folders


def place(images: Path, names: list[str]) -> None:
    for i, name in enumerate(names):
        (images / name).parent.mkdir(parents=True, exist_ok=True)
        (images / f"{i}.png").rename(images / name)
    for path in images.glob("?.png"):
        if path.name not in names:
            path.unlink()


def test_a_folder_for_each_class(images: Path) -> None:
    place(images, ["cat/1.png", "dog/deep/1.png", "cat/2.png", "zebra fish/1.png"])
    pairs = read(images)
    assert pairs.class_names == ("cat", "dog", "zebra fish")
    assert pairs.ids == ("cat/1.png", "cat/2.png", "dog/deep/1.png", "zebra fish/1.png")
    assert pairs.labels == (0, 0, 1, 2)
    assert pairs.splits is None


def test_a_folder_for_each_split_and_class(images: Path) -> None:
    place(images, ["train/cat/1.png", "train/dog/1.png", "Validation/cat/2.png", "test/dog/1.png"])
    pairs = read(images)
    assert pairs.class_names == ("cat", "dog")
    assert dict(zip(pairs.ids, pairs.splits or (), strict=True)) == {
        "Validation/cat/2.png": "Validation", "test/dog/1.png": "test", "train/cat/1.png": "train",
        "train/dog/1.png": "train",
    }  # fmt: skip
    assert [pairs.class_names[label] for label in pairs.labels or ()] == ["cat", "dog", "cat", "dog"]
    assert evaluation_part(pairs).ids == ("test/dog/1.png",)


@pytest.mark.parametrize("names", [["cat/1.png", "cat/2.png"], ["cat/1.png", "b.png"]])
def test_folders_that_are_no_classes(images: Path, names: list[str]) -> None:
    place(images, names)
    assert "images but no captions" in fails(images)


def test_texts_beside_images_part_at_line_feeds_alone(images: Path) -> None:
    text = "one\u2028two\u0085three"
    for i in range(10):
        (images / f"{i}.txt").write_bytes(f"\ufeff{text}\r\n\nsecond\n \n\n".encode())
    assert read(images).captions == ((text, "second"),) * 10

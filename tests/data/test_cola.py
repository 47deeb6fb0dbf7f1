"""Cola's two files, as its authors publish them."""

import json
from pathlib import Path

import pytest

from headwise.data.check import check
from headwise.data.pairs import drawn
from headwise.data.read import read
from headwise.data.splits import split
from headwise.errors import HeadwiseError

from .conftest import encoded


def write(path: Path, value: object) -> str:
    path.write_text(json.dumps(value))
    return f"cola:{path}"


def fails(source: str, **options: bool) -> str:
    with pytest.raises(HeadwiseError) as caught:
        read(source, **options)
    return str(caught.value)


def test_multi_object(images: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    url = "https://cs-people.bu.edu/array/data/vg_gqa_images"
    data = [[f"{url}/{2 * i}.png", f"red {i} on blue", f"{url}/{2 * i + 1}.png", f"blue {i} on red"] for i in range(5)]
    data[4][0] = f"{url}/0.png"  # the same picture in two pairs is an image of each
    source = write(tmp_path_factory.mktemp("cola") / "multi.json", data)
    pairs = read(f"{source}?images={images}")
    assert (pairs.kind, len(pairs)) == ("cola_multi_object", 10)
    assert pairs.captions[:2] == (("red 0 on blue",), ("blue 0 on red",))
    assert pairs.groups == tuple(str(i // 2) for i in range(10))
    assert pairs.images[8].hash == pairs.images[0].hash
    report = check(f"{source}?images={images}")
    assert (report.images, report.captions, report.ok) == (10, 10, True)


def test_pairs_stay_together(images: Path) -> None:
    data = [[f"{2 * i}.png", "a", f"{2 * i + 1}.png", "b"] for i in range(5)]
    splits = split(read(write(images / "multi.json", data)))
    for part in (splits.search, splits.pick, splits.test):
        assert {i ^ 1 for i in part} == set(part)
    assert splits.how.startswith("by group")


@pytest.mark.parametrize("by", ["auto", "image", "group"])
def test_no_way_of_splitting_parts_a_pair(images: Path, by: str) -> None:
    data = [[f"{2 * i}.png", "a", f"{2 * i + 1}.png", "b"] for i in range(5)]
    splits = split(read(write(images / "multi.json", data)), by=by)
    for part in (splits.search, splits.pick, splits.test):
        assert {i ^ 1 for i in part} == set(part)


def test_a_mixture_leaves_out_whole_pairs(images: Path) -> None:
    """Pictures that another part has on another side are left out, and their partners with them."""
    data = [[f"{2 * i}.png", "a", f"{2 * i + 1}.png", "b"] for i in range(5)]
    write(images / "multi.json", data)
    (images / "more").mkdir()
    for i in range(20, 40):
        (images / "more" / f"{i}.png").write_bytes(encoded(i))
    rows = [f"{i}.png,text {i}" for i in (0, 4)] + [f"more/{i}.png,more {i}" for i in range(20, 40)]
    (images / "pairs.csv").write_text("image,caption\n" + "\n".join(rows) + "\n")
    parts = [{"source": "cola:{here}/multi.json"}, {"source": "{here}/pairs.csv"}]
    (images / "mix.json").write_text(json.dumps({"parts": parts}))
    mixed, lost = read(f"mix:{images / 'mix.json'}"), 0
    for seed in range(8):
        splits = split(mixed, seed=seed)
        for name in ("search", "pick", "test"):
            own = mixed.by_part(getattr(splits, name))[0][1]
            assert {i ^ 1 for i in own} == set(own)
            lost -= len(own)
    assert lost > -10 * 8  # some were left out


def test_pairs_are_drawn_whole(images: Path) -> None:
    data = [[f"{2 * i}.png", "a", f"{2 * i + 1}.png", "b"] for i in range(5)]
    pairs = read(write(images / "multi.json", data))
    for most, count in ((1, 2), (2, 2), (3, 2), (5, 4), (10, 10), (1000, 10)):
        found = drawn(pairs, range(10), most)
        assert len(set(found)) == len(found) == count
        assert {i ^ 1 for i in found} == set(found)
    assert drawn(pairs, (2, 3, 6, 7), 3) in ([2, 3], [3, 2], [6, 7], [7, 6])


def test_half_a_pair_is_none(images: Path) -> None:
    data = [["0.png", "a", "1.png", "b"], ["2.png", "c", "gone.png", "d"], ["4.png", "", "5.png", "f"], ["6.png", "g"]]
    source = write(images / "multi.json", data)
    message = fails(source)
    assert "5 of 7 rows are bad" in message
    assert "pair 1, image 2: the image" in message
    assert "pair 1, image 1: the other image of its pair is bad" in message
    assert "pair 2, image 1: the caption is empty" in message
    assert "pair 3: not of the form [image 1, caption 1" in message
    assert read(source, skip_bad=True).texts == ("a", "b")


@pytest.mark.parametrize("form", ["object", "list"])
def test_single_object(images: Path, form: str) -> None:
    queries = ["square white plate", "red cup"]
    rows = [
        ["0.png", {"plate": ["white"]}, [1, 0], [1, 1]],
        ["sub/1.png", {}, [0, 1], [0, 1]],
        ["2.png", [0, 0], [1, 0]],
    ]
    source = write(images / "one.json", {"labels": queries, "data": rows} if form == "object" else [queries, rows])
    pairs = read(f"{source}?images={images}")  # sub/1.png is found by its last name; the third row is PACO's form
    assert pairs.kind == "cola_single_object"
    assert pairs.class_names == tuple(queries)
    assert pairs.present == ((0,), (1,), ())
    assert pairs.counted == ((0, 1), (1,), (0,))
    assert pairs.subset([1]).counted == ((1,),)
    assert (
        pairs.hash
        != read(write(images / "b.json", [queries, [*rows[:2], ["2.png", [0, 0], [1, 1]]]]) + f"?images={images}").hash
    )


def test_broken_files(images: Path) -> None:
    rows = [
        ["0.png", {}, [1, 0], [1, 1]],
        ["1.png", {}, [1], [1, 1]],
        ["2.png", {}, [1, 2], [1, 1]],
        ["3.png"],
        [4, 0, 0],
    ]
    message = fails(write(images / "one.json", {"labels": ["a", "b"], "data": rows}))
    assert "4 of 5 rows are bad" in message
    assert "image 1: label and hard_list must hold a 0 or 1 for each of the 2 queries" in message
    assert "image 3: not of the form [image, annotation, label, hard_list]" in message
    assert "appears twice" in fails(write(images / "t.json", {"labels": ["a", "a"], "data": rows}))
    assert "neither Cola's list" in fails(write(images / "o.json", {"images": []}))
    assert "does not exist" in fails(f"cola:{images / 'no.json'}")
    (images / "cut.json").write_text('[["0.png", "a"')
    assert "not JSON" in fails(f"cola:{images / 'cut.json'}")

"""Several sources as one: what each part keeps, and what is refused."""

import json
from pathlib import Path

import pytest

from headwise.data.check import check
from headwise.data.pairs import Pairs, drawn
from headwise.data.read import read
from headwise.data.splits import evaluation_part, split
from headwise.errors import HeadwiseError

from .conftest import encoded


@pytest.fixture
def mixture(images: Path) -> Path:
    """A source of captions (0-9), one of labels with given splits (20-31)."""
    (images / "more").mkdir()
    for i in range(20, 32):
        (images / "more" / f"{i}.png").write_bytes(encoded(i))
    (images / "pairs.csv").write_text("image,title\n" + "".join(f"{i}.png,text {i}\n" for i in range(10)))
    rows = [f"{i}.png,{'cat' if i % 2 else 'dog'},{('train', 'val', 'test')[i // 2 % 3]}" for i in range(20, 32)]
    (images / "more" / "birds.csv").write_text("image,label,split\n" + "\n".join(rows) + "\n")
    return write(
        images, {"source": "{here}/pairs.csv", "caption": "title", "weight": 3}, {"source": "{here}/more/birds.csv"}
    )


def write(folder: Path, *parts: object) -> Path:
    path = folder / "mix.json"
    path.write_text(json.dumps({"parts": parts}))
    return path


def fails(path: Path, **options: str) -> str:
    with pytest.raises(HeadwiseError) as caught:
        read(f"mix:{path}", **options)
    return str(caught.value)


def test_parts_are_joined_in_order(mixture: Path) -> None:
    pairs = read(f"mix:{mixture}")
    assert isinstance(pairs, Pairs)
    assert [(part.name, part.weight, len(part.pairs)) for part in pairs.parts] == [
        ("pairs", 3.0, 10),
        ("birds", 1.0, 12),
    ]
    assert len(pairs) == 22
    assert pairs.ids[10] == "birds/20.png"
    assert pairs.text_count == 10
    assert pairs.subset([1, 12]).parts[1].pairs.ids == ("22.png",)
    tested = evaluation_part(pairs)
    assert tested.ids[10:] == tuple(f"birds/{i}.png" for i in range(20, 32) if i // 2 % 3 == 2)


def test_every_part_keeps_its_own_splits(mixture: Path) -> None:
    pairs = read(f"mix:{mixture}")
    splits = split(pairs)
    assert splits.how.startswith("pairs: by image")
    assert "birds: as given" in splits.how
    alone = split(pairs.parts[0].pairs)
    for name in ("search", "pick", "test"):
        mine = dict(zip(("pairs", "birds"), (own for _, own in pairs.by_part(getattr(splits, name))), strict=True))
        assert tuple(mine["pairs"]) == getattr(alone, name)
        given = {pairs.parts[1].pairs.splits[i] for i in mine["birds"]}
        assert given == {{"search": "train", "pick": "val"}.get(name, name)}


def test_every_part_has_its_share_of_what_is_drawn(mixture: Path) -> None:
    pairs = read(f"mix:{mixture}")
    for most, counts in ((2, (2, 2)), (11, (5, 6)), (22, (10, 12))):
        found = drawn(pairs, range(22), most)
        assert tuple(len(own) for _, own in pairs.by_part(found)) == counts
        assert len(set(found)) == len(found)
    assert set(drawn(pairs, [1, 4, 15], 1)) == {1, 4, 15}


def test_an_image_that_another_part_tests_on_is_left_out(images: Path) -> None:
    for name, sides in (
        ("a", "train train train val val test test test"),
        ("b", "test train train val val test test train"),
    ):
        rows = "".join(f"{i}.png,{name} {i},{side}\n" for i, side in enumerate(sides.split()))
        (images / f"{name}.csv").write_text("image,caption,split\n" + rows)
    pairs = read(f"mix:{write(images, {'source': '{here}/a.csv'}, {'source': '{here}/b.csv'})}")
    splits = split(pairs)
    assert 0 not in splits.search  # b tests on it
    assert 8 + 7 not in splits.search  # a tests on it
    assert splits.search == (1, 2, 9, 10)
    assert "2 images left out that another part tests on" in splits.how


def test_check_reports_all_parts(mixture: Path, images: Path) -> None:
    (images / "3.png").write_bytes(b"broken")
    report = check(f"mix:{mixture}")
    assert (report.images, report.captions, len(report.bad)) == (21, 9, 1)
    assert report.classes == {"birds/cat": 6, "birds/dog": 6}
    assert ("birds/20.png", ("dog",)) in report.samples


def test_bad_files(images: Path, mixture: Path) -> None:
    good = {"source": "{here}/pairs.csv", "caption": "title"}
    assert "must hold" in fails(write(images))
    assert "part 1: unknown key 'wieght'" in fails(write(images, {**good, "wieght": 1}))
    assert "weight is 0" in fails(write(images, {**good, "weight": 0}))
    assert "caption is 3; a text is needed" in fails(write(images, {**good, "caption": 3}))
    assert "names no source" in fails(write(images, {"name": "x"}))
    assert "two parts are called 'pairs'" in fails(write(images, good, good))
    assert "is a mixture itself" in fails(write(images, {"source": "mix:other.json"}))
    assert "name columns and folders in the file" in fails(write(images, good), caption="title")
    assert "no column 'titel'" in fails(write(images, {**good, "caption": "titel"}))
    assert "does not exist" in fails(images / "none.json")

"""Splits: disjoint, reproducible, never the same picture on two sides."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.data.look import look_of
from headwise.data.pairs import ImageRef, Pairs, hash_bytes
from headwise.data.read import read
from headwise.data.splits import Splits, split
from headwise.errors import HeadwiseError
from headwise.wording import command_line

from .conftest import picture


def pairs_of(contents: list[int], **columns: object) -> Pairs:
    """Pairs whose images are known by a number; equal numbers are equal images."""
    images = []
    for i, content in enumerate(contents):
        data = str(content).encode()
        images.append(ImageRef(f"row {i}", data.__str__, hash_bytes(data)))  # type: ignore
    ids = tuple(map(str, range(len(contents))))
    return Pairs("test", tuple(images), (("x",),) * len(contents), ids, **columns)  # type: ignore


def parts(found: Splits) -> list[tuple[int, ...]]:
    return [found.search, found.pick, found.test]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 200), min_size=20, max_size=60), st.integers(0, 5), st.integers(0, 9))
def test_disjoint_complete_and_copies_together(contents: list[int], copies: int, seed: int) -> None:
    contents = list(dict.fromkeys(contents))
    if len(contents) < 8:
        return
    contents += contents[:copies]
    found = split(pairs_of(contents), seed=seed)
    assert sorted(i for part in parts(found) for i in part) == list(range(len(contents)))
    sides = [{contents[i] for i in part} for part in parts(found)]
    assert sum(map(len, sides)) == len(set(contents))


def test_independent_of_order_but_not_of_seed() -> None:
    contents = list(range(100))
    found, mixed = split(pairs_of(contents)), split(pairs_of(contents[::-1]))
    assert found.hash == mixed.hash
    assert {contents[i] for i in found.test} == {contents[::-1][i] for i in mixed.test}
    assert [len(part) for part in parts(found)] == [50, 20, 30]
    assert split(pairs_of(contents), seed=1).hash != found.hash


def test_groups_never_straddle() -> None:
    groups = tuple(f"concept {i % 17}" for i in range(100))
    found = split(pairs_of(list(range(100)), groups=groups))
    assert "by group" in found.how
    sides = [{groups[i] for i in part} for part in parts(found)]
    assert sum(map(len, sides)) == 17


def test_pictures_that_look_the_same_stay_together(tmp_path: Path) -> None:
    rows = []
    for i in range(24):
        picture(i // 2, (40, 30) if i % 2 else (64, 48)).save(tmp_path / f"{i}.jpg", quality=80 + 10 * (i % 2))
        rows.append((str(tmp_path / f"{i}.jpg"), str(i)))
    pairs = read(rows)
    assert len({image.hash for image in pairs.images}) == 24
    for part in parts(split(pairs)):
        assert sorted(i ^ 1 for i in part) == list(part)
    loose = [sorted(i ^ 1 for i in part) == list(part) for part in parts(split(pairs, near_duplicates=False))]
    assert not all(loose)


def test_looks_are_far_apart_for_different_pictures() -> None:
    from headwise.data.neardup import near_duplicates

    assert not list(near_duplicates([look_of(picture(i)) for i in range(300)]))


def test_given_names() -> None:
    names = ("train", "restval", "val", "val", "test", "test")
    found = split(pairs_of(list(range(6)), splits=names))
    assert parts(found) == [(0, 1), (2, 3), (4, 5)]
    assert "restval → search" in found.how


def test_without_a_validation_part_pick_comes_from_search() -> None:
    names = ("train",) * 20 + ("test",) * 5
    found = split(pairs_of(list(range(25)), splits=names))
    assert found.test == tuple(range(20, 25))
    assert len(found.pick) == 6
    assert set(found.search) | set(found.pick) == set(range(20))


@pytest.mark.parametrize("word", ["train", "val"])
def test_one_split_name_is_no_split(word: str) -> None:
    found = split(pairs_of(list(range(10)), splits=(word,) * 10))
    assert "by image" in found.how
    assert f"the split column ({word}) is not used" in found.how


@pytest.mark.parametrize("word", ["test", "Test", "holdout", "held-out", "test2014", "hold_out", "2"])
def test_images_that_are_all_for_testing_are_not_searched(word: str) -> None:
    pairs = pairs_of(list(range(10)), splits=(word,) * 10)
    message = fails(pairs)
    assert f"says {word} of every image" in message
    assert "split_by=image" in message
    with command_line():
        assert "--split-by image" in fails(pairs)
    insisted = split(pairs, by="image")
    assert f"the split column ({word}) is not used" in insisted.how
    assert len(insisted.search) == 5


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Training", "dev", "Hold-Out"), ("search", "pick", "test")),
        (("train2014", "val2014", "test2014"), ("search", "pick", "test")),
        (("train_set", "validation_set", "test_set"), ("search", "pick", "test")),
        ((" TRAIN ", "valid", "testing"), ("search", "pick", "test")),
        (("0", "1", "2"), ("search", "pick", "test")),
    ],
)
def test_words_that_people_use(names: tuple[str, ...], expected: tuple[str, ...]) -> None:
    found = split(pairs_of(list(range(9)), splits=names * 3))
    for i, part in enumerate(expected):
        assert getattr(found, part) == (i, i + 3, i + 6)
        assert f"{names[i]} → {part}" in found.how


@pytest.mark.parametrize("word", ["foo", "eval", "true", "trainer", "contest", "3", "", "testimony"])
def test_words_that_nobody_knows_are_refused(word: str) -> None:
    for others in (("train", "test"), ("train",), ("test",), ()):
        pairs = pairs_of(list(range(12)), splits=((word, *others) * 12)[:12])
        assert f"unknown split {word!r}" in fails(pairs)
        assert "split_by=image" in fails(pairs)
        assert split(pairs, by="image").search


def test_without_a_test_part_the_validation_images_are_never_searched() -> None:
    names = ("train",) * 14 + ("val",) * 6
    found = split(pairs_of(list(range(20)), splits=names))
    assert found.test == tuple(range(14, 20))
    assert sorted([*found.search, *found.pick]) == list(range(14))
    assert "validation images are the test split" in found.how


def test_without_a_training_part_the_test_images_are_never_searched() -> None:
    names = ("val",) * 14 + ("holdout",) * 6
    found = split(pairs_of(list(range(20)), splits=names))
    assert found.test == tuple(range(14, 20))
    assert sorted([*found.search, *found.pick]) == list(range(14))
    assert min(len(found.search), len(found.pick)) >= 2
    assert "search taken from the validation images" in found.how


def test_printing_splits_and_pairs_is_short() -> None:
    names = ("train", "val", "test", "x" * 5000) * 500
    pairs = pairs_of(list(range(2000)), splits=names, groups=tuple(map(str, range(2000))))
    assert len(repr(pairs)) < 300
    assert "2,000 images" in repr(pairs)
    assert "2,000 groups" in repr(pairs)
    assert len(repr(split(pairs_of(list(range(2000)))))) < 300
    assert len(repr(pairs.images[0])) < 200


def fails(pairs: Pairs, **options: object) -> str:
    with pytest.raises(HeadwiseError) as found:
        split(pairs, **options)  # type: ignore
    return str(found.value)


def test_an_image_in_two_given_splits() -> None:
    names = ("train", "train", "val", "val", "test", "test")
    message = fails(pairs_of([0, 1, 2, 3, 0, 5], splits=names))
    assert "1 images are in two splits" in message
    assert "row 0 (train) = row 4 (test)" in message


def test_too_few() -> None:
    assert "1 image; search / pick / test need at least 2 each, 6 together" in fails(pairs_of([1]))
    assert "5 images" in fails(pairs_of(list(range(5))))
    assert "the test split has 1" in fails(pairs_of(list(range(5)), splits=("train", "train", "val", "val", "test")))
    assert "the pick split has 0" in fails(pairs_of(list(range(9)), groups=("one",) * 9))


def test_unknown_names() -> None:
    assert "row 1: unknown split 'foo'" in fails(pairs_of([0, 1], splits=("train", "foo")))
    assert "no split column" in fails(pairs_of([0, 1]), by="given")
    assert "no group column" in fails(pairs_of([0, 1]), by="group")
    assert "Use auto, given, group or image" in fails(pairs_of([0, 1]), by="size")
    assert "three positive numbers" in fails(pairs_of([0, 1]), fractions=(1, 0, 1))

"""The recipe of the demo's data, and the pairs it made that are in this repository."""

import importlib
import io
import json
import struct
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes/demo"
PAIRS = ROOT / "headwise/demo/pairs"


def load(module: str):
    """A module of the recipe, whose scripts import one another by bare name."""
    sys.path.insert(0, str(RECIPE))
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(str(RECIPE))


names, icons, selection = load("names"), load("icon_records"), load("pair_selection")
splits, deduplication, photos, rendering = load("splits"), load("deduplicate"), load("photo_records"), load("rendering")
common = load("common")

RECORD = common.Record(
    set="tabler",
    name="cat",
    captions=["cat"],
    keywords=[],
    i18n={},
    concept="cat",
    hexcode=None,
    skin=False,
    licence="MIT",
    author="someone",
    category="",
    subcategory="",
    coarse=None,
    kind="icon",
    palette=False,
)


def picture(name: str, captions: list[str], keywords: tuple[str, ...] = (), **fields) -> dict:
    given_fields = {"concept": name, "category": "objects", "set": "a", "idx": 0} | fields
    return {"name": name, "captions": captions, "keywords": list(keywords), **given_fields}


@pytest.mark.parametrize(
    ("name", "siblings", "expected"),
    [
        ("battery-charging-filled", (), "battery-charging"),
        ("account-two-tone", (), "account"),
        ("sun-bold", ("sun", "sun-bold"), "sun"),
        ("face-bold", ("face-bold",), "face-bold"),  # "bold" is a style only beside the name without it
        ("arrow-24", (), "arrow"),
        ("dice-3", (), "dice-3"),  # the number is what is drawn
        ("calendar-2-outline", (), "calendar"),
        ("sofa3", (), "sofa"),
        ("html5", (), "html5"),
    ],
)
def test_a_name_loses_its_style_and_keeps_what_is_drawn(name, siblings, expected):
    assert names.split_style(name, (), (), siblings)[0] == expected


def test_declared_suffixes_and_prefixes_are_styles():
    assert names.split_style("baseline-pets-sharp", ["sharp"], ["baseline"]) == ("pets", "baseline-sharp")


@given(st.lists(st.text(max_size=12)))
def test_unique_texts_have_no_repeats_and_stay_so(texts):
    once = names.unique(texts)
    assert names.unique(once) == once
    assert len({text.lower() for text in once}) == len(once)
    assert all(text == text.strip() and text for text in once)


def test_spellings_of_one_name_meet():
    assert names.squash("Crème brûlée!") == names.squash("creme-brulee") == "cremebrulee"
    assert names.slug("Women’s Hat (red)") == "womens-hat-red"
    assert names.clean_title("<b>Big_cat</b> clip art") == "Big cat"


def test_sizes_of_one_style_count_once_and_styles_are_limited():
    variants = [
        ("cat-16", "16"),
        ("cat-24", "24"),
        ("cat-filled", "filled"),
        ("cat-line", "line"),
        ("cat-x", "twotone"),
    ]
    assert icons.choose_styles(variants, 5)[0] == "cat-24"
    assert icons.choose_styles(variants, 2) == ["cat-24", "cat-filled"]


def test_captions_have_one_right_picture():
    rows = [
        picture("cat", ["cat", "kitty"], ["pet", "whiskers"]),
        picture("cat-face", ["cat face", "cat", "Cat Face", "cat2"], ["pet"]),
        picture("ok-hand", ["OK hand"], ["dope"], category="people-body"),
    ]
    assert selection.unambiguous_captions(rows) == [
        ["cat", "kitty", "whiskers"],
        ["cat face"],  # "cat" is another picture's name, "cat2" a short code, "pet" fits two
        ["OK hand"],  # keywords of gestures are slang
    ]


def test_two_pictures_of_one_name_are_not_told_apart_by_it():
    rows = [picture("a", ["bank"], ["river"]), picture("b", ["Bank"])]
    assert selection.unambiguous_captions(rows) == [["river"], []]


@given(st.lists(st.text(alphabet=" aAbB\t", max_size=4)))
def test_captions_are_clean(texts):
    captions = selection.clean_captions(texts)
    assert all(caption.strip() == caption != "" for caption in captions)
    assert len({caption.lower() for caption in captions}) == len(captions)


@given(st.permutations(range(12)), st.integers(1, 6))
def test_one_picture_per_concept_whatever_the_order(order, limit):
    rows = [picture(f"p{i}", ["x"], concept=f"c{i % 5}", idx=i) for i in range(12)]
    chosen = selection.one_per_concept([rows[i] for i in order], limit)
    assert chosen == selection.one_per_concept(rows, limit)
    assert len(chosen) == len({row["concept"] for row in chosen}) == min(limit, 5)


def test_a_picture_named_as_its_concept_is_preferred():
    rows = [picture(name, ["mobile phone"], concept="mobile-phone") for name in ("android", "mobile-phone", "iphone")]
    assert [row["name"] for row in selection.one_per_concept(rows, 9)] == ["mobile-phone"]


def test_rules_say_how_many_pictures_they_removed():
    rule = selection.Rule("caption", "^flag: ", "flags")
    kept, dropped = selection.drop_by_rules([picture("x", ["flag: Chad"]), picture("y", ["cat"])], [rule])
    assert [row["name"] for row in kept] == ["y"]
    assert dropped == {"flags": 1}


def test_a_concept_decides_the_split_and_shares_are_as_said():
    parts = [selection.split_of(f"concept-{i}", False) for i in range(4000)]
    assert 0.27 < parts.count("pick") / len(parts) < 0.33
    assert set(parts) == {"pick", "search"}
    assert selection.split_of("concept-1", True) == "test"


@given(st.text(min_size=1))
def test_a_concept_is_on_one_side_in_every_target(concept):
    sides = {
        splits.split_of(replace(RECORD, concept=concept, set=icon_set)).rpartition("_")[2]
        for icon_set in ("noto", "openmoji", "memory", "openclipart", "gcompris", "pepicons-pencil")
    }
    assert sides in ({"select"}, {"test"})


def test_training_never_holds_a_target_set():
    targets = {name for sets in common.sources()["targets"].values() for name in sets}
    assert all(splits.split_of(replace(RECORD, set=name)).startswith("target_") for name in targets)


def test_permissive_training_split_has_no_share_alike():
    records = {i: replace(RECORD, name=f"i{i}", licence=x) for i, x in enumerate(["MIT", "CC-BY-SA-4.0", "CC-BY-4.0"])}
    made = splits.make_splits(records)
    assert made["pretrain"] == [0, 1, 2]
    assert made["pretrain_permissive"] == [0]


def dedupe(records, pictures):
    return deduplication.deduplicate(records, np.ones(len(records), bool), deduplication.digest(np.stack(pictures)))


def test_of_equal_pictures_the_target_stays_and_blanks_go():
    drawing = np.full((64, 64, 3), 255, np.uint8)
    drawing[10:40, 10:40] = 0
    near = drawing.copy()
    near[10, 10] = 255
    records = [RECORD, replace(RECORD, set="openmoji", kind="emoji"), replace(RECORD, set="lucide", name="blank")]
    kept, dropped = dedupe(records, [near, drawing, np.full_like(drawing, 255)])
    assert list(kept) == [1]
    assert dropped["near-duplicate of a openmoji image (leak)"] == 1
    assert dropped["blank or nearly blank"] == 1


def test_an_identical_picture_hands_on_its_labels():
    drawing = np.zeros((64, 64, 3), np.uint8)
    kept, _ = dedupe([RECORD, replace(RECORD, set="lucide", captions=["kitty"])], [drawing, drawing])
    assert [record.captions for record in kept.values()] == [["cat", "kitty"]]


def test_the_last_licence_rule_that_fits_a_file_decides():
    text = (
        "Files: *\nCopyright: A\nLicense: GPL-3+\n\nFiles: src/activities/x/cat.jpg\nCopyright: B\nLicense: CC0-1.0\n"
    )
    rules = photos.licence_rules(text)
    assert photos._licence("src/activities/x/cat.webp", rules) == ("CC0-1.0", "B")
    assert photos._licence("src/dog.png", rules) == ("GPL-3+", "A")


def test_a_qt_archive_gives_its_files(tmp_path):
    def named(name: str) -> bytes:
        return struct.pack(">HI", len(name), 0) + name.encode("utf-16-be")

    contents = struct.pack(">I", 3) + b"cat"
    tree = struct.pack(">IHII", 0, 2, 1, 1) + struct.pack(">IHII", 0, 0, 0, 0)  # root with one file
    header = struct.pack(">4sIIII", b"qres", 1, 20, 20 + len(tree), 20 + len(tree) + len(contents))
    path = tmp_path / "a.rcc"
    path.write_bytes(header + tree + contents + named("cat.png"))
    assert photos.read_rcc(path) == {"/cat.png": b"cat"}
    path.write_bytes(b"<html>")
    with pytest.raises(common.HeadwiseError, match=r"a\.rcc is not a Qt resource archive"):
        photos.read_rcc(path)


def test_a_picture_of_any_shape_is_fitted_on_a_white_square():
    image = Image.new("RGBA", (300, 100), (0, 0, 0, 0))
    image.paste((255, 0, 0, 255), (50, 20, 250, 70))
    square = rendering.fit(image)
    assert square.shape == (64, 64, 3)
    inked = np.argwhere((square < 250).any(2))
    assert inked[:, 1].min() == rendering.MARGIN
    assert inked[:, 1].max() == 63 - rendering.MARGIN
    assert (square[0] == 255).all()


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return pq.read_table(PAIRS / "pairs.parquet").to_pylist()


def test_packaged_pairs_are_few_bytes_and_many_pictures(rows):
    assert sum(file.stat().st_size for file in PAIRS.iterdir()) <= 6_000_000
    assert 1500 <= len(rows) <= 2500


def test_packaged_splits_are_disjoint_by_concept_and_by_picture(rows):
    for key in (lambda row: row["concept"], lambda row: row["image"]["bytes"]):
        owners = {}
        for row in rows:
            assert owners.setdefault(key(row), row["split"]) == row["split"]
    assert {row["split"] for row in rows} == {"search", "pick", "test"}


def test_packaged_pictures_are_64_pixels_in_colour(rows):
    for row in rows:
        image = Image.open(io.BytesIO(row["image"]["bytes"]))
        assert (image.size, image.mode) == ((64, 64), "RGB")
    assert np.asarray(image).std() > 0


def test_packaged_captions_each_have_one_right_picture(rows):
    captions = [caption.lower() for row in rows for caption in row["captions"]]
    assert len(set(captions)) == len(captions)
    assert all(row["captions"] and all(c.strip() == c != "" for c in row["captions"]) for row in rows)


def test_packaged_file_is_an_image_source_for_datasets():
    metadata = json.loads(pq.read_schema(PAIRS / "pairs.parquet").metadata[b"huggingface"])
    assert metadata["info"]["features"]["image"]["_type"] == "Image"


def test_packaged_pairs_name_their_authors_and_licence(rows):
    attribution = (PAIRS / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert all(licence in attribution for licence in {row["licence"] for row in rows})
    assert "rasterised" in attribution
    assert (PAIRS / "LICENSE").stat().st_size > 1000

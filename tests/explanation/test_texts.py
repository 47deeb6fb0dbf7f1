"""Candidate texts: words of any language, the shipped list, a user's own file."""

import json
import unicodedata
from importlib.resources import files

import numpy as np
import pytest

from headwise.errors import HeadwiseError
from headwise.explanation.texts import candidates, caption_ngrams, joined, presence, read_texts, shipped, tokens


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("A red Car, the dog's toy-car!", ["a", "red", "car", "the", "dog's", "toy-car"]),
        ("Ein Haus — groß und grün", ["ein", "haus", "gross", "und", "grün"]),
        ("一只黑狗", ["一", "只", "黑", "狗"]),
        ("黒いcat", ["黒", "い", "cat"]),
        ("แมวดำ", ["แ", "ม", "ว", "ด", "\u0e33"]),
        ("كلب أسود", ["كلب", "أسود"]),
        ("כלב שחור", ["כלב", "שחור"]),
        ("काली बिल्ली", ["काली", "बिल्ली"]),
        ("검은 개", ["검은", "개"]),
        ("I ♥ 🐱 cats", ["i", "♥", "🐱", "cats"]),
        ("</script>", ["script"]),
        ("", []),
        ("...", []),
    ],
)
def test_words_of_many_languages(text, expected):
    assert tokens(text) == [unicodedata.normalize("NFC", word) for word in expected]


def test_ngrams_join_as_their_script_is_written():
    assert joined(["a", "red", "car"]) == "a red car"
    assert joined(["黑", "狗"]) == "黑狗"
    assert joined(["黑", "cat"]) == "黑 cat"


def test_an_ngram_that_is_always_part_of_a_longer_one_is_left_out():
    captions = [("a fire engine",), ("the fire engine",), ("one fire engine",), ("a cat",), ("the cat",), ("my cat",)]
    found = caption_ngrams(captions * 1)
    assert "fire engine" in found
    assert "cat" in found
    assert "fire" not in found
    assert "engine" not in found


def test_chinese_captions_give_words_of_several_characters():
    captions = [("一只黑狗在跑",), ("黑狗睡觉",), ("两只黑狗",), ("一朵红花",), ("红花很大",), ("红花",), ("白云",)]
    found = caption_ngrams(captions)
    assert {"黑狗", "红花"} <= set(found)
    has = presence(["黑狗", "红花"], captions)
    assert has.tolist() == [[True] * 3 + [False] * 4, [False] * 3 + [True] * 3 + [False]]


def test_presence_asks_for_whole_words():
    has = presence(["cat", "black cat", "?!"], [("a Black cat",), ("a category",), ("black", "cat")])
    assert has.tolist() == [[True, False, True], [True, False, False], [False] * 3]


def test_words_of_most_images_are_no_candidates():
    captions = [(f"a thing number{i % 4}",) for i in range(40)]
    found = caption_ngrams(captions)
    assert "a" not in found
    assert "a thing" not in found
    assert any(text.endswith("number1") for text in found)


def test_the_shipped_list_is_large_enough_and_has_no_duplicates():
    found = shipped()
    raw = files("headwise").joinpath("data_files/themes.json").read_bytes()
    assert len(raw) < 1_000_000
    assert 2800 <= len(found) <= 4000
    assert len({text.casefold() for text in found.texts}) == len(found)
    themes = json.loads(raw)
    wanted = {
        *("colour", "shape", "texture", "count", "place", "animal", "plant", "food", "vehicle", "person", "activity"),
        *("mood", "style", "writing", "viewpoint", "quality", "time", "weather", "clothing", "tool", "sport", "music"),
        *("building", "furniture", "body", "abstract"),
    }
    assert wanted <= set(themes)
    assert all(text == text.strip() and 1 < len(text) < 60 for text in found.texts)


def test_candidates_are_the_captions_words_and_the_list_or_the_users_own_alone():
    captions = [("a zorple",), ("the zorple",), ("my zorple",), *[("a red thing",)] * 3]
    both = candidates(captions)
    assert "zorple" in both.texts
    assert both.themes[both.texts.index("zorple")] == "captions"
    assert set(shipped().texts) <= set(both.texts)
    assert len(set(both.texts)) == len(both)
    assert candidates(captions, ["one", "two"]).texts == ("one", "two")


def test_a_texts_file_is_read_without_blank_lines_and_repeats(tmp_path):
    path = tmp_path / "texts.txt"
    path.write_bytes("\ufeffa cat\n\n  a   dog \na cat\r\n一只猫\n".encode())
    assert read_texts(path) == ["a cat", "a dog", "一只猫"]


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"\n \n", "is empty"), (b"one\n", "one text alone"), (b"a\na\n", "one text alone"),
     (b"\xff\xfea\x00", "not UTF-8")],
)  # fmt: skip
def test_a_texts_file_of_no_use_is_refused(tmp_path, content, said):
    path = tmp_path / "texts.txt"
    path.write_bytes(content)
    with pytest.raises(HeadwiseError, match=said) as error:
        read_texts(path)
    assert str(path) in str(error.value)


def test_only_ends_of_lines_end_texts(tmp_path):
    (tmp_path / "texts.txt").write_bytes("a\u2028b\r\nc\x0cd\re\u0085f\n".encode())
    assert read_texts(tmp_path / "texts.txt") == ["a b", "c d", "e f"]  # three, blanks as one


def test_a_missing_texts_file_is_refused(tmp_path):
    with pytest.raises(HeadwiseError, match="cannot be read"):
        read_texts(tmp_path / "none.txt")


def test_presence_of_nothing():
    assert presence([], [("a",)]).shape == (0, 1)
    assert not presence(["a"], [()]).any()
    assert presence(["a"], []).dtype == np.bool_

"""Class names, templates, and the class embeddings made of them."""

import json

import pytest
import torch

from headwise.errors import HeadwiseError
from headwise.scoring.prompts import class_embeddings, class_names, prompts, templates


def encode(texts):
    """A text encoder that is easy to check: counts of letters, at varying lengths."""
    return torch.tensor([[text.count(letter) + 0.5 for letter in "aeiot"] for text in texts]) * 3


def test_shipped_lists_are_the_known_ones():
    assert len(templates("openai80")) == 80
    assert "a photo of the small {c}." in templates("openai7")
    assert len(templates("openai7")) == 7
    assert templates("siglip") == ("This is a photo of {c}.",)
    names = class_names("imagenet")
    assert len(names) == 1000
    assert names[0] == "tench"
    for which in ("openai80", "openai7", "siglip", "plain"):
        assert all(line.count("{c}") == 1 for line in templates(which))


def test_class_embeddings_are_the_mean_of_normalised_prompts(monkeypatch):
    names, patterns = ("cat", "violet", "tin {x} man"), ("a {c}.", "photo of a {c}", "the {c}")
    found = class_embeddings(encode, names, patterns)
    normal = torch.nn.functional.normalize
    for row, name in zip(found, names, strict=True):
        each = normal(encode([pattern.replace("{c}", name) for pattern in patterns]), dim=1)
        assert torch.allclose(row, normal(each.mean(0), dim=0), atol=1e-6)
    monkeypatch.setattr("headwise.scoring.prompts.TEXTS_AT_ONCE", 2)
    assert torch.allclose(class_embeddings(encode, names, patterns), found, atol=1e-7)


def test_prompts_go_class_after_class():
    assert prompts(["x", "y"], ["a {c}", "the {c}"]) == ["a x", "the x", "a y", "the y"]


def test_a_users_files_are_read(tmp_path):
    file = tmp_path / "templates.txt"
    file.write_text("\ufeffein Foto von {c}\n\nein Bild: {}\n", encoding="utf-8")
    assert templates(str(file)) == ("ein Foto von {c}", "ein Bild: {c}")
    names = tmp_path / "names.json"
    names.write_text(json.dumps(["Rübe", "Apfel"]), encoding="utf-8")
    assert class_names(str(names)) == ("Rübe", "Apfel")


@pytest.mark.parametrize(
    ("content", "says"),
    [(b"a photo\n", "template 1: 'a photo' has no"), (b"\n \n", "is empty"), (b"\xff\xfe\xff{c}", "cannot be read")],
)
def test_bad_templates_are_a_clear_error(tmp_path, content, says):
    file = tmp_path / "templates.txt"
    file.write_bytes(content)
    with pytest.raises(HeadwiseError, match=says):
        templates(str(file))


def test_bad_names_are_a_clear_error(tmp_path):
    with pytest.raises(HeadwiseError, match="openai80, openai7"):
        templates("openai90")
    with pytest.raises(HeadwiseError, match="come with headwise: imagenet"):
        class_names("nowhere.txt")
    for content, says in (
        ('{"a": 1}', "JSON list"),
        ("[1, 2]", "JSON list"),
        ('["one"]', "at least 2"),
        ("[", "cannot"),
    ):
        file = tmp_path / "names.json"
        file.write_text(content)
        with pytest.raises(HeadwiseError, match=says):
            class_names(str(file))
    with pytest.raises(HeadwiseError, match="needs class names and templates"):
        class_embeddings(encode, [], ["a {c}"])

"""Captions equal word for word on several images: one rule and one default in every reader."""

import base64
import json

import numpy as np
import pytest
import torch

from headwise.data.read import read
from headwise.errors import HeadwiseError
from headwise.scoring.objectives import Retrieval

from .conftest import encoded

CAPTIONS = ["a cat", "a dog", "a cat", "a bird"]


@pytest.fixture
def sources(tmp_path):
    """The same four pairs in five forms."""
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(encoded(i))
    (tmp_path / "pairs.csv").write_text("image,caption\n" + "".join(f"{i}.png,{c}\n" for i, c in enumerate(CAPTIONS)))
    lines = [json.dumps({"image": f"{i}.png", "captions": [c]}) for i, c in enumerate(CAPTIONS)]
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    (tmp_path / "flickr.csv").write_text("image,caption\n" + "".join(f"{i}.png,{c}\n" for i, c in enumerate(CAPTIONS)))
    chinese = tmp_path / "chinese"
    chinese.mkdir()
    rows = [f"{i}\t{base64.b64encode(encoded(i)).decode()}\n" for i in range(4)]
    (chinese / "test_imgs.tsv").write_text("".join(rows))
    texts = [{"text": "a cat", "image_ids": [0, 2]}, {"text": "a dog", "image_ids": [1]}]
    texts.append({"text": "a bird", "image_ids": [3]})
    (chinese / "test_texts.jsonl").write_text("\n".join(map(json.dumps, texts)))
    memory = [(encoded(i), caption) for i, caption in enumerate(CAPTIONS)]
    named = ["pairs.csv", "pairs.jsonl"]
    return [
        *(str(tmp_path / name) for name in named),
        f"flickr:{tmp_path}/flickr.csv",
        f"chinese-clip:{chinese}",
        memory,
    ]


def score(pairs):
    """Mean recall of embeddings that know the words alone: both cats are one point."""
    points = {"a cat": 0, "a dog": 1, "a bird": 2}
    eye = torch.eye(3)
    texts = eye[[points[text] for text in pairs.texts]]
    images = eye[[points[captions[0]] for captions in pairs.captions]]
    return Retrieval(texts, pairs.owner, same=pairs.same)(images)


def test_by_default_they_are_one_text_in_every_reader(sources):
    for source in sources:
        pairs = read(source)
        assert (len(pairs), pairs.text_count, pairs.repeated, pairs.equal_captions) == (4, 3, 2, "shared")
        assert pairs.text_ids[0] == pairs.text_ids[2]
        assert score(pairs).metrics["mean_recall"] == 1


def test_each_its_own_where_asked_for(sources):
    for source in sources[:3] + sources[4:]:
        pairs = read(source, equal_captions="own")
        assert (pairs.text_count, pairs.repeated, pairs.text_ids) == (4, 2, None)
        found = score(pairs).metrics
        # two images tie on each cat: wrong at 1, in both directions
        assert found["image_retrieval_recall@1"] == found["text_retrieval_recall@1"] == 0.5
    assert read(sources[3], equal_captions="own").text_count == 3  # the source itself says that it is one text


def test_a_caption_twice_on_one_image_stays_two():
    pairs = read([(encoded(0), ["a cat", "a cat"]), (encoded(1), "a dog")])
    assert (pairs.text_count, pairs.repeated, pairs.text_ids) == (3, 0, None)
    mixed = read([(encoded(0), ["a cat", "x", "x"]), (encoded(1), "a cat")])
    assert mixed.text_count == 3
    assert np.array_equal(mixed.same, [0, 1, 2, 0])


def test_an_unknown_rule_is_an_error():
    with pytest.raises(HeadwiseError, match="Use shared or own"):
        read([(encoded(0), "a"), (encoded(1), "b")], equal_captions="both")

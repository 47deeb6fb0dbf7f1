"""Patterns: a planted difference is found and said in a sentence, noise is not, corrected for all properties."""

import numpy as np
import pytest

from headwise.explanation.patterns import patterns_json


def cards(rng, heads: int = 48, edited: int = 8, *, texts: bool = True) -> list[dict]:
    """Heads whose properties are noise."""
    found = []
    for i in range(heads):
        labels = {"explained": [rng.random()], "null": [0.5], "halves": rng.random(), "texts": [{"r": rng.random()}]}
        found.append(
            {
                "head": f"L{i // 8}.H{i % 8}",
                "row": i // 8,
                "edited": bool(i < edited),
                "effect": {"size": 0.1 + rng.random(), "varying": rng.random(), "axes": int(rng.integers(1, 40))},
                "labels": labels if texts else None,
                "attributes": [
                    {"name": "ink", "carried": rng.random()},
                    {"name": "group: a", "carried": rng.random()},
                ],
                "attention": {
                    "entropy": rng.random(), "class_share": None, "distance": rng.random(), "sink_share": rng.random(),
                    "sink_norm": rng.random(),
                },
                "queries": {"delta": rng.normal()} if texts else None,
            }
        )  # fmt: skip
    return found


@pytest.fixture
def rng():
    return np.random.default_rng(3)


def test_a_difference_of_edited_heads_is_found_and_said(rng):
    heads = cards(rng)
    for card in heads:
        card["attention"]["entropy"] += 2.0 * card["edited"]
    found = patterns_json(heads)
    test = next(t for t in found["tests"] if (t["property"], t["outcome"]) == ("entropy of attention", "edited"))
    assert test["p"] < 0.01
    assert test["edited"] > test["others"] + 1.5
    assert any("Edited heads have higher entropy of attention" in sentence for sentence in found["sentences"])


def test_what_goes_along_with_the_gain_is_found(rng):
    heads = cards(rng)
    for card in heads:
        card["queries"]["delta"] = -card["effect"]["size"] + 0.1 * rng.normal()
    found = patterns_json(heads)
    assert any("gains more have lower size of effect" in sentence for sentence in found["sentences"])


def test_noise_gives_a_finding_no_more_often_than_it_should(rng):
    false = 0
    for seed in range(20):
        heads = cards(rng, heads=30)
        order = rng.permutation(len(heads))
        for card, place in zip(heads, order, strict=True):
            card["edited"] = bool(place < 6)  # not the first rows
        found = patterns_json(heads, seed=seed)
        false += min(test["p"] for test in found["tests"]) < 0.05
    assert false <= 4


def test_nothing_found_is_said(rng):
    heads = cards(rng, edited=0)
    sentences = patterns_json(heads)["sentences"]
    assert len(sentences) == 1
    assert "none goes along" in sentences[0] or "gains more" in sentences[0]


def test_without_labels_and_scores_the_rest_is_tested(rng):
    found = patterns_json(cards(rng, texts=False))
    assert {test["outcome"] for test in found["tests"]} == {"edited"}
    assert not any("text" in test["property"] for test in found["tests"])
    assert not any("class token" in test["property"] for test in found["tests"])
    assert patterns_json(cards(rng, edited=1, texts=False))["tests"] == []

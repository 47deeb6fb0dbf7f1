"""End to end on a planted tower: the head that writes a text is found with its text, the others abstain."""

import json

import numpy as np
import pytest
from planted_head import OTHERS, PLANTED, WORD, planted_model, planted_pairs
from safetensors.numpy import load_file

from headwise.checked import read_results
from headwise.jobs.explain import explain


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    folder = tmp_path_factory.mktemp("planted")
    texts = folder / "texts.txt"
    texts.write_text("\n".join([WORD, *OTHERS]))
    model = planted_model()
    results = explain(
        model,
        planted_pairs(model),
        folder / "out",
        texts=texts,
        mask=f"{PLANTED}=zero, L0.H0=zero",
        check_weights=False,
    )
    return results, folder / "out"


def card(results, head=PLANTED):
    return next(one for one in results["heads"] if one["head"] == str(head))


def test_the_planted_head_is_labelled_with_its_text_and_the_others_abstain(found):
    labels = card(found[0])["labels"]
    assert not labels["abstains"]
    assert labels["texts"][0]["text"] == WORD
    assert labels["texts"][0]["explained"] > 0.8
    assert labels["explained"][-1] > labels["null"][-1]
    beside = [one["labels"] for one in found[0]["heads"] if one["row"] == PLANTED.layer and one["head"] != str(PLANTED)]
    assert sum(one["abstains"] for one in beside) >= len(beside) - 1  # one in twenty passes by chance


def test_heads_before_it_count_for_what_it_makes_of_them(found):
    """Removing them changes what the planted head writes: their total effects are along its text, less purely."""
    planted = card(found[0])["labels"]["texts"][0]
    for one in found[0]["heads"]:
        if one["row"] < PLANTED.layer and not one["labels"]["abstains"]:
            first = one["labels"]["texts"][0]
            assert first["text"] == WORD
            assert first["explained"] < planted["explained"]
            assert abs(first["r"]) < abs(planted["r"]) - 0.2


def test_its_label_holds_on_images_that_it_was_not_found_on(found):
    text = card(found[0])["labels"]["texts"][0]
    assert abs(text["r"]) > 0.6
    assert text["chance"] == pytest.approx(1 / 3, abs=0.12)
    assert text["p"] == pytest.approx(1 / (1 + text["like"]))  # no other text fits this head as well
    assert text["q"] < 0.05
    assert (text["auprc"] > text["chance"] + 0.3) == ((text["r"] > 0) == (text["sign"] > 0))


def test_text_span_finds_it_too(found):
    span = card(found[0])["text_span"]
    assert span["of"] == "direct"
    assert span["texts"][0] == WORD


def test_the_files_say_what_was_returned(found):
    results, folder = found
    assert read_results(folder / "explanation.json") == json.loads(json.dumps(results))
    arrays = load_file(folder / "explanation.safetensors")
    heads, images = len(results["heads"]), len(results["images"])
    assert arrays["total"].shape == (heads, images, 24)
    assert arrays["direct"].shape == (heads, images, 24)
    assert arrays["attributes"].shape == (images, len(results["attributes"]))
    assert arrays["attention"].shape[:2] == (heads, 4)
    row = [one["head"] for one in results["heads"]].index(str(PLANTED))
    size = np.linalg.norm(arrays["total"][row].astype(np.float32), axis=1)
    size /= np.linalg.norm(arrays["identity"], axis=1)
    assert results["heads"][row]["effect"]["size"] == pytest.approx(size.mean(), rel=1e-3)
    largest = [one["image"] for one in results["heads"][row]["examples"]["largest"]]
    assert largest == np.argsort(-size)[: len(largest)].tolist()
    assert results["direct"]["error"] < 1e-4


def test_last_layer_effects_are_nearly_direct_and_the_head_is_marked_as_edited(found):
    planted = card(found[0])
    assert planted["edited"]
    assert planted["effect"]["direct"]["agreement"] > 0.3
    assert sum(one["edited"] for one in found[0]["heads"]) == 2
    assert found[0]["patterns"]["edited"] == 2


def test_the_text_file_names_the_head_its_text_and_what_abstains(found):
    text = (found[1] / "explanation.md").read_text()
    assert f"**{PLANTED}**" in text
    assert WORD in text
    assert "random rotations" in text

"""What an explanation says of a head, as the sections of its card."""

import copy

import numpy as np
import pytest

from headwise.reports.head_cards import Heads, head_cards, pictures_of, shades

TEXT = {
    "text": "</script><b>red",
    "theme": "colour",
    "sign": -1,
    "explained": 0.41,
    "images": 30,
    "r": -0.31,
    "auprc": 0.5,
    "chance": 0.27,
    "like": 50,
    "p": 0.001,
    "q": 0.01,
    "cause": {"with": 0.0, "without": 0.0, "difference": 0.021, "p": 0.2, "q": 0.4},
}
HEAD = {
    "head": "L1.H2",
    "row": 1,
    "edited": True,
    "effect": {"size": 0.089, "varying": 0.07, "axes": 9, "kept": 0.9, "direct": {"size": 0.05, "agreement": -0.4}},
    "labels": {"abstains": False, "explained": [0.41], "null": [0.3], "p": 0.01, "halves": 0.5, "texts": [TEXT]},
    "text_span": {"of": "direct", "texts": ["a poster"]},
    "attributes": [
        {"name": "edge density", "carried": 0.61, "carried_p": 0.001, "embedding": 0.65, "size": -0.44, "size_p": 0.01},
        {"name": "ink", "carried": 0.2, "carried_p": 0.5, "embedding": 0.3, "size": 0.1, "size_p": 0.9},
    ],
    "attention": {
        "entropy": 0.72,
        "class_share": 0.17,
        "distance": 0.41,
        "sink_share": 0.1,
        "sink_norm": 0.9,
        "sink": "none",
    },
    "examples": {
        "largest": [{"image": 2, "size": 0.5}, {"image": 0, "size": 0.4}],
        "smallest": [{"image": 1, "size": 0.1}],
    },
    "queries": {
        "delta": -0.0123,
        "gained": 1,
        "lost": 2,
        "gained_queries": [{"task": "image_retrieval", "image": "a.png", "text": "קטה", "before": 9, "after": 1}],
        "lost_queries": [{"task": "text_retrieval", "image": "b.png", "text": None, "before": 1, "after": 30}],
    },
}
EXPLANATION = {
    "settings": {"fitness": "mean_recall"},
    "repeated": [{"text": TEXT["text"], "heads": ["L1.H2", "L3.H0"]}],
    "images": [{"id": name, "part": "label", "captions": []} for name in ("a.png", "b.png", "c.png")],
    "heads": [HEAD],
}


def sections(**changes) -> dict[str, str]:
    found = copy.deepcopy(EXPLANATION)
    found["heads"][0].update(changes)
    return {one["title"]: " ".join(one["lines"]) for one in head_cards(found)["L1.H2"]}


def test_a_label_is_shown_with_what_speaks_for_and_against_it():
    said = sections()["Labels"]
    assert "against “\u2068</script><b>red\u2069”" in said  # escaping is the page's matter
    for fact in ("explains 41 %", "holds on other images", "r −0.31", "AUPRC 0.50", "chance is 0.27", "labels 2 heads"):
        assert fact in said
    assert "+2.10 points" in said
    assert "TextSpan, which has no test" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [({"q": 0.2}, "not shown to hold"), ({"q": None}, "not shown to hold"), ({"r": None}, "not checked")],
)
def test_a_label_that_failed_its_check_is_not_said_to_hold(change, said):
    labels = copy.deepcopy(HEAD["labels"])
    labels["texts"][0].update(change)
    told = sections(labels=labels)["Labels"]
    assert said in told
    assert "; holds" not in told


def test_a_head_that_abstains_has_no_label_and_says_by_how_much():
    labels = {**HEAD["labels"], "abstains": True, "texts": [], "explained": [0.24], "null": [0.3]}
    assert "None: texts explain 24 % of it, of random directions 30 %." in sections(labels=labels)["Labels"]


def test_without_text_tower_there_are_no_labels_and_no_queries():
    found = sections(labels=None, text_span=None, queries=None)
    assert found["Labels"] == "None: the model has no text tower."
    assert not [title for title in found if title.startswith("Queries")]


def test_only_attributes_that_are_more_than_chance():
    said = sections()["Attributes of pictures"]
    assert "edge density 0.61 (0.65)" in said
    assert "edge density −0.44" in said
    assert "ink" not in said


def test_queries_with_ranks_and_names_where_there_is_no_text():
    found = sections()
    assert "9 → 1: “\u2068קטה\u2069”" in found["Queries gained without it, rank before → after"]
    assert "1 → 30: “\u2068b.png\u2069”" in found["Queries lost without it, rank before → after"]


def test_maps_belong_to_the_pictures_with_the_largest_effect():
    attention = np.zeros((1, 4, 2, 2), np.float16)
    attention[0, 0] = [[0.0, 0.1], [0.2, 0.4]]
    card = head_cards(EXPLANATION, attention)["L1.H2"]
    shown = {one["title"]: one for one in card if "pictures" in one}
    assert shown["Pictures it acts on most"]["pictures"] == ["c.png", "a.png"]
    assert shown["Pictures it acts on most"]["maps"] == ["048f", ""]  # an empty map has nothing to show
    assert "maps" not in shown["Pictures it acts on least"]


def test_shades_of_what_is_no_number():
    assert shades(np.array([[np.nan, 1.0], [0.5, 0.0]])) == "0f80"


def test_pictures_are_bounded_and_those_of_chosen_heads_come_first():
    found = copy.deepcopy(EXPLANATION)
    other = copy.deepcopy(HEAD) | {
        "head": "L0.H0",
        "examples": {"largest": [{"image": 1, "size": 1.0}], "smallest": []},
    }
    found["heads"].append(other)
    cards = head_cards(found)
    assert pictures_of(cards, ["L0.H0"], most=1) == ["b.png"]
    assert pictures_of(cards, [], most=1) == ["b.png"]  # two heads show it
    assert set(pictures_of(cards)) == {"a.png", "b.png", "c.png"}


def test_the_page_of_a_large_model_and_many_pictures_stays_small():
    """ViT-L/14 at 336 pixels: 24 × 16 heads, 24 × 24 patches, 5,000 images, thumbnails of 4 kB."""
    from sample_results import RESULTS

    from headwise.reports.page import packed, page_html

    rng = np.random.default_rng(0)
    results = copy.deepcopy(RESULTS)
    results["model"]["layers"] = [16] * 24
    names = [f"folder/picture-{i:05}.jpg" for i in range(5000)]
    found = {**EXPLANATION, "images": [{"id": name, "part": "label", "captions": []} for name in names], "heads": []}
    for layer in range(24):
        for index in range(16):
            shown = [{"image": int(i), "size": 1.0} for i in rng.integers(0, 5000, 16)]
            examples = {"largest": shown[:8], "smallest": shown[8:]}
            found["heads"].append({**HEAD, "head": f"L{layer}.H{index}", "examples": examples})
    cards = head_cards(found, rng.random((384, 4, 24, 24)))
    thumbnail = "data:image/webp;base64," + "A" * 5400
    pictures = dict.fromkeys(pictures_of(cards, ["L1.H2"]), thumbnail)
    page = page_html(results, heads=Heads(cards, pictures))
    assert len(page.encode()) < 15e6
    assert page == page_html(copy.deepcopy(results), heads=Heads(copy.deepcopy(cards), dict(pictures)))
    assert len(packed("page.js", "explore.js").encode()) <= 30_000  # both, and the page has one of them alone

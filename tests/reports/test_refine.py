"""The report and the cards say what the results say, no more, and are well-formed."""

import copy
import json

import pytest
import yaml
from markdown_it import MarkdownIt
from sample_results import RESULTS, nothing_found, sample

from headwise.edits.card import OWN_CARD
from headwise.errors import HeadwiseError
from headwise.reports.card import model_card
from headwise.reports.refine import report_text, write_report
from headwise.reports.templates import results_table
from headwise.reports.words import change, interval, metric_name, p_value, points, verdict


def tables(markdown: str) -> list[list[list[str]]]:
    """Every table of a page as rows of cells, as a Markdown reader sees it."""
    out, cells = [], False
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "table_open":
            out.append([])
        elif token.type == "tr_open":
            out[-1].append([])
        elif token.type in ("td_open", "th_open"):
            cells = True
        elif token.type == "inline" and cells:
            out[-1][-1].append(token.content)
            cells = False
    return out


def test_every_table_is_read_as_a_table_and_none_is_lost():
    found = {table[0][0]: table for table in tables(report_text(RESULTS))}
    assert len(found) == 7
    before_after = found["test split: 762 images, 1,665 captions"]
    assert before_after[1] == ["mean recall", "30.12", "31.40", "+1.28", "+0.31 to +2.24", "0.009"]
    assert ["text → image R@1", "14.12", "15.40", "+1.28", "", ""] in before_after
    assert found["head"][1][:3] == ["L1.H2", "uniform", "+1.31"]
    assert found["head (uniform), largest gain first"][1] == ["L1.H2", "+1.31", "0.004"]
    assert found["mask"][2][:3] == ["L1.H2=uniform, L3.H5=uniform", "ga", "2"]
    assert found["mask"][2][-1] == "**chosen**"
    random_heads = ["random heads", "20", "2", "29.07", "−1.05", "−1.50 to −0.62", "< 0.001"]
    assert random_heads in found["what"]


@pytest.mark.parametrize("results", [RESULTS, nothing_found()])
def test_gallery_and_image_counts_are_always_shown(results):
    text = report_text(results)
    assert "texts search 762 images and images search 1,665 captions" in text
    for size in ("534 images, 1,145 captions", "223 images, 486 captions", "762 images, 1,665 captions"):
        assert size in text
    assert "fixed gallery" in text
    assert "The image is the unit" in text


@pytest.mark.parametrize(
    ("ends", "says", "never"),
    [
        ([0.003, 0.022], "excludes 0", "not shown"),
        ([-0.001, 0.022], "includes 0: an improvement is not shown", "is better"),
        ([0.0, 0.022], "includes 0: an improvement is not shown", "is better"),
        ([-0.022, -0.003], "is WORSE. Do not use it", "is better"),
    ],
)
def test_the_verdict_claims_no_more_than_the_interval(ends, says, never):
    results = sample(interval=ends)
    for text in (verdict(results), report_text(results), model_card(results), model_card(results, merged=True)):
        assert says in text
        assert never not in text


def test_identity_is_said_plainly():
    results = nothing_found()
    for text in (verdict(results), report_text(results), model_card(results), model_card(results, merged=True)):
        assert "No mask was shown to be better than the unchanged model" in text
        assert "That does not show that no head hurts" in text
    assert "from_pretrained" not in report_text(results)
    assert "## The heads that were chosen" not in report_text(results)


def test_a_test_split_read_for_several_masks_is_called_so():
    assert "Caution" not in report_text(RESULTS)
    assert "test split for 3 different chosen masks" in report_text({**RESULTS, "test_reads": 3})


def test_random_heads_that_do_as_well_are_called_so():
    results = sample()
    assert "They do as well" not in report_text(results)
    results["test"][1]["delta"] = 0.02
    assert "They do as well as the chosen mask" in report_text(results)


def test_a_sweep_without_significant_heads_says_so():
    results = sample()
    for sweep in results["sweep"]:
        for head in sweep["heads"]:
            head["p_max_t"] = 0.3
    assert report_text(results).count("no single gain is distinguishable from chance") == 2


def test_the_report_is_written_with_its_picture_and_says_how_to_use_the_model(tmp_path):
    (tmp_path / "my run" / "model").mkdir(parents=True)
    path = write_report(RESULTS, tmp_path / "my run")
    text = path.read_text()
    assert sorted(p.name for p in path.parent.iterdir()) == ["heads.png", "model", "report.md"]
    assert "![Heat map of single heads](heads.png)" in text
    assert "--mask 'my run'" in text
    assert "ordinary model folder" in text
    assert str(tmp_path) not in text
    first = {p.name: p.read_bytes() for p in path.parent.iterdir() if p.is_file()}
    write_report(json.loads(json.dumps(RESULTS)), path.parent)  # the same bytes from results.json
    assert {p.name: p.read_bytes() for p in path.parent.iterdir() if p.is_file()} == first


def test_edits_that_do_not_fold_are_not_promised_a_model(tmp_path):
    results = sample()
    results["chosen"] |= {"mask": "L1.H2=cls, L3.H5=cls", "edits": {"L1.H2": "cls", "L3.H5": "cls"}, "folds": False}
    text = write_report(results, tmp_path).read_text()
    assert "These edits do not fold into the weights" in text
    assert "`model/`" not in text
    assert "| L1.H2 | cls | — | — | — |" in text  # not swept with this edit


def test_names_cannot_break_the_page():
    results = sample()
    results["data"]["source"] = "my|pairs.csv"
    last = tables(report_text(results))[-1]
    assert ["data", "my|pairs.csv: 1,519 images, 3,296 captions"] in last


def test_another_objective_is_reported_under_its_own_name():
    text = json.dumps(RESULTS).replace('"mean_recall"', '"acc1"').replace("image_retrieval_recall@1", "acc5")
    results = json.loads(text)
    results["settings"]["objective"] = {"name": "zero-shot", "fitness": "acc1"}
    page = report_text(results)
    assert "changed accuracy (top 1) on the test split" in page
    assert "mean recall" not in page


@pytest.mark.parametrize("field", ["test", "chosen", "sweep", "finalists", "model", "data", "ffe"])
def test_a_missing_field_is_an_error_and_writes_nothing(tmp_path, field):
    results = copy.deepcopy(RESULTS)
    del results[field]
    with pytest.raises(HeadwiseError, match=field):
        write_report(results, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_missing_row_is_an_error():
    results = sample()
    results["test"] = results["test"][:-1]
    with pytest.raises(HeadwiseError, match="no row 'chosen'"):
        results_table(results)


@pytest.mark.parametrize("merged", [False, True])
def test_cards_have_a_header_that_hubs_read(merged):
    card = model_card(RESULTS, merged=merged)
    header = yaml.safe_load(card.split("---\n")[1])
    assert header["base_model"] == "some/clip-vit"
    assert header["library_name"] == ("transformers" if merged else "headwise")
    assert "headwise" in header["tags"]
    assert OWN_CARD in card
    assert results_table(RESULTS) in card
    assert ("AutoModel.from_pretrained" in card) == merged


def test_a_local_base_model_is_not_listed_as_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "runs" / "clip").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    for name in ("demo", "hf:/some/folder", "hf:runs/clip"):
        assert "base_model:" not in model_card({**RESULTS, "model": {**RESULTS["model"], "name": name}})


def test_numbers():
    assert [points(0.30121), points(-0.00001), points(None), points(float("nan"))] == ["30.12", "0.00", "—", "—"]
    assert [change(0.0128), change(-0.004), change(0), change(-1e-9), change(None)] == [
        "+1.28",
        "−0.40",
        "0.00",
        "0.00",
        "—",
    ]
    assert [interval([-0.001, 0.02]), interval(None)] == ["−0.10 to +2.00", "—"]
    assert [p_value(0.0001), p_value(0.0312), p_value(1.0), p_value(None)] == ["< 0.001", "0.031", "1.000", "—"]
    names = ["image_retrieval_recall@5", "text_retrieval_recall@1", "acc1 of ducks"]
    assert list(map(metric_name, names)) == ["text → image R@5", "image → text R@1", "acc1 of ducks"]


def test_an_interval_without_a_p_and_few_images_claim_nothing():
    strong = {"interval": [0.003, 0.022], "p": 0.125}
    for row, says in (
        (strong, "is above 0.05: an improvement is not shown"),
        ({**strong, "p": 0.01, "changed": 4}, "Too few changed images: 4 of the test images changed"),
    ):
        results = sample(**row)
        merged = model_card(results, merged=True)
        for text in (verdict(results), report_text(results), model_card(results), merged):
            assert says in text
            assert "refined model is better" not in text
        assert "that hurt on the data above" not in merged
        assert "That this helps was not shown" in merged
    assert "that hurt on the data above" in model_card(RESULTS, merged=True)


def test_power_reads_and_warnings_stand_in_report_and_card():
    power = {"pick_expected": 0.02, "test_expected": 0.01, "test_least": 0.0021, "pick": 0.0123, "test": None}
    results = {**RESULTS, "power": power, "test_reads_cache": 7, "warnings": ["The pick split has 16 images."]}
    text = report_text(results)
    assert "about 1.23 points on the 223 pick images and 1.00 on the 762 test images" in text
    assert "nothing below 0.21 points can be claimed at all" in text
    assert "read for 7 different masks of this model" in text
    assert "**Caution:** The pick split has 16 images." in text
    assert "1.23 points" in model_card(results)
    assert "7 different masks" in model_card(results)


def test_a_gap_has_its_error_and_no_explanation():
    gap = {"search_se": 0.003, "pick_delta": 0.0175, "pick_se": 0.0061, "test_se": 0.0049, "gap_se": 0.0057}
    text = report_text({**RESULTS, "gap": {**RESULTS["gap"], **gap}})
    assert "+2.14 ± 0.30 points on the search split" in text
    assert "+1.75 ± 0.61 on the pick split" in text
    assert "Search minus test: +0.86 ± 0.57." in text
    assert "price of having searched" not in text

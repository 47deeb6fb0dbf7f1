"""report.html of a folder that no refine wrote, in a real browser."""

import shutil

import pytest
from conftest import write_pairs

from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.jobs.explain import explain
from headwise.jobs.report import report
from headwise.jobs.sweep import sweep
from headwise.jobs.transfer import transfer


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), 24)


@pytest.fixture(scope="module")
def swept(pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    sweep("demo", pairs, folder)
    return report(folder)


@pytest.fixture(scope="module")
def explained(pairs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("explained")
    (folder / "texts.txt").write_text("a face\na circle\nan arrow\n")
    explain("demo", pairs, folder / "out", texts=folder / "texts.txt", mask="L1.H2=zero")
    return report(folder / "out")


def whole(browser, name):
    """No complaint, no request, no barrier, also where there is little room."""
    browser.shot(name)
    assert browser.errors() == []
    assert browser.requests() == []
    assert browser.violations() == []
    browser.size(360, 740)
    assert browser.run("return document.documentElement.scrollWidth") <= 360


def test_a_sweep_opens_with_its_heads_and_no_complaint(browser, swept):
    browser.open(swept)
    browser.find('[id="L1.H2"]').click()
    assert browser.text("#card h3") == "L1.H2"
    assert "alone, uniform" in browser.text("#card")
    assert "p " in browser.text("#card")
    whole(browser, "swept")


def test_an_explanation_opens_with_its_cards_and_no_complaint(browser, explained):
    browser.open(explained)
    assert browser.text("#card h3") == "L1.H2"  # the edited one first
    assert "alone, zero" in browser.text("#card")
    assert ", p " not in browser.text("#card dl")  # none was computed
    assert "Where it looks" in browser.text("#card")
    widths = browser.run("return [...document.querySelectorAll('#card img')].map((i) => i.naturalWidth)")
    assert widths
    assert all(widths)
    whole(browser, "explained")


def test_a_table_alone_opens_without_a_map(browser, pairs, tmp_path):
    odd = shutil.copytree(pairs.parent, tmp_path / "pairs") / "<b>odd _pairs_.csv"
    (odd.parent / pairs.name).rename(odd)
    Mask.parse(Grid((6,) * 6), "L1.H2=zero").save_pretrained(tmp_path / "mask")
    transfer("demo", [tmp_path / "mask"], [odd], tmp_path / "out")
    browser.open(report(tmp_path / "out"))
    first = browser.run(
        "return [...document.querySelectorAll('.told tbody tr td:first-child')].map((d) => d.textContent)"
    )
    assert first == ["identity", "L1.H2=zero"]
    assert "<b>odd _pairs_" in browser.text(".told thead")
    assert browser.run("return document.querySelectorAll('.told b').length") == 0
    assert browser.run("return document.querySelector('.told img').naturalWidth") > 0
    assert browser.driver.find_elements("css selector", "#heads") == []
    whole(browser, "table")

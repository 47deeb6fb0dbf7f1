"""The explorer in a real browser, with its real server on the packaged model."""

import json
import subprocess
import sys
import time

import pytest
from finished_run import CHOSEN, HOSTILE, ODD, finished_run

from headwise.data.cache import pixels
from headwise.data.read import read
from headwise.edits.mask import Mask
from headwise.evaluation.layout import plan
from headwise.search.deltas import Collector, collect
from headwise.towers import load


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A run that knows what single heads do."""
    run = finished_run(tmp_path_factory.mktemp("explore"), 45, ODD)
    model, given = load("demo"), read(run.parent / "pairs.csv")
    names = json.loads((run / "splits.json").read_text())["search"]
    search = given.subset([list(given.ids).index(name) for name in names])
    keep = Collector(model.tower.grid, "uniform")
    found = collect(keep, model.tower, pixels(search, model), plan(model.tower, dtype="float32"))
    found.save(run / "deltas-uniform.safetensors")
    return run


@pytest.fixture(scope="module")
def address(folder):
    process = subprocess.Popen(
        [sys.executable, "-m", "headwise", "explore", folder],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    yield process.stdout.readline().split()[1]
    process.kill()
    process.communicate()


@pytest.fixture
def page(browser, address):
    """The page, opened anew, after its first answer."""
    browser.driver.get_log("browser")
    browser.media()
    browser.size(1280, 900)
    browser.driver.get("about:blank")
    browser.driver.get(address)
    settled(browser)
    return browser


def settled(browser) -> str:
    """The status once all images are through."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if "all 30 images" in (said := browser.text("#status")):
            return said
        time.sleep(0.05)
    raise AssertionError(said)


def clicked(browser, head: str) -> str:
    browser.run("document.getElementById('status').textContent = ''")
    browser.find(f'[id="{head}"]').click()
    return settled(browser)


def test_it_begins_with_the_runs_choice_and_a_click_changes_it(page):
    assert all(f"{head}=uniform" in page.text("#status") for head in CHOSEN)
    assert "→" in page.text("#verdict")
    assert "L4.H0" in clicked(page, "L4.H0")
    assert "L4.H0" not in clicked(page, "L4.H0")  # on again
    assert CHOSEN[0] not in clicked(page, CHOSEN[0])
    assert "edited: uniform" in page.find(f'[id="{CHOSEN[1]}"]').get_attribute("aria-label")
    page.find("#reset").click()
    time.sleep(0.2)
    assert settled(page).startswith("identity")
    assert "0.00 points" in page.text("#verdict")
    assert page.errors() == []


def test_a_click_is_answered_by_an_estimate_and_then_computed(page):
    page.run(  # what is written there, also where the next answer follows before the browser draws
        "window.said = []; const text = Object.getOwnPropertyDescriptor(Node.prototype, 'textContent');"
        "for (const id of ['status', 'verdict']) Object.defineProperty(document.getElementById(id), 'textContent', {"
        "configurable: true, get() { return text.get.call(this); },"
        "set(value) { window.said.push(value); text.set.call(this, value); } });"
    )
    clicked(page, "L4.H0")
    said = [text for text in page.run("return window.said") if text]
    estimated, about, final, exact = said[-4:]
    assert estimated.endswith("estimated, computing …")
    assert "→ ≈" in about
    assert "all 30 images" in final
    assert "≈" not in exact
    assert page.errors() == []


def test_a_slider_scales_a_head(page):
    clicked(page, "L2.H2")
    page.run(
        "const s = document.querySelector('.scale input'); s.value = 0.5; s.dispatchEvent(new Event('input'));"
        "document.getElementById('status').textContent = ''"
    )
    assert "L2.H2=scale(0.5)" in settled(page)
    assert page.text(".scale output") == "0.50"


def test_a_keyboard_is_enough(page):
    from selenium.webdriver.common.keys import Keys

    page.run("document.getElementById('L0.H0').focus()")
    page.driver.switch_to.active_element.send_keys(Keys.ARROW_DOWN)
    page.run("document.getElementById('status').textContent = ''")
    page.driver.switch_to.active_element.send_keys(Keys.SPACE)
    assert "L1.H0" in settled(page)


def test_a_query_finds_pictures_before_and_after(page):
    page.find("#query").send_keys("a heart")
    page.run("document.getElementById('status').textContent = ''")
    page.find("#ask button").click()
    settled(page)
    for side in ("before", "after"):
        assert page.run(f"return document.querySelectorAll('#near-{side} img').length") == 8
    page.find("#near-after button").click()  # what is near to that picture
    time.sleep(0.2)
    settled(page)
    assert page.run("return document.querySelectorAll('#texts-after li').length") == 8
    time.sleep(0.3)
    loaded = page.run("return [...document.querySelectorAll('#near-after img')].map((i) => i.naturalWidth)")
    assert all(loaded)
    assert page.errors() == []


def test_captions_from_outside_stay_text(page):
    page.find("#query").send_keys(HOSTILE)
    page.run("document.getElementById('status').textContent = ''")
    page.find("#ask button").click()
    settled(page)
    assert page.text("#asked") == HOSTILE
    for place in range(4):  # the texts near to pictures, the odd ones among them
        page.run("document.getElementById('status').textContent = ''")
        page.driver.find_elements("css selector", "#near-after button")[place].click()
        settled(page)
        assert page.run("return document.querySelectorAll('#texts-after li').length") == 8
    assert page.driver.title.startswith("Headwise")
    assert page.run("return document.querySelectorAll('b').length") == 0
    assert page.errors() == []


def test_what_was_found_is_saved(page, folder):
    clicked(page, "L4.H0")
    page.find("#save").click()
    time.sleep(1)
    assert "explored-1" in page.text("#saved")
    assert {str(head) for head in Mask.from_pretrained(folder / "explored-1").heads} == {*CHOSEN, "L4.H0"}


def test_no_barrier_and_no_sideways_scrolling(page):
    for scheme in ("light", "dark"):
        page.media(scheme=scheme)
        page.shot(f"explore-{scheme}")
        assert page.violations() == []
    page.media()
    page.size(360, 740)
    assert page.run("return document.documentElement.scrollWidth") <= 360
    page.shot("explore-phone")
    assert page.violations() == []


def test_on_paper_it_is_what_was_found_without_its_controls(page):
    page.media(scheme="dark", media="print")
    page.size(794, 1123)  # A4 at 96 dots an inch
    shown = "const e = document.querySelector(arguments[0]); return getComputedStyle(e).display !== 'none'"
    for control in ("nav", ".bar", "#ask", "#save", "#search"):
        assert not page.run(shown, control) or not page.find(control).is_displayed(), control
    for result in ("#verdict", "#metrics", "#plane", "#L4\\.H0", "#counts"):
        assert page.find(result).is_displayed(), result
    assert (
        page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    )  # dark screens too
    assert page.run("return document.documentElement.scrollWidth") <= 794
    page.shot("explore-print")
    assert page.errors() == []
    page.media()

"""report.html in a real browser: what a reader sees, clicks and types."""

import io
import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "reports"))
from sample_results import RESULTS

from headwise.data.pairs import ImageRef, Pairs, hash_bytes
from headwise.reports.gallery import gallery
from headwise.reports.head_cards import Heads
from headwise.reports.page import page_html

WORDS = [
    "a red bus",
    '</script><script>document.title = "broken"</script>',
    "שלום עולם חתול",
    "👩‍🚀 in space",
    "قطة سوداء",
    "a|b & <b>bold</b>",
]


def picture(number: int) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (40, 20 + number), (40 * number % 255, 90, 160)).save(buffer, "PNG")
    return buffer.getvalue()


def pairs() -> Pairs:
    """Six images of one caption each; the last cannot be read any more."""

    def gone() -> bytes:
        raise FileNotFoundError("moved")

    bytes_of = [picture(number) for number in range(6)]
    images = [ImageRef(f"row {n}", lambda data=data: data, hash_bytes(data)) for n, data in enumerate(bytes_of)]
    images[5] = ImageRef("row 5", gone, "0" * 32)
    return Pairs("pairs.csv", tuple(images), tuple((w,) for w in WORDS), tuple(f"{n}.png" for n in range(6)))


@pytest.fixture(scope="module")
def page(tmp_path_factory) -> Path:
    before = {"image_retrieval": np.array([0, 3, 12, 0, 7, 2]), "text_retrieval": np.array([1, 0, 0, 30, 4, 0])}
    after = {"image_retrieval": np.array([4, 0, 0, 0, 7, 11]), "text_retrieval": np.array([0, 0, 15, 9, 4, 0])}
    found = gallery(pairs(), before, after)
    path = tmp_path_factory.mktemp("page") / "report.html"
    cards = {
        "L1.H2": [
            {
                "title": "What it writes",
                "lines": ["edge density, r = 0.61 on unseen images", WORDS[1], WORDS[2]],
                "pictures": ["0.png", "gone.png"],
                "maps": ["048f", ""],
            }
        ]
    }
    html = page_html(
        RESULTS,
        gallery=found,
        evaluations=[(0, 0.2975), (1, 0.31), (1, 0.29), (2, 0.319)],
        heads=Heads(cards),
        name="refined",
    )
    path.write_text(html, encoding="utf-8")
    return path


def test_the_page_is_whole_and_asks_for_nothing(browser, page):
    browser.open(page)
    browser.shot("report")
    assert browser.errors() == []
    assert browser.requests() == []
    assert RESULTS["model"]["name"] in browser.driver.title  # no text of the data has run as a script
    assert "on the test split" in browser.text(".verdict")


def test_text_from_outside_stays_text(browser, page):
    browser.open(page)
    shown = [one.text for one in browser.driver.find_elements("css selector", ".queries .text")]
    assert WORDS[1] in shown
    assert browser.run("return document.querySelectorAll('b').length") == 0


def test_gained_and_lost_queries_with_their_ranks(browser, page):
    browser.open(page)
    lost, gained = (one.text for one in browser.driver.find_elements("css selector", ".queries"))
    # before → after, from 1, of those whose hits at 1, 5 or 10 changed
    for ranks in ("1 → 5", "3 → 12", "1 → 16"):
        assert ranks in lost
    for ranks in ("4 → 1", "13 → 1", "2 → 1", "31 → 10"):
        assert ranks in gained
    assert "5 → 5" not in lost + gained
    assert "cannot be read any more" in lost  # the image that moved
    widths = browser.run("return [...document.querySelectorAll('.queries img')].map((i) => i.naturalWidth)")
    assert widths
    assert all(widths)


def test_clicking_a_head_opens_its_card_and_its_link(browser, page):
    browser.open(page)
    browser.find('[id="L1.H2"]').click()
    assert browser.text("#card h3") == "L1.H2"
    assert "+1.31 points" in browser.text("#card")
    assert "edge density" in browser.text("#card")
    assert browser.run("return location.hash") == "#L1.H2"
    assert browser.run("return document.querySelector('#card img').naturalWidth") > 0
    assert WORDS[1] in browser.text("#card")  # text, not a script
    assert "picture gone" in browser.text("#card")
    # a map is drawn: nothing in the first patch, the last one fully
    script = "const c = document.querySelector('#card canvas'); const d = c.getContext('2d').getImageData(0, 0, 2, 2).data; return [c.width, d[3], d[15]]"
    assert browser.run(script) == [2, 0, 255]
    assert browser.errors() == []


def test_a_link_to_a_head_opens_its_card(browser, page):
    browser.open(page, "#L3.H5")
    assert browser.text("#card h3") == "L3.H5"


def test_hovering_shows_a_head_and_leaving_shows_the_chosen_one_again(browser, page):
    from selenium.webdriver import ActionChains

    browser.open(page, "#L0.H0")
    ActionChains(browser.driver).move_to_element(browser.find('[id="L2.H3"]')).perform()
    assert browser.text("#card h3") == "L2.H3"
    ActionChains(browser.driver).move_to_element(browser.find("h1")).perform()
    assert browser.text("#card h3") == "L0.H0"


def test_arrow_keys_walk_over_the_heads(browser, page):
    from selenium.webdriver.common.keys import Keys

    browser.open(page, "#L0.H0")
    browser.find('[id="L0.H0"]').click()
    for key, head in (
        (Keys.ARROW_RIGHT, "L0.H1"),
        (Keys.ARROW_DOWN, "L1.H1"),
        (Keys.ARROW_LEFT, "L1.H0"),
        (Keys.ARROW_LEFT, "L1.H0"),
        (Keys.ARROW_UP, "L0.H0"),
        (Keys.ARROW_UP, "L0.H0"),
    ):
        browser.driver.switch_to.active_element.send_keys(key)
        assert browser.text("#card h3") == head
    assert browser.run("return document.querySelectorAll('#heads [tabindex=\"0\"]').length") == 1


def test_no_barrier_that_axe_finds_in_light_and_dark(browser, page):
    browser.open(page)
    for scheme in ("light", "dark"):
        browser.media(scheme=scheme)
        browser.shot(f"report-{scheme}")
        assert browser.violations() == []
    browser.media()


def test_a_phone_needs_no_sideways_scrolling(browser, page):
    browser.open(page)
    browser.size(360, 740)
    assert browser.run("return document.documentElement.scrollWidth") <= 360
    browser.shot("report-phone")
    assert browser.violations() == []


def test_in_print_the_card_and_the_tables_are_there(browser, page):
    browser.open(page)
    browser.media(media="print")
    browser.shot("report-print")
    assert browser.run("return getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.find("#controls").is_displayed()
    browser.run("dispatchEvent(new Event('beforeprint'))")  # what a chosen head does is printed
    assert "edge density" in browser.text("details.chosen")
    browser.media()

"""The site of the documents in a real browser, at a desktop's and a phone's width, from a server on this machine."""

import shutil
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOOKED_AT = ("index.html", "tutorial.html", "reference.html", "ladder.html", "export.html")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Built in a folder of its own, as `make docs` builds it."""
    pytest.importorskip("zensical")
    place = tmp_path_factory.mktemp("site")
    shutil.copytree(ROOT / "docs", place / "docs")
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    (place / "mkdocs.yml").write_text(text.replace("paths: [.]", f"paths: [{ROOT}]"), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "-f", place / "mkdocs.yml"],
        check=True,
        capture_output=True,
        cwd=place,
    )
    handler = partial(Quiet, directory=str(place / "site"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield place / "site", f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("name", LOOKED_AT)
def test_a_page_opens_without_complaint_and_fits_a_phone(name, site, browser):
    opened(browser, f"{site[1]}/{name}")
    assert browser.run("return document.querySelector('h1').textContent.length") > 3
    widths = browser.run("return [...document.querySelectorAll('article img')].map((i) => i.naturalWidth)")
    assert all(widths), "a picture is missing"
    assert browser.errors() == []
    assert [url for url in browser.requests() if not url.startswith(site[1])] == []  # no font, no script from elsewhere
    browser.shot(f"site-{Path(name).stem}")
    browser.size(360, 740)
    assert browser.run("return document.documentElement.scrollWidth") <= 360
    browser.shot(f"site-{Path(name).stem}-phone")


def test_the_navigation_leads_to_every_page(site, browser):
    place, address = site
    opened(browser, f"{address}/tutorial.html")
    links = browser.run(
        "return [...document.querySelectorAll('nav.md-nav--primary a.md-nav__link')].map((a) => a.href)"
    )
    pages = {link.partition("#")[0].rpartition("/")[2] for link in links if link.startswith(address)}
    assert pages == {path.name for path in place.glob("*.html")} - {"404.html"}
    browser.run("[...document.querySelectorAll('a.md-nav__link')].find((a) => a.href.endsWith('/refine.html')).click()")
    assert browser.driver.current_url.endswith("/refine.html")
    assert browser.errors() == []


class Quiet(SimpleHTTPRequestHandler):
    """A folder's files, without a log."""

    def log_message(self, *args: object) -> None:
        """Nothing."""


def opened(browser, address: str) -> None:
    """A page at a desktop's width; its console and requests are counted from here."""
    browser.driver.get("about:blank")
    browser.driver.get_log("browser")
    browser.driver.get_log("performance")
    browser.size(1280, 900)
    browser.driver.get(address)

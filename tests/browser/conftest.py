"""A real browser: Debian's chromium, headless, on files of this machine; nothing of it goes to a network."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
AXE = ROOT / ".venv" / "browser" / "node_modules" / "axe-core" / "axe.min.js"  # `make test` puts it there
SHOTS = ROOT / ".screenshots"  # ignored by git, to be looked at
ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
)


class Browser:
    """What the tests do with a page."""

    def __init__(self, driver: Any):
        self.driver = driver

    def open(self, path: Path, anchor: str = "") -> None:
        """A page at a normal window's width; its console and requests are counted from here."""
        self.driver.get_log("browser")
        self.driver.get_log("performance")
        self.driver.get("about:blank")
        self.size(1280, 900)
        self.driver.get(path.resolve().as_uri() + anchor)

    def size(self, width: int, height: int) -> None:
        """The page's own width and height, also those of a phone."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def media(self, *, scheme: str = "light", media: str = "screen") -> None:
        """Light or dark, screen or print."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a script returns."""
        return self.driver.execute_script(script, *arguments)

    def find(self, selector: str) -> Any:
        """One element."""
        return self.driver.find_element("css selector", selector)

    def text(self, selector: str) -> str:
        """The words of one element."""
        return self.find(selector).text

    def errors(self) -> list[str]:
        """What the console complained of."""
        return [entry["message"] for entry in self.driver.get_log("browser") if entry["level"] != "INFO"]

    def requests(self) -> list[str]:
        """Every address asked for since `open`, but pages of this test and data inside them."""
        asked = []
        for entry in self.driver.get_log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                asked.append(message["params"]["request"]["url"])
        return [url for url in asked if not url.startswith(("file:", "data:", "about:", "chrome"))]

    def violations(self) -> list[str]:
        """What axe-core finds wrong for people with keyboards, screen readers and weak eyes."""
        self.run(AXE.read_text(encoding="utf-8"))
        found = self.driver.execute_async_script(
            "const done = arguments[arguments.length - 1]; axe.run().then((r) => done(r.violations));"
        )
        return [f"{one['id']}: {one['help']} ({one['nodes'][0]['target']})" for one in found]

    def shot(self, name: str) -> None:
        """A screenshot of the whole page, for people."""
        SHOTS.mkdir(exist_ok=True)
        height = self.run("return document.documentElement.scrollHeight")
        width = self.run("return document.documentElement.clientWidth")
        self.size(width, min(height, 6000))
        self.driver.save_screenshot(str(SHOTS / f"{name}.png"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory) -> Iterator[Browser]:
    yield from opened(tmp_path_factory.mktemp("chromium"))


def opened(profile: Path) -> Iterator[Browser]:
    """A browser, closed when it is asked for the next one."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium, "The pages' tests need Debian's chromium and chromium-driver: `make browser` installs them."
    assert driver, "The pages' tests need Debian's chromium-driver: `make browser` installs it."
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for argument in (*ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    service = Service(driver, env={**os.environ, "SE_OFFLINE": "true"}, log_output=subprocess.DEVNULL)
    started = webdriver.Chrome(options=options, service=service)
    started.set_page_load_timeout(60)
    started.set_script_timeout(60)
    yield Browser(started)
    started.quit()

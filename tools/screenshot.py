"""A picture of a page for the README, made by the browser of the pages' tests (`make browser` installs it).

python tools/screenshot.py refined/report.html#L4.H0 docs/demo/report.webp
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))
from conftest import opened


def main() -> None:
    """Write the top of the page as WebP."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page")
    parser.add_argument("out", type=Path)
    parser.add_argument("--width", type=int, default=1180)
    parser.add_argument("--height", type=int, default=1740)
    parser.add_argument("--from-y", type=int, default=0)
    asked = parser.parse_args()
    path, _, anchor = asked.page.partition("#")
    started = opened(Path(tempfile.mkdtemp()))
    browser = next(started)
    browser.open(Path(path), "#" + anchor if anchor else "")
    browser.size(asked.width, asked.from_y + asked.height)
    browser.run("scrollTo(0, 0)")
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        browser.driver.save_screenshot(file.name)
        picture = Image.open(file.name).convert("RGB")
    picture.crop((0, asked.from_y, asked.width, asked.from_y + asked.height)).save(asked.out, quality=85, method=6)
    next(started, None)
    print(f"{asked.out}: {asked.out.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()

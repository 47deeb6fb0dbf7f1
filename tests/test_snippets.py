"""The Python blocks of the README and of the documents run, one after the other on each page, on a few pairs."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from conftest import write_pairs
from finished_run import finished_run

import headwise

ROOT = Path(__file__).parents[1]
PAGES = [
    page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if "```python" in page.read_text()
]
# what a test cannot have: a model of the hub, and hours
INSTEAD = {
    '"hf:openai/clip-vit-base-patch32"': '"demo"',
    '"demo", "demo"': '"demo", "pairs.csv"',
    "repeats=3": "repeats=1",
}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with all that the pages name."""
    folder = tmp_path_factory.mktemp("snippets")
    write_pairs(folder, 30)
    for name, start in (("a", 100), ("b", 200), ("new", 300), ("old", 400)):
        pairs = write_pairs(folder / name, 30, start=start)
        pairs.write_text(pairs.read_text().replace("images/", f"{name}/images/"))
        pairs.rename(folder / f"{name}.csv")
    shutil.copy(folder / "images" / "0.png", folder / "cat.jpg")
    run = finished_run(folder / "former")
    shutil.copytree(run, folder / "finished")
    return folder


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_blocks_of_a_page_run(page, place, tmp_path, monkeypatch):
    here = shutil.copytree(place, tmp_path / "here")
    monkeypatch.chdir(here)
    blocks = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)
    if "headwise.refine(" not in "".join(blocks):
        shutil.copytree(here / "finished", here / "refined")
    shutil.copytree(here / "finished", here / "refined-a")
    names: dict[str, object] = {"headwise": headwise}
    for block in blocks:
        for written, runs in INSTEAD.items():
            block = block.replace(written, runs)
        exec(compile(block, f"{page.name}: a block", "exec"), names)

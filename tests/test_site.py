"""The site of the documents: built with warnings as errors, every page in its navigation, every public name in the reference."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

import headwise

ROOT = Path(__file__).parents[1]


def pages(entries) -> list[str]:
    """The files that a navigation names."""
    found = []
    for entry in entries:
        for value in entry.values():
            found += pages(value) if isinstance(value, list) else [value]
    return found


def test_every_page_is_in_the_navigation():
    named = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    assert sorted(named) == sorted(path.name for path in (ROOT / "docs").glob("*.md"))


def test_the_reference_has_every_public_name():
    text = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^::: headwise\.(\w+)$", text, re.MULTILINE)) == set(headwise.__all__) - {"__version__"}


def test_the_site_is_built_without_a_warning(tmp_path):
    pytest.importorskip("zensical")
    shutil.copytree(ROOT / "docs", tmp_path / "docs")
    config = tmp_path / "mkdocs.yml"
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    config.write_text(text.replace("paths: [.]", f"paths: [{ROOT}]"), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict", "-f", config],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    reference = (tmp_path / "site" / "reference.html").read_text(encoding="utf-8")
    assert all(f'id="headwise.{name}"' in reference for name in headwise.__all__ if name != "__version__")
    index = (tmp_path / "site" / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="https?://(?:fonts|cdn|unpkg)', index)  # opens offline

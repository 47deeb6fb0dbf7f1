"""What is published: wheel and sdist are built, pass twine, hold what they say, and the wheel runs the demo in an
environment of its own, outside the checkout."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_bytes
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """Wheel and sdist, the wheel made from the sdist; with the build back end of this environment, so that nothing is
    fetched."""
    out = tmp_path_factory.mktemp("dist")
    made = subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", out, ROOT], capture_output=True, text=True
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert "warning" not in (made.stdout + made.stderr).lower(), made.stdout + made.stderr
    return next(out.glob("*.whl")), next(out.glob("*.tar.gz"))


def metadata(wheel: Path):
    with zipfile.ZipFile(wheel) as file:
        (name,) = [name for name in file.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(file.read(name))


def test_an_index_takes_them(built):
    checked = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", *built], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_the_metadata_is_whole(built):
    from headwise.version import __version__

    said = metadata(built[0])
    assert said["Version"] == __version__
    assert said["License-Expression"] == "Apache-2.0 AND MIT AND CC-BY-4.0"
    assert said["Author"] == "The Headwise developers"
    assert {url.partition(",")[0] for url in said.get_all("Project-URL")} >= {"Documentation", "Source", "Changelog"}
    text = said.get_payload()
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL))
    assert len(links) > 20
    assert not [link for link in links if not link.startswith(("https://", "#"))]


def test_the_wheel_holds_its_licences_and_the_sdist_tests_and_documents(built):
    wheel, sdist = built
    with zipfile.ZipFile(wheel) as file:
        names = set(file.namelist())
    licences = {name.partition("/licenses/")[2] for name in names if "/licenses/" in name}
    assert licences == {
        "LICENSE",
        "NOTICE",
        "headwise/data_files/NOTICE",
        "headwise/demo/pairs/LICENSE",
        "headwise/demo/pairs/ATTRIBUTION.md",
    }
    assert {"headwise/py.typed", "headwise/demo/model/model.safetensors", "headwise/demo/pairs/pairs.parquet"} <= names
    assert not [name for name in names if name.startswith(("tests/", "docs/")) or "__pycache__" in name]
    assert wheel.stat().st_size < 16e6
    with tarfile.open(sdist) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    assert {"tests/conftest.py", "tests/test_package.py", "docs/refine.md", "Makefile", "CHANGELOG.md"} <= inside
    assert not [name for name in inside if name.startswith((".venv", "demo-out"))]


@pytest.mark.slow  # a whole environment and a search: minutes, and the only proof that the wheel lacks nothing
def test_the_wheel_runs_the_demo_in_an_environment_of_its_own(built, tmp_path):
    """The wheel is installed into an empty environment; its libraries are those of this one, found by a .pth file, since
    to install torch again would take gigabytes. The checkout is not on the path."""
    home = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", home], check=True)
    python = home / "bin" / "python"
    (site,) = home.glob("lib/python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", "--quiet"]
    installed = subprocess.run([*pip, built[0]], capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr
    libraries = tmp_path / "libraries"
    libraries.mkdir()
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():  # all but headwise itself
        if "headwise" not in path.name and path.suffix != ".pth":
            (libraries / path.name).symlink_to(path)
    (site / "libraries.pth").write_text(f"{libraries}\n")
    env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    where = subprocess.run(
        [python, "-c", "import headwise; print(headwise.__file__)"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env,
    )
    assert where.stdout.startswith(str(home)), where
    run = subprocess.run(
        [home / "bin" / "headwise", "demo", "--budget", "8", "-o", tmp_path / "out"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env=env | {"HEADWISE_CACHE": str(tmp_path / "cache")},
    )
    assert run.returncode == 0, run.stderr
    assert (tmp_path / "out" / "report.html").is_file()
    assert shutil.which("headwise", path=str(home / "bin"))

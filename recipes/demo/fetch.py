"""Download the packages, by name only, through npm, apt and pip."""

import importlib.util
import json
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from common import Paths, sources

from headwise.errors import HeadwiseError


def run(command: Sequence[str], folder: Path | None = None) -> None:
    """Run a command and show it.

    Raises:
        HeadwiseError: the program is missing or fails.
    """
    print("+", " ".join(command), flush=True)
    if shutil.which(command[0]) is None:
        raise HeadwiseError(f"{command[0]} is not installed; the recipe needs npm, apt-get and dpkg-deb (Debian 12)")
    if subprocess.run(command, cwd=folder, check=False).returncode != 0:
        raise HeadwiseError(f"`{' '.join(command)}` failed; see its message above")


def fetch(paths: Paths) -> None:
    """Get what is not there yet."""
    packages = sources()["packages"]
    _fetch_python(packages["python"])
    _fetch_npm(paths, packages["npm"])
    for package in packages["debian"]:
        _fetch_debian(paths, package)


def _fetch_python(packages: Sequence[str]) -> None:
    modules = {"resvg-py": "resvg_py", "pillow": "PIL"}
    missing = [p for p in packages if importlib.util.find_spec(modules.get(p, p)) is None]
    if missing:
        run([sys.executable, "-m", "pip", "install", "-q", *missing])
    print(f"python: {len(packages) - len(missing)} packages were there, {len(missing)} installed")


def _fetch_npm(paths: Paths, packages: Sequence[str]) -> None:
    missing = [package for package in packages if not _has_npm(paths, package)]
    if missing:
        paths.npm.parent.mkdir(parents=True, exist_ok=True)
        if not (paths.npm.parent / "package.json").exists():
            run(["npm", "init", "-y", "--silent"], paths.npm.parent)
        run(["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", *missing], paths.npm.parent)
    print(f"npm: {len(packages) - len(missing)} packages were there, {len(missing)} installed")


def _has_npm(paths: Paths, package: str) -> bool:
    name, _, version = package.rpartition("@")
    about = paths.npm / name / "package.json"
    return about.exists() and json.loads(about.read_text(encoding="utf-8"))["version"] == version


def _fetch_debian(paths: Paths, package: str) -> None:
    folder = paths.debian / package
    if (folder / "usr/share").exists():
        print(f"debian: {package} was there")
        return
    downloads = paths.debian.parent
    folder.mkdir(parents=True, exist_ok=True)
    if not list(downloads.glob(f"{package}_*.deb")):
        if not list(Path("/var/lib/apt/lists").glob("*Packages*")):  # a fresh machine has no package lists
            run(["apt-get", "update", "-q"])
        run(["apt-get", "download", package], downloads)
    run(["dpkg-deb", "-x", str(next(downloads.glob(f"{package}_*.deb"))), str(folder)])
    print(f"debian: {package} unpacked")

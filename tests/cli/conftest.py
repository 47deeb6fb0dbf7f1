"""One finished run on the packaged model, for the tests that read it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import write_pairs

from .common import SMALL


@pytest.fixture(scope="session")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), 60)


@pytest.fixture(scope="session")
def refined(pairs, tmp_path_factory):
    """One finished run, for the tests that read it."""
    out = tmp_path_factory.mktemp("refined") / "out"
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "headwise",
            "refine",
            "demo",
            pairs,
            "-o",
            out,
            *SMALL,
            "--operator",
            "zero,mean",
            "--json",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    return out, json.loads(done.stdout)

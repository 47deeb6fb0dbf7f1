"""transfer on the packaged model: the matrix is that of evaluate; documented errors."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import write_pairs

from headwise.jobs.evaluate import evaluate
from headwise.jobs.refine import refine
from headwise.jobs.steps.settings import Settings
from headwise.jobs.transfer import transfer


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), 40, splits=("search", "search", "pick", "test"))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("other"), 24, start=100, splits=("search", "pick", "test"))


@pytest.fixture(scope="module")
def masks(pairs, other, tmp_path_factory) -> list[Path]:
    """A mask found on either source; found, not chosen, so that neither is identity."""

    from headwise.edits.mask import Mask

    folders = []
    for i, source in enumerate((pairs, other)):
        base = tmp_path_factory.mktemp("masks")
        settings = Settings(strategies=("greedy",), max_heads=1, controls=2, finalists=1)
        mask = refine("demo", source, settings=settings).mask
        text = f"uniform:L{i + 3}.H0"
        folders.append(base / "mask")
        Mask.parse(mask.grid, text).with_provenance(**mask.provenance).save_pretrained(folders[-1], card="# mask\n")
    return folders


def test_transfer_is_the_matrix_of_evaluate(masks, pairs, other, tmp_path):
    out = tmp_path / "out"
    call = ["demo", "-o", out, "--mask", masks[0], "--mask", masks[1], "--on", pairs, "--on", other, "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "headwise", "transfer", *map(str, call)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert json.loads((out / "transfer.json").read_text()) == results
    assert [row["found_on"] for row in results["masks"]] == [str(pairs), str(other)]
    for row, folder in zip(results["masks"], masks, strict=True):
        for cell, source in zip(row["test"], (pairs, other), strict=True):
            before, after = (
                evaluate("demo", source, mask, only_split="test")["metrics"]["mean_recall"] for mask in (None, folder)
            )
            assert cell["delta"] == pytest.approx(after - before, abs=1e-12)
    means = [np.mean([cell["delta"] for cell in row["pick"]]) for row in results["masks"]]
    best = results["best"]
    assert best["pick_mean"] == pytest.approx(max(0.0, *means))
    assert best["row"] == (int(np.argmax(means)) if max(means) > 0 else None)
    assert "| identity |" in (out / "transfer.md").read_text()
    assert (out / "transfer.png").read_bytes().startswith(b"\x89PNG")


def test_a_mask_that_may_have_seen_the_test_images_is_refused(masks, pairs, tmp_path):
    with pytest.raises(Exception, match="with another split"):
        transfer("demo", [masks[0]], [pairs], tmp_path / "out", split_by="image", seed=5)


def test_transfer_needs_a_mask_of_this_model(pairs, tmp_path):
    call = ["demo", "-o", tmp_path / "out", "--mask", "zero:L40.H0", "--on", pairs]
    done = subprocess.run(
        [sys.executable, "-m", "headwise", "transfer", *map(str, call)], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "L40.H0" in done.stderr
    assert "Traceback" not in done.stderr

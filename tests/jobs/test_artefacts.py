"""What refine leaves behind when one of its artefacts cannot be written: everything else, and exit code 1."""

import json

import pytest
from conftest import write_pairs
from told import Told

from headwise.data.read import read
from headwise.data.splits import split
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.jobs.steps.artefacts import write_model
from headwise.jobs.steps.bench import prepare
from headwise.jobs.steps.opening import check_folder
from headwise.towers import load

QUICK = ["--strategy", "greedy", "--max-heads", "1", "--controls", "1", "--finalists", "2"]
ALL = ["results.json", "splits.json", "head_mask.json", "report.md", "heads.png", "study.sqlite"]


@pytest.fixture
def refined(run, tmp_path):
    """A finished run's folder, and the same command again."""
    pairs, out = write_pairs(tmp_path / "pairs", 24), tmp_path / "out"
    command = ["refine", "demo", pairs, "-o", out, *QUICK]
    code, _, err = run(*command)
    assert code == 0, err
    for name in ("results.json", "splits.json", "head_mask.json", "report.md", "heads.png"):
        (out / name).unlink()
    return out, lambda: run(*command)


def test_a_merge_that_fails_leaves_report_results_mask_and_study(refined):
    out, again = refined
    (out / "model" / "thesis.tex").write_text("mine")  # replacing the folder would delete it
    code, _, err = again()
    assert code == 1
    assert "thesis.tex" in err
    assert "Missing: model/." in err
    assert "Traceback" not in err
    assert all((out / name).is_file() for name in ALL)
    assert "is the refined model" not in (out / "report.md").read_text()
    assert json.loads((out / "results.json").read_text())["chosen"]["mask"]
    assert Mask.from_pretrained(out)
    assert (out / "model" / "thesis.tex").read_text() == "mine"
    (out / "model" / "thesis.tex").unlink()
    code, _, err = again()  # the cause is gone
    assert code == 0, err
    assert (out / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["heads.png", "report.md", "results.json", "head_mask.json"])
def test_any_artefact_that_cannot_be_written_keeps_none_of_the_others(refined, name):
    out, again = refined
    (out / name).mkdir()  # a folder in the place of the file
    (out / name / "x").write_text("")
    code, _, err = again()
    assert code == 1
    assert f"Missing: {name}." in err
    others = [other for other in ALL if other != name and not (name == "results.json" and other == "splits.json")]
    assert all((out / other).is_file() for other in others)
    assert (out / "model" / "model.safetensors").is_file()


def test_the_model_of_a_former_choice_is_not_taken_for_that_of_one_that_does_not_fold(tmp_path):
    bench = prepare(load("demo"), given := read(write_pairs(tmp_path / "pairs", 24)), split(given))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.tex").write_text("mine")
    told = Told()
    mask = Mask.suppress(bench.tower.grid, ["L1.H0"], "cls")  # which needs another attention
    assert not write_model(bench, mask, {}, tmp_path, told)
    assert not (tmp_path / "model").exists()
    assert (tmp_path / "former-model-1" / "thesis.tex").read_text() == "mine"
    assert "model/ of a former choice is now former-model-1/." in told.said[-1]


def test_a_folder_without_its_study_is_still_ones_own(tmp_path):
    """What a run with learned edits leaves, whose study was moved away."""
    for name in (
        *ALL[:-1], "head_mask.safetensors", "learned-spectral-seed0.safetensors", "bp-zero-seed0.safetensors",
        "trained-projection-seed0.safetensors", "refit-projection-seed0.safetensors", "former-model-1", "former-mask-2", "deltas-zero.safetensors", "report.html", "run.toml", "search-embeddings",
    ):  # fmt: skip
        (tmp_path / name).write_bytes(b"")
    check_folder(tmp_path)
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(HeadwiseError, match=r"thesis\.tex"):
        check_folder(tmp_path)

"""verify from the command line: folders that are what their edits say, and folders that are not."""

import json
import shutil

import pytest
from safetensors.torch import load_file, save_file

from .common import refused

MASK = "L0.H1=zero, L5.H2=zero"


@pytest.fixture(scope="module")
def merged(tmp_path_factory):
    from headwise.jobs.merge import merge

    return merge("demo", MASK, tmp_path_factory.mktemp("verify") / "merged").folder


def checks(result) -> dict[str, bool]:
    return {check["name"]: check["passed"] for check in json.loads(result[1])}


def test_a_merged_folder_is_its_edits(merged, run):
    result = run("verify", merged, "--edits", MASK, "--base", "demo", "--json")
    assert result[0] == 0
    found = checks(result)
    assert set(found) == {"files", "edits", "structure", "weights", "preprocessing", "images", "texts"}
    assert all(found.values())


def test_other_edits_are_noticed(merged, run):
    result = run("verify", merged, "--edits", "L0.H1=zero", "--base", "demo", "--json")
    assert result[0] == 1
    found = checks(result)
    assert not found["edits"]
    assert not found["weights"]
    assert not found["images"]
    assert found["texts"]


def test_a_changed_weight_is_noticed(merged, run, tmp_path):
    """One number of the text tower, far too small a change for the probes: the tensors are compared."""
    other = shutil.copytree(merged, tmp_path / "other")
    tensors = load_file(other / "model.safetensors")
    name = next(name for name in tensors if name.startswith("text_model") and name.endswith("fc1.bias"))
    tensors[name][0] += 1e-3
    save_file(tensors, other / "model.safetensors", {"format": "pt"})
    code, out, _ = run("verify", other, "--edits", MASK, "--base", "demo")
    assert code == 1
    assert name in "".join(out.split())
    result = run("verify", other, "--edits", MASK, "--base", "demo", "--json")
    assert [name for name, passed in checks(result).items() if not passed] == ["weights"]


def test_a_damaged_list_of_files_is_noticed(merged, run, tmp_path):
    from headwise.sums import write_sums

    other = shutil.copytree(merged, tmp_path / "other")
    write_sums(other)
    assert run("verify", other, "--edits", MASK, "--base", "demo", "--json")[0] == 0
    (other / "config.json").write_text((other / "config.json").read_text() + " ")
    result = run("verify", other, "--edits", MASK, "--base", "demo", "--json")
    assert result[0] == 1
    assert checks(result) == {"files": False}
    (other / "config.json").unlink()
    assert "lacks config.json" in run("verify", other, "--edits", MASK, "--base", "demo", "--json")[1]


def test_refusals(merged, run, tmp_path):
    refused(run("verify", tmp_path / "no", "--edits", MASK), "is not a folder")
    refused(run("verify", merged, "--edits", MASK), "do not name the model", "--base MODEL")
    refused(run("verify", merged, "--edits", "L9.H9=zero", "--base", "demo"), "L9.H9")

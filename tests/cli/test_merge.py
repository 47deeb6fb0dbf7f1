"""merge from the command line."""

import json

import pytest


def test_merge_of_a_mask_as_text(pairs, run, tmp_path):
    code, out, _ = run("merge", "demo", "L0.H1=zero, L5.H2=zero", "-o", tmp_path / "m", "--json")
    assert code == 0
    assert json.loads(out)["relative_difference"] < 1e-5
    code, out, _ = run("evaluate", tmp_path / "m", pairs, "--json")
    code2, masked, _ = run("evaluate", "demo", pairs, "--mask", "L0.H1=zero, L5.H2=zero", "--json")
    assert code == code2 == 0
    assert json.loads(out)["metrics"] == pytest.approx(json.loads(masked)["metrics"], abs=0.02)

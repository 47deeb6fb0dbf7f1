"""merge from the command line."""

import json

import pytest

import headwise
from headwise.edits.mask import Mask
from headwise.towers import load

from .common import refused


def test_merge_of_a_mask_as_text(pairs, run, tmp_path):
    code, out, _ = run("merge", "demo", "L0.H1=zero, L5.H2=zero", "-o", tmp_path / "m", "--json")
    assert code == 0
    assert json.loads(out)["relative_difference"] < 1e-5
    code, out, _ = run("evaluate", tmp_path / "m", pairs, "--json")
    code2, masked, _ = run("evaluate", "demo", pairs, "--mask", "L0.H1=zero, L5.H2=zero", "--json")
    assert code == code2 == 0
    assert json.loads(out)["metrics"] == pytest.approx(json.loads(masked)["metrics"], abs=0.02)


def test_edits_of_every_head_are_a_text_longer_than_any_file_name(pairs, run):
    text = ", ".join(f"L{row}.H{head}=scale(1.1)" for row in range(6) for head in range(6))
    code, out, error = run("evaluate", "demo", pairs, "--mask", text, "--json")
    assert code == 0, error
    ours = json.loads(out)["metrics"]
    grid = load("demo").tower.grid
    mask = Mask.parse(grid, text)
    assert mask.size == 36
    theirs = headwise.evaluate("demo", pairs, mask)["metrics"]
    assert {name: ours[name] for name in theirs} == theirs


def test_arrays_that_a_text_does_not_hold_are_asked_for(run, pairs, tmp_path):
    out = tmp_path / "out"
    for command in (
        ["merge", "demo", "L2.H1=mean", "-o", out],
        ["export", "demo", "--edits", "L2.H1=mean", "-o", out, "--to", "hf"],
        ["evaluate", "demo", pairs, "--mask", "L2.H1=mean"],
    ):
        refused(run(*command), "'mean' of L2.H1 needs its mean output", "the folder that refine wrote")
    refused(run("merge", "demo", "L2.H1=mean", "-o", out), "--means-from PAIRS")
    refused(run("merge", "demo", "L2.H1=spectral", "-o", out), "'spectral' of L2.H1 needs arrays that are learned")
    assert not out.exists()


LONG = "x" * 300


@pytest.mark.parametrize(
    "ask",
    [
        lambda: headwise.load(LONG),
        lambda: headwise.load(f"hf:{LONG}"),
        lambda: headwise.load(f"open_clip:ViT-B-32/{LONG}"),
        lambda: headwise.load(f"open_clip:local-dir:{LONG}"),
        lambda: headwise.load(f"timm:local-dir:{LONG}"),
        lambda: headwise.read(LONG),
        lambda: headwise.read(f"{LONG}.csv"),
        lambda: Mask.from_pretrained(LONG),
        lambda: headwise.report(LONG),
        lambda: headwise.verify(LONG, edits=LONG),
        lambda: headwise.merge("demo", LONG, "y"),
        lambda: headwise.evaluate("demo", "demo", LONG),
    ],
)
def test_a_name_that_no_file_can_have_is_said(ask):
    with pytest.raises(headwise.HeadwiseError, match=LONG):
        ask()

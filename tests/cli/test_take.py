"""take from the command line: any finalist of a run, with a complete card."""

import json

import pytest

from headwise.edits.mask import Mask

from .common import refused


def test_a_finalist_becomes_a_mask_with_its_card_and_model(refined, pairs, run, tmp_path):
    folder, results = refined
    number, finalist = next(
        (i, one) for i, one in enumerate(results["finalists"], 1) if one["size"] and not one["chosen"]
    )
    code, out, err = run("take", folder, "--mask", number, "-o", tmp_path / "taken", "--json")
    assert code == 0, err
    mask = Mask.from_pretrained(tmp_path / "taken")
    assert str(mask) == finalist["mask"]
    assert mask.provenance["found_by"] == finalist["found_by"]
    assert mask.provenance["seen"]  # the images that it was searched on
    row = json.loads(out)["test"][-1]
    code, out, err = run("evaluate", "demo", pairs, "--mask", tmp_path / "taken", "--against", "identity", "--json")
    assert code == 0, err
    told = json.loads(out)  # on the images that were not searched or picked on: the test split
    assert {name: told["metrics"][name] for name in row["metrics"]} == pytest.approx(row["metrics"])
    assert told["against"]["delta"] == pytest.approx(row["delta"])
    card = (tmp_path / "taken" / "README.md").read_text()
    assert "It was taken by hand" in card
    assert finalist["mask"].split("=")[0] in card
    assert (tmp_path / "taken" / "model" / "config.json").is_file()


def test_what_there_is_not_is_answered_with_what_there_is(refined, run, tmp_path):
    folder, results = refined
    first = next(one for one in results["finalists"] if one["size"])
    refused(run("take", folder, "--mask", "best", "-o", tmp_path / "o"), "no finalist 'best'", first["mask"])
    refused(run("take", folder, "--mask", "identity", "-o", tmp_path / "o"), "nothing to take")
    refused(run("take", tmp_path, "--mask", "ga", "-o", tmp_path / "o"), "results.json")
    assert not (tmp_path / "o").exists()

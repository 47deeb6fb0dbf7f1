"""headwise batch: jobs in folders of their own, checked before the first is run, skipped when they are done."""

import json

import pytest
from conftest import write_pairs

from headwise.cli.batch import arguments
from headwise.errors import HeadwiseError
from headwise.jobs.batch import read_jobs

from .common import refused


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("six"), 6)


def written(folder, text):
    path = folder / "jobs.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_jobs_run_go_on_and_are_summed_up(run, six, tmp_path):
    jobs = f"""
defaults: {{model: demo, pairs: {six}}}
jobs:
  - {{name: first, command: sweep, operator: zero, dtype: float32}}
  - {{name: lost, command: sweep, pairs: {tmp_path}/nowhere.csv}}
"""
    out = tmp_path / "all"
    code, _, err = run("batch", written(tmp_path, jobs), "-o", out)
    assert code == 1
    assert "1 of 2 jobs failed: lost" in err
    first, lost = json.loads((out / "batch.json").read_text())["jobs"]
    assert (first["state"], lost["state"]) == ("done", "failed")
    assert "nowhere.csv does not exist" in lost["reason"]
    assert (out / "first" / "sweep.json").is_file()
    page = (out / "batch.md").read_text()
    assert "2 jobs, 1 done" in page
    assert "[first](first/)" in page
    stamp = (out / "first" / "sweep.json").stat().st_mtime_ns
    code, text, _ = run("batch", written(tmp_path, jobs.split("  - {name: lost")[0]), "-o", out, "--json")
    assert code == 0
    assert json.loads(text)["jobs"] == [first]
    assert (out / "first" / "sweep.json").stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("jobs: [", "not YAML"),
        ("{}", "no `jobs:`"),
        ("jobs: [{command: refine}]\nmore: 1", "'more' is not known"),
        ("jobs: [{command: reboot}]", "none of refine"),
        ("jobs: [{command: sweep, name: ../up}]", "no name of a folder"),
        ("jobs: [{command: sweep, name: Batch.json}]", "the batch writes a file of this name"),
        ("jobs: [{command: sweep, name: a}, {command: sweep, name: a.log}]", "cannot be called 'a.log'"),
        ("jobs: [{command: sweep, name: a}, {command: sweep, name: A}]", "folder of its own"),
        ("jobs: [{command: sweep, out: x}]", "the batch's own"),
        ("jobs: [{command: sweep, operator: {a: 1}}]", "a text, a number"),
        ("jobs: [{command: sweep, model: demo, pairs: x.csv, banana: 1}]", "--banana"),
        ("jobs: [{command: sweep, model: demo}]", "Missing argument 'pairs'"),
        ("jobs: [{command: refine, model: demo, pairs: x.csv, seed: many}]", "seed"),
        ("jobs: [{command: refine, model: demo, pairs: x.csv, race: true}]", "no option --race"),
    ],
)
def test_what_is_wrong_is_said_before_anything_runs(run, tmp_path, text, said):
    refused(run("batch", written(tmp_path, text), "-o", tmp_path / "out"), said)
    assert not (tmp_path / "out").exists()


def test_options_are_written_as_on_the_command_line(tmp_path):
    path = written(
        tmp_path,
        "defaults: {model: demo, seed: 3}\n"
        "jobs:\n  - {command: transfer, name: t, mask: [a/, b/], on: [x.csv], check_weights: false, allow-searched: true}\n"
        "  - {command: refine, pairs: -x.csv, seed: 4, explain: false}",
    )
    first, second = read_jobs(path)
    assert arguments("transfer", first.options, tmp_path / "t") == [
        "transfer", "demo", "--seed=3", "--mask=a/", "--mask=b/", "--on=x.csv", "--no-check-weights", "--allow-searched",
        "--out", str(tmp_path / "t"),
    ]  # fmt: skip
    assert second.name == "2"
    assert arguments("refine", second.options, tmp_path / "2")[:4] == ["refine", "demo", "-x.csv", "--seed=4"]


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(HeadwiseError, match="cannot be read"):
        read_jobs(tmp_path / "none.yaml")

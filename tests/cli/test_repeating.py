"""--config, and the run.toml that a run leaves: it repeats the run."""

import json
import tomllib

import pytest

from headwise.checked import read_results
from headwise.cli.repeating import read_run, run_text

from .common import refused

FAST = ["--budget", "20", "--strategy", "greedy", "--controls", "2", "--finalists", "2"]


def test_a_run_leaves_the_file_that_repeats_it(pairs, run, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    assert run("refine", "demo", pairs, "-o", first, *FAST, "--max-heads", 2, "--skip-bad")[0] == 0
    said = tomllib.loads((first / "run.toml").read_text())
    assert said == {
        "command": "refine",
        "model": "demo",
        "pairs": str(pairs),
        "out": str(first),
        "strategy": "greedy",
        "budget": 20.0,
        "max-heads": 2,
        "controls": 2,
        "finalists": 2,
        "skip-bad": True,
    }
    assert "# level = 0.05" in (first / "run.toml").read_text()
    code, out, err = run("refine", "--config", first / "run.toml", "-o", second, "--json")  # what is typed counts more
    assert code == 0, err
    assert json.loads(out) == read_results(second / "results.json")
    assert (second / "results.json").read_bytes() == (first / "results.json").read_bytes()
    assert tomllib.loads((second / "run.toml").read_text()) == said | {"out": str(second)}


def test_lists_and_words_of_a_file(pairs, run, tmp_path):
    path = tmp_path / "t.toml"
    out = tmp_path / "out"
    path.write_text(
        f'model = "demo"\nmask = ["L4.H0=zero", "L1.H1=zero"]\non = ["{pairs}"]\nout = "{out}"\n'
        'split-by = "image"\njson = true\n'
    )
    code, printed, err = run("transfer", "--config", path)
    assert code == 0, err
    assert [row["mask"] for row in json.loads(printed)["masks"]] == ["L4.H0=zero", "L1.H1=zero"]
    assert tomllib.loads((out / "run.toml").read_text())["mask"] == ["L4.H0=zero", "L1.H1=zero"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("budget = ", "no TOML"),
        ("bugdet = 3", "has no option 'bugdet'"),
        ('command = "compare"', "run headwise compare"),
        ("[budget]\na = 1", "is a table"),
        ("config = 'x'", "has no option 'config'"),
        ("budget = 'many'", "number"),
    ],
)
def test_a_file_that_is_none_is_refused(run, tmp_path, text, said):
    path = tmp_path / "run.toml"
    path.write_text(text)
    code, _, err = run("refine", "demo", "gone.csv", "-o", tmp_path / "o", "--config", path)
    assert code in (1, 2)
    assert said in " ".join(err.split())
    refused(run("refine", "demo", "x", "-o", tmp_path / "o", "--config", tmp_path / "no.toml"), "no.toml")


def test_text_of_every_kind_comes_back(tmp_path):
    values = {"out": 'a "b" \\ \x7f \n é 👩‍🚀', "budget": 1e-05, "exact": True, "mask": ["x", "y,z"], "model": None}
    path = tmp_path / "run.toml"
    path.write_text(run_text("sweep", values, list(values)), encoding="utf-8")
    takes = {"out": False, "budget": False, "exact": False, "mask": True}
    assert read_run(path, "sweep", takes) == {key: value for key, value in values.items() if value is not None}
    assert "cannot hold" in run_text("sweep", {"out": "\udcff"}, ["out"])

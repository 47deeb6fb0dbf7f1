"""Columns that are named hold for every source of a command: kept domains, pairs for the means."""

import csv
import json
from pathlib import Path

import pytest
from conftest import write_pairs

from headwise.edits.mask import Mask

COLUMNS = {"image": "bild", "caption": "titel"}
OPTIONS = ["--image", "bild", "--caption", "titel"]


def renamed(path: Path) -> Path:
    """The pairs again with other names of columns, and a column of captions that are of no image."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    out = path.with_name("renamed.csv")
    with out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*COLUMNS.values(), "text"])
        writer.writerows([row["image"], row["caption"], "nothing"] for row in rows)
    return out


@pytest.fixture(scope="module")
def new(tmp_path_factory) -> Path:
    return renamed(write_pairs(tmp_path_factory.mktemp("new"), 30))


@pytest.fixture(scope="module")
def old(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("old"), 30, start=100)


@pytest.mark.parametrize("command", ["refine", "compare", "front"])
@pytest.mark.parametrize("kind", ["same columns", "its own", "named behind it"])
def test_kept_domains(run, new, old, tmp_path, command, kind):
    if command == "front":
        pytest.importorskip("pymoo")
    kept = {"same columns": renamed(old), "its own": old, "named behind it": f"{renamed(old)}?caption=titel"}[kind]
    arguments = [command, "demo", new, "-o", tmp_path / "out", *OPTIONS, "--keep-domain", kept, "--dry-run"]
    arguments += ["--strategy", "greedy"] if command == "compare" else []
    code, out, err = run(*arguments)
    assert code == 0, err
    assert "the front" in out if command == "front" else Path(kept).name.partition("?")[0] in "".join(out.split())


def test_captions_of_the_named_column_are_what_a_kept_domain_is_scored_on(new, old):
    """By the score of the unchanged model on the kept domain's test images, as evaluate has it."""
    from headwise.data.read import read
    from headwise.data.splits import split
    from headwise.jobs.evaluate import evaluate
    from headwise.jobs.refine import refine
    from headwise.jobs.steps.settings import Settings

    settings = Settings(strategies=("greedy",), max_heads=1, controls=2, finalists=2, budget=40)
    found = refine("demo", str(new), keep=[str(renamed(old))], settings=settings, **COLUMNS).results["kept"]["domains"]
    pairs = read(str(old))
    test = pairs.subset(list(split(pairs).test))
    assert found[0]["before"] == pytest.approx(evaluate("demo", test)["metrics"])


def test_pairs_for_the_means(run, new, old, tmp_path):
    code, _, err = run("merge", "demo", "L4.H0=mean", "-o", tmp_path / "a", "--means-from", new, *OPTIONS, "--json")
    assert code == 0, err
    plain = new.with_name("pairs.csv")
    code, out, _ = run("merge", "demo", "L4.H0=mean", "-o", tmp_path / "b", "--means-from", plain, "--json")
    assert code == 0
    assert json.loads(out)["relative_difference"] < 1e-4
    one, other = (Mask.from_pretrained(tmp_path / name) for name in "ab")
    assert one.is_bound
    assert one.key == other.key


def test_an_option_of_pairs_without_pairs_is_an_error(run, tmp_path):
    code, _, err = run("merge", "demo", "L4.H0=zero", "-o", tmp_path / "m", "--caption", "titel")
    assert code == 1
    assert "--caption" in err
    assert "--means-from" in err
    assert not (tmp_path / "m").exists()


def test_an_option_of_merge_that_there_is_not_is_an_error(tmp_path):
    from headwise.errors import HeadwiseError
    from headwise.jobs.merge import merge

    with pytest.raises(HeadwiseError, match="captoin"):
        merge("demo", "L4.H0=zero", tmp_path / "m", captoin="titel")  # type: ignore[arg-type]

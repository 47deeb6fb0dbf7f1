"""evaluate from the command line, beside what refine measured."""

import csv
import json

import numpy as np
import pyarrow.parquet as parquet
import pytest

from .common import refused

MASK = "L4.H0=zero, L2.H1=zero, L3.H1=zero, L0.H0=zero"


def test_numbers_of_the_test_table_are_those_that_evaluate_gives(refined, pairs, run):
    """The same images, in the same precision, through the other verb."""
    _, printed = refined
    code, out, _ = run("evaluate", "demo", pairs, "--json")
    whole = json.loads(out)
    assert code == 0
    assert whole["metrics"]["mean_recall"] > 0
    assert set(whole["metrics"]) >= {"image_retrieval_recall@1", "text_retrieval_recall@10"}
    assert set(printed["test"][0]["metrics"]) == {k for k in whole["metrics"] if k in printed["test"][0]["metrics"]}


def test_against_is_the_paired_change(pairs, run, tmp_path):
    """As from the ranks of two evaluations, query by query and group by group."""
    source = pairs.parent / "grouped.csv"
    with pairs.open(newline="") as file, source.open("w", newline="") as out:
        header, *rows = csv.reader(file)
        csv.writer(out).writerows([[*header, "place"], *([*row, "ab"[len(row[1]) % 2]] for row in rows)])
    ranks = []
    for mask in ("identity", MASK):
        file = tmp_path / f"{len(ranks)}.parquet"
        assert run("evaluate", "demo", source, "--mask", mask, "--per-query", file, "-q")[0] == 0
        ranks.append(parquet.read_table(file))
    options = ("--against", "identity", "--by", "group", "--group", "place")
    code, out, err = run("evaluate", "demo", source, "--mask", MASK, *options, "--json")
    assert code == 0, err
    found = json.loads(out)
    told = found["against"]
    merits = [sum((table["rank"].to_numpy() < k).astype(float) for k in (1, 5, 10)) / 3 for table in ranks]
    change = merits[1] - merits[0]
    assert (told["queries"]["gained"], told["queries"]["lost"]) == ((change > 0).sum(), (change < 0).sum())
    assert told["queries"]["of"] == len(change)
    tasks = ranks[0]["task"].to_pylist()
    apart = [np.mean([c for c, t in zip(change, tasks, strict=True) if t == task]) for task in sorted(set(tasks))]
    assert told["delta"] == pytest.approx(sum(apart) / 2)
    assert found["metrics"]["mean_recall"] == pytest.approx(told["after"])
    assert sum(group["images"] for group in told["groups"]) == 60
    assert sum(group["gained"] for group in told["groups"]) == told["queries"]["gained"]
    assert {group["name"] for group in told["groups"]} == {"a", "b"}
    code, out, _ = run("evaluate", "demo", source, "--mask", MASK, *options)
    assert code == 0
    assert f"{told['queries']['gained']:,} queries gained, {told['queries']['lost']:,} lost" in out


def test_by_class_of_labels_and_what_is_refused(pairs, run, tmp_path):
    source = pairs.parent / "labelled.csv"
    with pairs.open(newline="") as file, source.open("w", newline="") as out:
        rows = {row[0]: row for row in list(csv.reader(file))[1:]}
        csv.writer(out).writerows([["image", "label"], *([name, ("cat", "dog")[i % 2]] for i, name in enumerate(rows))])
    code, out, err = run(
        "evaluate", "demo", source, "--mask", MASK, "--against", "L1.H1=zero", "--by", "class", "--json"
    )
    assert code == 0, err
    told = json.loads(out)["against"]
    assert told["mask"] == "L1.H1=zero"
    assert sum(g["images"] * g["delta"] for g in told["groups"]) / 60 == pytest.approx(told["delta"])
    refused(run("evaluate", "demo", pairs, "--against", "identity", "--by", "class"), "has no classes")
    refused(run("evaluate", "demo", pairs, "--against", "identity", "--by", "group"), "has no group column")
    refused(run("evaluate", "demo", pairs, "--by", "group"), "--against identity")
    refused(run("evaluate", "demo", pairs, "--against", "identity", "--by", "colour"), "class, group")

"""cache from the command line: what lies there, and room made there."""

import json

import pytest

from headwise.jobs.cache import cache

from .common import refused


@pytest.fixture
def filled(pairs, run, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
    assert run("evaluate", "demo", pairs, "--mask", "L4.H0=zero", "-q")[0] == 0
    return tmp_path / "cache"


def found(run, *more) -> dict:
    code, out, err = run("cache", "--json", *more)
    assert code == 0, err
    return json.loads(out)


def test_the_parts_and_their_sizes(filled, run):
    shown = found(run)
    assert shown["folder"] == str(filled)
    parts = {part["name"]: part for part in shown["parts"]}
    files = [path for path in filled.rglob("*") if path.is_file() and "locks" not in path.parts]
    assert shown["bytes"] == sum(path.stat().st_size for path in files)
    entries = {name: part["entries"] for name, part in parts.items()}
    assert entries == {"pixels": 1, "checked": 1, "texts": 1, "remote": 0, "precision": 1, "reads": 1}
    code, out, _ = run("cache")
    assert code == 0
    assert "decoded images" in out
    assert str(filled) in "".join(out.split())


def test_pruning_leaves_what_was_read_and_the_numbers(filled, pairs, run):
    before = run("evaluate", "demo", pairs, "--mask", "L4.H0=zero", "--json")[1]
    shown = found(run, "--prune", "0")
    assert shown["removed"]["entries"] == 3
    assert {part["name"]: part["entries"] for part in shown["parts"]} == {
        "pixels": 0, "checked": 0, "texts": 0, "remote": 0, "precision": 1, "reads": 1,
    }  # fmt: skip
    assert run("evaluate", "demo", pairs, "--mask", "L4.H0=zero", "--json")[1] == before
    assert found(run)["bytes"] > 0


def test_what_was_used_least_recently_goes_first(filled, run):
    import os

    (shard,) = (filled / "pixels").glob("*/shard.json")
    os.utime(shard, (1, 1))
    size = found(run)["bytes"]
    shown = found(run, "--prune", str(size - 10))
    assert {part["name"]: part["entries"] for part in shown["parts"]}["pixels"] == 0
    assert {part["name"]: part["entries"] for part in shown["parts"]}["texts"] == 1


def test_no_cache_is_an_empty_one(tmp_path, monkeypatch, run):
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "none"))
    assert found(run)["bytes"] == 0
    assert cache(cache_dir=tmp_path / "none", keep=0)["removed"] == {"entries": 0, "bytes": 0}
    assert not (tmp_path / "none").exists()
    refused(run("cache", "--prune", "much"), "'much' is not a cache size")

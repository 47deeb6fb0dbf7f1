"""--profile: the same results, a table whose FFE are those of the run, and a trace in the Trace Event Format."""

import json
import re

import pytest
from conftest import write_pairs

from .common import refused


def test_a_profiled_sweep_is_the_same_and_its_parts_add_up(run, tmp_path):
    pairs, trace = write_pairs(tmp_path / "pairs", 6), tmp_path / "trace.json"
    command = ("sweep", "demo", pairs, "--operator", "zero", "--dtype", "float32", "--json")
    plain = run(*command)
    code, out, err = run(*command, "--profile", trace, "--out", tmp_path / "out")
    assert code == 0, err
    assert json.loads(out) == json.loads(plain[1])
    rows = [re.split(r"\s*│\s*", line.strip("│ \n")) for line in err.splitlines() if line.startswith("│")]
    sums = {row[0]: row[1:] for row in rows}
    assert {"stem", "row 0, attend", "row 5, finish", "pooling", "objective", "study, put", "Sweep (zero)"} <= set(sums)
    ffe = sum(float(row[2]) for name, row in sums.items() if name.startswith("row"))
    assert ffe == pytest.approx(json.loads(out)["ffe"], abs=0.01 * 12)
    events = json.loads(trace.read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"X", "M"}
    (stage,) = [event for event in events if event["name"] == "Sweep (zero)"]
    inside = [event for event in events if event.get("cat") == "objective"]
    assert len(inside) == 37
    assert all(stage["ts"] <= e["ts"] and e["ts"] + e["dur"] <= stage["ts"] + stage["dur"] for e in inside)


def test_workers_cannot_be_timed_from_here(run, tmp_path):
    refused(run("sweep", "demo", "x.csv", "--profile", tmp_path / "t.json", "--workers", 2), "--profile", "--workers")

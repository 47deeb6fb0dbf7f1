"""sweep from the command line."""

import json

from .common import refused


def test_sweep_prints_and_writes_every_head(pairs, run, tmp_path):
    code, out, _ = run("sweep", "demo", pairs, "-o", tmp_path / "s", "--json")
    assert code == 0
    heads = json.loads(out)["sweep"]["heads"]
    assert len(heads) == 36
    assert json.loads((tmp_path / "s" / "sweep.json").read_text())["sweep"]["heads"] == heads
    assert (tmp_path / "s" / "heads.png").read_bytes().startswith(b"\x89PNG")


def test_the_heat_map_of_a_run_is_not_replaced(pairs, run, tmp_path):
    (tmp_path / "results.json").write_text("{}")
    refused(run("sweep", "demo", pairs, "-o", tmp_path), "holds a run of refine", "Give another --out FOLDER")
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]

"""Everything on a device that is not the CPU, without one: the same results, and no tensor of the CPU gets in between."""

import csv
import json
from pathlib import Path

import pyarrow.parquet as parquet
import pytest
import torch
from second_device import second_device
from torch.nn.attention import SDPBackend, sdpa_kernel

from headwise.demo import pairs_file
from headwise.edits.mask import Mask
from headwise.towers import load

CLOCK = {"device", "seconds", "inference", "seconds_per_ffe", "source", "folder", "data", "found_on", "model"}
SMALL = "--controls 2 --finalists 4 --max-heads 3"
SEARCHES = "--budget 40 --population 12 --epochs 2 --strategy greedy,ga,bp"


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """pairs.csv and old.csv with captions, birds.csv with labels, mix.json of both kinds, a mask."""
    folder = tmp_path_factory.mktemp("sources")
    rows = parquet.read_table(pairs_file()).slice(0, 48).to_pylist()
    for i, row in enumerate(rows):
        (folder / f"{i}.png").write_bytes(row["image"]["bytes"])
    split = ("search", "search", "pick", "test")

    def table(name: str, column: str, numbers: range, value) -> None:
        with (folder / name).open("w", newline="", encoding="utf-8") as file:
            lines = [[f"{i}.png", value(i), split[i % 4]] for i in numbers]
            csv.writer(file).writerows([["image", column, "split"], *lines])

    table("pairs.csv", "caption", range(28), lambda i: rows[i]["captions"][0])
    table("old.csv", "caption", range(28, 48), lambda i: rows[i]["captions"][0])
    table("birds.csv", "label", range(20, 48), lambda i: ("circle", "house")[i // 4 % 2])
    parts = [{"source": "{here}/pairs.csv", "weight": 3}, {"source": "{here}/birds.csv", "templates": "plain"}]
    (folder / "mix.json").write_text(json.dumps({"parts": parts}))
    Mask.suppress(load("demo").tower.grid, ["L1.H2", "L4.H0"], "uniform").save_pretrained(folder / "mask")
    return folder


COMMANDS = {
    "refine": f"refine demo pairs.csv -o OUT --operator uniform,mean {SMALL} {SEARCHES}",
    "refine, labels": f"refine demo birds.csv -o OUT --templates plain {SMALL} {SEARCHES}",
    "refine, a mixture": f"refine demo mix:mix.json -o OUT --no-sweep {SMALL} {SEARCHES}",
    "refine, soft": "refine demo pairs.csv -o OUT --operator zero --keep-soft --strategy bp",
    "sweep": "sweep demo pairs.csv --operator cls_row --first-order",
    "evaluate": "evaluate demo pairs.csv mix:mix.json --mask mask",
    "merge": "merge demo mask -o OUT",
    "compare": "compare demo pairs.csv -o OUT --keep-domain old.csv --repeats 1 --budget 40",
    "transfer": "transfer demo --mask mask --on pairs.csv --on old.csv -o OUT",
    "front": "front demo pairs.csv -o OUT --keep-domain old.csv --budget 30",
}


def timeless(found: object) -> object:
    """Without names of places and what a clock says."""
    if isinstance(found, dict):
        return {key: timeless(value) for key, value in found.items() if key not in CLOCK}
    if isinstance(found, list):
        return [timeless(value) for value in found]
    return found


@pytest.mark.parametrize("name", list(COMMANDS))
def test_a_command_finds_the_same_on_another_device(name, folder, run, tmp_path, monkeypatch):
    monkeypatch.setenv("HEADWISE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(folder)

    def call(device: str) -> object:
        arguments = [tmp_path / device if word == "OUT" else word for word in COMMANDS[name].split()]
        precision = [] if name == "merge" else ["--dtype", "float32"]
        code, out, err = run(*arguments, *precision, "--device", device, "--json")
        assert code == 0, err
        return json.loads(out)

    with sdpa_kernel(SDPBackend.MATH):  # one kernel on both: searches amplify the last bits
        expected = call("cpu")
        with second_device() as device:
            assert timeless(call(device)) == timeless(expected)


def test_the_second_device_is_one():
    with second_device() as device:
        x = torch.arange(3.0).to(device)
        assert (x + 1).sum().item() == 6
        for mixed in (lambda: x + torch.ones(3), lambda: torch.ones(3, 3) @ x, lambda: torch.stack([x, torch.ones(3)])):
            with pytest.raises(RuntimeError, match="same device"):
                mixed()
        with pytest.raises(TypeError, match="numpy"):
            x.numpy()

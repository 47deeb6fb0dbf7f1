"""Files of numbers with a damaged byte are never read as other numbers."""

import json
import random
import zlib
from contextlib import suppress

import numpy as np
import pytest
import torch

from headwise.checked import (
    Damaged,
    checksum,
    dump_json,
    dump_tensors,
    inflate,
    load_json,
    load_tensors,
    read_results,
)
from headwise.files import write_files
from headwise.jobs.steps.opening import dump

TENSORS = {"a": torch.arange(24, dtype=torch.float32).reshape(4, 6), "b": torch.arange(7), "h": torch.ones(3).half()}
FACTS = {"key": "0123abcd", "scores": {"pick": [0.125, 1 / 3]}, "heads": ["L0.H1", "L2.H0"]}


def same(tensors, facts) -> bool:
    return (
        facts == FACTS
        and sorted(tensors) == sorted(TENSORS)
        and all(tensors[k].dtype == TENSORS[k].dtype and torch.equal(tensors[k], TENSORS[k]) for k in TENSORS)
    )


def test_every_flipped_bit_of_a_file_of_tensors_is_noticed(tmp_path):
    data = dump_tensors(TENSORS, FACTS)
    assert data == dump_tensors(dict(reversed(TENSORS.items())), dict(reversed(FACTS.items())))  # equal content
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    assert same(*load_tensors(path))
    noticed = 0
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1 << random.Random(place).randrange(8)
        path.write_bytes(flipped)
        try:
            assert same(*load_tensors(path)), place
        except Damaged:
            noticed += 1
    assert noticed > 0.8 * len(data)  # the rest is padding and spelling
    for cut in (0, 7, 100, len(data) - 1):
        path.write_bytes(data[:cut])
        with pytest.raises(Damaged):
            load_tensors(path)


def test_a_file_that_is_not_there_is_not_damaged(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_tensors(tmp_path / "none.safetensors")


def test_every_flipped_bit_of_a_json_index_is_noticed():
    data = dump_json(FACTS)
    assert load_json(data) == FACTS
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        with suppress(Damaged):
            assert load_json(bytes(flipped)) == FACTS
    with pytest.raises(Damaged):
        load_json(b"1" * 10_000 + b"\n{}")
    deep = b"[" * 100_000
    with pytest.raises(Damaged):
        load_json(f"{zlib.crc32(deep)}\n".encode() + deep)


RESULTS = {
    "format": 1,
    "rows": [{"delta": -0.0125, "p": 1e-4, "se": None, "up": True}],
    "name": "größer \udcff",
    3: 0.1,
}


def test_every_flipped_bit_of_a_file_of_results_is_noticed_or_changes_nothing(tmp_path):
    path, expected = tmp_path / "results.json", json.loads(json.dumps(RESULTS))
    write_files(tmp_path, {path.name: dump(RESULTS)})
    assert read_results(path) == expected
    data, noticed = path.read_bytes(), 0
    for place in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[place // 8] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            found = read_results(path)
        except Damaged:
            noticed += 1
        else:  # a space, the case of \udcff, or the word "checksum" itself
            assert {key: found[key] for key in expected if key in found} == expected, place
    assert noticed > 0.6 * 8 * len(data)


def test_results_may_be_spaced_and_ordered_otherwise_but_not_changed(tmp_path):
    path = tmp_path / "results.json"
    written = json.loads(dump(RESULTS))
    path.write_text(json.dumps(dict(reversed(written.items()))))
    expected = read_results(path)
    path.write_text(json.dumps({**written, "format": 2}))
    with pytest.raises(Damaged, match='if you changed it yourself, delete its field "checksum"'):
        read_results(path)
    del written["checksum"]
    path.write_text(json.dumps({**written, "format": 2}))  # as people and older versions write it
    assert read_results(path) == {**expected, "format": 2}
    assert json.loads(dump({**written, "checksum": 7})) == json.loads(dump(RESULTS))  # no part of what is summed


def test_a_checksum_knows_kinds_and_borders():
    rows = [["ab", "c"], ["a", "bc"], ["abc", ""], [b"ab", "c"], [1, "c"], [1.0, "c"], ["1", "c"], [None, "c"]]
    assert len({checksum(row) for row in rows}) == len(rows)
    assert checksum([-0.0, float("nan")]) == checksum([0.0, None])  # as SQLite gives them back


@pytest.mark.parametrize("size", [-1, 0, 9, 11, 10**12])
def test_only_the_announced_size_is_inflated(size):
    data = zlib.compress(bytes(range(10)))
    assert inflate(data, 10) == bytes(range(10))
    with pytest.raises(Damaged):
        inflate(data, size)
    with pytest.raises(Damaged):
        inflate(data + b"more", 10)
    with pytest.raises(Damaged):
        inflate(data[:-1], 10)


def test_a_shard_may_say_bytes_and_floats_alone(tmp_path):
    from headwise.data.shards import DATA, INDEX, open_shard

    crc = zlib.crc32(bytes(48))
    good = {"shape": [1, 3, 2, 2], "dtype": "float32", "table": None, "crc32": crc}
    table = np.arange(768, dtype=float).reshape(3, 256).tolist()
    bad = [
        {**good, "dtype": "O"}, {**good, "dtype": "int32"}, {**good, "shape": [1, 3, 1, 2], "dtype": "float64"},
        {**good, "shape": [1, 12]}, {**good, "shape": [1, -3, -2, 2]}, {**good, "shape": [1, 3, 2, 2.0]},
        {**good, "shape": [1, 3, 1 << 40, 1 << 40]}, {**good, "dtype": "uint8"}, {**good, "table": table},
        {**good, "shape": [1, 3, 4, 4], "dtype": "uint8", "table": [[0.0, 1.0]]}, {**good, "dtype": ["O"]},
    ]  # fmt: skip
    for number, index in enumerate([good, *bad]):
        folder = tmp_path / f"shard{number}"
        folder.mkdir()
        (folder / DATA).write_bytes(bytes(48))
        (folder / INDEX).write_bytes(dump_json(index))
        said = []
        shard = open_shard(tmp_path, folder.name, 1, said.append)
        assert (shard is not None) == (number == 0), index
        assert len(said) == bool(number)

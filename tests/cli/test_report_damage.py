"""A changed number in any file that a page, an explanation or the explorer reads back is noticed, never shown."""

import json
import shutil
from pathlib import Path

import pytest

from headwise.checked import read_results
from headwise.data.read import read
from headwise.errors import HeadwiseError
from headwise.jobs.explain import explain
from headwise.jobs.steps.explaining import of_study
from headwise.jobs.steps.opening import dump
from headwise.jobs.steps.page import images_of

from .common import refused
from .test_report import page_data


def changed(path: Path, old: str, new: str) -> None:
    """One number of a file is another one, of the same length."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("name", "again"),
    {
        "results.json": "refine again",
        "sweep.json": "headwise sweep again",
        "explanation.json": "headwise explain again",
        "compare.json": "headwise compare again",
        "transfer.json": "headwise transfer again",
        "front.json": "headwise front again",
    }.items(),
)
def test_a_page_of_changed_numbers_is_refused(run, tmp_path, name, again):
    path = tmp_path / name
    path.write_text(dump({"test": [{"delta": 0.125}], "sweep": {}, "model": {}, "data": {}, "heads": []}))
    changed(path, "0.125", "0.625")
    refused(run("report", tmp_path), str(path), "checksum differs", again)
    assert [one.name for one in tmp_path.iterdir()] == [name]


def test_changed_results_are_refused_by_all_who_read_them(refined, pairs, run, tmp_path):
    folder = shutil.copytree(refined[0], tmp_path / "out")
    name = refined[1]["model"]["weights_hash"]
    changed(folder / "results.json", name, name[::-1])
    refused(run("report", folder, pairs), "results.json", "checksum differs", "Run the refine again")
    refused(run("explore", folder, pairs), "results.json", "checksum differs", "Run the refine again")
    with pytest.raises(HeadwiseError, match=r"results\.json is not what refine wrote.*checksum differs"):
        of_study(str(folder), None)


@pytest.mark.parametrize(
    "content",
    [
        '{"test": []}',
        '{"test": [], "data": {}}',
        '{"test": [], "model": {"name": "demo", "weights_hash": "0"}, "data": {"source": 5, "hash": "0"}, "chosen": 3}',
        '{"test": [{"what": "identity"}], "model": {"name": "demo", "weights_hash": "0"}, "settings": {},'
        ' "data": {"source": "nowhere.csv", "hash": "0"}, "chosen": {"mask": "identity", "heads": []}}',
    ],
)
def test_results_written_by_hand_that_lack_something_are_a_sentence(run, tmp_path, content):
    (tmp_path / "results.json").write_text(content)
    said = refused(run("report", tmp_path), "results.json lacks something", "Run the refine again")
    assert "Unexpected" not in said
    assert "Unexpected" not in refused(run("explore", tmp_path), "results.json" if "nowhere" not in content else "")


@pytest.mark.parametrize(
    ("place", "value", "by"),
    [
        (("model", "overrides"), None, ["explore", "take"]),
        (("model", "overrides"), {"a": 1}, ["explore", "take"]),
        (("data", "distractors"), {}, ["explore", "take"]),
        (("settings", "objective"), None, ["explore", "take"]),
        (("finalists",), [{}], ["take"]),
        (("test",), [], ["report", "explore"]),
        (("sweep",), [{}], ["report", "explore"]),
        (("progress", 0, "ffe"), float("inf"), ["report"]),
    ],
)
def test_results_that_somebody_changed_are_a_sentence(refined, pairs, run, tmp_path, place, value, by):
    folder = shutil.copytree(refined[0], tmp_path / "out")
    results = json.loads((folder / "results.json").read_text())
    del results["checksum"]
    held = results
    for key in place[:-1]:
        held = held[key]
    held[place[-1]] = value
    (folder / "results.json").write_text(json.dumps(results))
    commands = {
        "report": ["report", folder, pairs],
        "explore": ["explore", folder, pairs],
        "take": ["take", folder, pairs, "--mask", "2", "-o", tmp_path / "taken"],
    }
    for name in by:
        said = refused(run(*commands[name]), "results.json lacks something", "Run the refine again")
        assert "Unexpected" not in said


def test_changed_splits_are_refused(refined, pairs, run, tmp_path):
    folder, given = shutil.copytree(refined[0], tmp_path / "out"), read(pairs)
    first = images_of(folder, "test", given)[0]
    other = images_of(folder, "pick", given)[0]
    changed(folder / "splits.json", f'"{given.ids[first]}"', f'"{given.ids[other]}"')
    said = refused(run("report", folder, pairs), "splits.json", "checksum differs", "continues from its study")
    assert "continues from its study and writes it" in said
    with pytest.raises(HeadwiseError, match="checksum differs"):
        images_of(folder, "search", given)
    (folder / "splits.json").write_text("[3]")
    refused(run("report", folder, pairs), "splits.json", "cannot be read")


def test_a_changed_map_of_attention_is_said_and_left_out(refined, pairs, run, tmp_path):
    folder = shutil.copytree(refined[0], tmp_path / "out")
    texts = tmp_path / "texts.txt"
    texts.write_text("a face\na circle\nan arrow\n")
    explain("demo", pairs, folder / "explanation", mask=folder, texts=texts)
    arrays = folder / "explanation" / "explanation.safetensors"
    data = bytearray(arrays.read_bytes())
    known = read_results(folder / "explanation" / "explanation.json")["arrays"]
    assert known["attention"]
    data[-100] ^= 1 << 6  # attention comes last
    arrays.write_bytes(data)
    code, _, err = run("report", folder, pairs)
    assert code == 0, err
    assert "maps of attention in explanation.safetensors are damaged" in err
    cards = page_data(folder)["cards"]
    assert cards
    assert not any("maps" in part for card in cards.values() for part in card)
    data[8 + int.from_bytes(data[:8], "little") + 100] ^= (
        1  # an effect: made again by the next explain, with the same bytes, and said
    )
    whole = (folder / "explanation" / "explanation.json").read_bytes()
    arrays.write_bytes(data)
    code, _, err = run("explain", folder, pairs, "-o", folder / "explanation", "--texts", texts)
    assert code == 0, err
    assert "1 rows of" in err
    assert "are damaged; they are made again" in err
    assert (folder / "explanation" / "explanation.json").read_bytes() == whole
    assert run("report", folder, pairs)[2].count("damaged") == 0

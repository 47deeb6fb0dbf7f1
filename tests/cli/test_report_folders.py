"""report of folders that no refine wrote: sweep, explain, both, compare, transfer, front; and of none of them."""

import json
import shutil
from html import unescape
from pathlib import Path

import pytest
from conftest import write_pairs

from headwise.checked import read_results
from headwise.jobs.compare import compare
from headwise.jobs.explain import explain
from headwise.jobs.steps.contest_settings import CompareSettings
from headwise.jobs.steps.settings import Settings
from headwise.jobs.sweep import sweep
from headwise.jobs.transfer import transfer
from headwise.reports.words import change, p_value

from .common import refused
from .test_report import page_data

MASK = "L1.H2=zero, L3.H4=zero"


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("few"), 30, splits=("search", "search", "pick", "test"))


@pytest.fixture(scope="module")
def swept(few, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("swept") / "heads"
    sweep("demo", few, folder, first_order=True)
    return folder


@pytest.fixture(scope="module")
def explained(few, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("explained") / "what"
    texts = folder.parent / "texts.txt"
    texts.write_text("a face\na circle\nan arrow\n")
    explain("demo", few, folder, texts=texts, mask=MASK)
    return folder


def written(run, folder: Path, *more: object) -> str:
    """The page; the same command gives the same bytes."""
    page = folder / "report.html"
    code, out, err = run("report", folder, *more)
    assert code == 0, err
    assert "report.html" in out
    first = page.read_bytes()
    page.unlink()
    assert run("report", folder, *more)[0] == 0
    assert page.read_bytes() == first
    return first.decode()


def test_a_sweep_becomes_its_heat_map(swept, few, run, tmp_path):
    folder = shutil.copytree(swept, tmp_path / "heads")
    text, found = written(run, folder), json.loads((swept / "sweep.json").read_text())
    shown = page_data(folder)
    panel, *promised = shown["sweeps"]
    assert len(promised) == 9  # what first-order scores say of the other edits
    assert not any(one["exact"] for one in promised)
    assert {head: one["value"] for head, one in panel["heads"].items()} == {
        one["head"]: one["delta"] for one in found["sweep"]["heads"]
    }
    assert (shown["cards"], shown["pictures"], shown["edited"]) == ({}, {}, {})
    best = max(found["sweep"]["heads"], key=lambda one: one["delta"])
    assert f"<td>{change(best['delta'])}</td>" in text
    assert f"<td>{p_value(best['p_max_t'])}</td></tr>" in text
    assert all(f'id="{one["head"]}"' in text for one in found["sweep"]["heads"])
    assert f"headwise sweep demo {few} -o heads --operator uniform --first-order" in text
    assert "on the pairs given" in text
    for part in (
        "search split",
        "test split",
        "Before and after",
        "Finalists",
        "Controls",
        "chosen",
        "Chosen",
        "Transfer",
    ):
        assert part not in text.split("<main>")[1].split("<script")[0], part


def test_a_sweep_needs_no_pairs_any_more(swept, run, tmp_path):
    folder = shutil.copytree(swept, tmp_path / "heads")
    found = read_results(folder / "sweep.json")
    found["data"]["source"] = str(tmp_path / "gone.csv")
    (folder / "sweep.json").write_text(json.dumps(found))
    (folder / "sweep.sqlite").unlink()
    code, _, err = run("report", folder)
    assert code == 0, err
    assert "cannot be read" not in err
    code, _, err = run("report", folder, tmp_path / "gone.csv")
    assert code == 0, err
    assert "pairs were not read" in err


def test_an_explanation_becomes_cards_with_pictures(explained, run, tmp_path):
    folder = shutil.copytree(explained, tmp_path / "what")
    text, found = written(run, folder), json.loads((explained / "explanation.json").read_text())
    shown = page_data(folder)
    assert set(shown["cards"]) == {one["head"] for one in found["heads"]}
    assert shown["edited"] == {"L1.H2": "zero", "L3.H4": "zero"}
    (panel,) = shown["sweeps"]
    assert {head: one["value"] for head, one in panel["heads"].items()} == {
        one["head"]: one["queries"]["delta"] for one in found["heads"]
    }
    assert panel["operator"] == "zero"
    head = found["heads"][0]
    largest = found["images"][head["examples"]["largest"][0]["image"]]["id"]
    assert shown["pictures"][largest].startswith("data:image/webp")
    assert "on the images for checking" in text
    assert f"--mask '{MASK}'" in unescape(text)
    assert "max-T" not in text.split("<main>")[1].split("<script")[0]  # no such p was computed


def test_an_explanation_without_its_pictures_says_so(explained, run, tmp_path):
    folder = shutil.copytree(explained, tmp_path / "what")
    found = read_results(folder / "explanation.json")
    found["data"]["source"] = str(tmp_path / "gone.csv")
    (folder / "explanation.json").write_text(json.dumps(found))
    code, _, err = run("report", folder)
    assert code == 0, err
    assert "cannot be read any more" in err
    assert "cannot be read any more" in (folder / "report.html").read_text()
    shown = page_data(folder)
    assert shown["cards"]
    assert shown["pictures"] == {}
    refused(run("report", folder, write_pairs(tmp_path / "other", 20, start=200)), "other images or captions")


def test_a_model_without_texts_still_has_its_cards(explained, run, tmp_path):
    folder = shutil.copytree(explained, tmp_path / "what")
    found = read_results(folder / "explanation.json")
    found["identity"] = found["settings"]["fitness"] = None  # as explain writes them of such a model
    for head in found["heads"]:
        head["queries"] = head["labels"] = head["text_span"] = None
    (folder / "explanation.json").write_text(json.dumps(found))
    written(run, folder)
    shown = page_data(folder)
    assert shown["sweeps"] == []
    assert len(shown["cards"]) == len(found["heads"])


def test_a_sweep_with_an_explanation_has_both_and_one_of_something_else_is_left_out(swept, explained, run, tmp_path):
    folder = shutil.copytree(swept, tmp_path / "heads")
    inside = shutil.copytree(explained, folder / "explanation")
    written(run, folder)
    shown, whole = page_data(folder), (inside / "explanation.json").read_text()
    assert shown["sweeps"][0]["operator"] == "uniform"
    assert len(shown["cards"]) == 36
    assert shown["pictures"]
    other = read_results(inside / "explanation.json")
    other["data"]["hash"] = "0" * 32
    for content, said in ((json.dumps(other), "another model or of other pairs"), (whole[:100], "cannot be read")):
        (inside / "explanation.json").write_text(content)
        code, _, err = run("report", folder)
        assert code == 0, err
        assert said in err
        assert said in (folder / "report.html").read_text()
        assert page_data(folder)["cards"] == {}
        assert page_data(folder)["sweeps"]


def test_a_comparison_becomes_its_table(few, run, tmp_path):
    settings = CompareSettings(
        strategies=("greedy",), repeats=1, search=Settings(strategies=("greedy",), budget=8.0, max_heads=1)
    )
    compare("demo", few, tmp_path / "out", settings=settings)
    found = read_results(tmp_path / "out" / "compare.json")
    found["data"]["split_how"] = "</pre><script>alert(1)</script>"
    (tmp_path / "out" / "compare.json").write_text(json.dumps(found))
    text = written(run, tmp_path / "out")
    assert "<th>method</th>" in text
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
    assert '<h2 id="map">' not in text
    assert page_data(tmp_path / "out")["sweeps"] == []


def test_a_transfer_becomes_its_table(few, run, tmp_path):
    transfer("demo", [MASK], [few], tmp_path / "out")
    text = written(run, tmp_path / "out")
    assert f"<td>{MASK}</td>" in text
    assert "<th>found on</th>" in text


def test_a_front_becomes_its_table(few, run, tmp_path):
    pytest.importorskip("pymoo")
    code, _, err = run("front", "demo", few, "-o", tmp_path / "out", "--budget", "12", "--population", "8", "--json")
    assert code == 0, err
    text = written(run, tmp_path / "out")
    points = json.loads((tmp_path / "out" / "front.json").read_text())["points"]
    table = text[text.index("<th>mask</th>") :]
    assert table[: table.index("</table>")].count("<tr>") == len(points)


def test_a_folder_of_none_of_them_is_refused_with_what_was_looked_for(run, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for folder in (tmp_path, tmp_path / "missing"):
        refused(
            run("report", folder),
            "results.json, sweep.json, explanation.json",
            "compare.json, transfer.json, front.json",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("content", ["{", "[]", '{"format": 1}', '{"sweep": {"heads": 3}}', "null"])
@pytest.mark.parametrize("name", ["sweep.json", "explanation.json"])
def test_results_that_cannot_be_read_are_refused(run, tmp_path, name, content):
    (tmp_path / name).write_text(content)
    refused(run("report", tmp_path), name)

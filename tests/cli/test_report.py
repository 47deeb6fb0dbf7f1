"""report from the command line: the page of a finished run, also where something is missing."""

import json
import re
import shutil
import sqlite3
from contextlib import closing

import pytest
from conftest import write_pairs

from headwise.checked import read_results
from headwise.jobs.explain import explain
from headwise.reports.words import change

from .common import refused


def copied(refined, tmp_path):
    """The finished run in a folder of the test's own, of the same name (the page names it)."""
    return shutil.copytree(refined[0], tmp_path / refined[0].name)


def test_the_page_is_written_again_with_the_same_bytes(refined, pairs, run, tmp_path):
    folder = copied(refined, tmp_path)
    before = (folder / "report.html").read_bytes()
    (folder / "report.html").unlink()
    code, out, err = run("report", folder, pairs)
    assert code == 0, err
    assert "report.html" in out
    assert (folder / "report.html").read_bytes() == before
    assert refined[1]["chosen"]["mask"].encode() in before
    assert b"Queries gained and lost" in before


def rows_of_search(folder):
    """The cells of the table of stages."""
    part = (folder / "report.html").read_text(encoding="utf-8").split('<h3 id="search">')[1].split("</table>")[0]
    return [re.findall(r"<td[^>]*>(.*?)</td>", row) for row in part.split("<tbody>")[1].split("</tr>")][:-1]


def test_how_the_search_went_is_what_the_study_holds(refined, tmp_path):
    folder, results = copied(refined, tmp_path), refined[1]
    with closing(sqlite3.connect(folder / "study.sqlite")) as study:
        fitness = dict(study.execute("SELECT mask, fitness FROM evaluations WHERE split = 'search'"))
    assert results["sweep"] == []  # its budget is too small for one
    expected, best = [], 0.0
    for one in results["strategies"]:
        gain = fitness[one["best"]] - fitness["identity"]
        best = max(best, gain)
        expected.append([one["name"], one["operator"], f"{one['ffe']:.1f}", one["best"], change(gain), change(best)])
    assert len(expected) >= 2
    assert rows_of_search(folder) == expected


def test_the_order_of_the_studys_rows_does_not_change_the_page(refined, pairs, run, tmp_path):
    """A damaged score is evaluated again and then recorded last."""
    folder = copied(refined, tmp_path)
    before = (folder / "report.html").read_bytes()
    with closing(sqlite3.connect(folder / "study.sqlite")) as study:
        study.execute("UPDATE evaluations SET id = -id")
        study.execute("UPDATE evaluations SET id = 100000 + id")
        study.commit()
    code, _, err = run("report", folder, pairs)
    assert code == 0, err
    assert "damaged" not in err
    assert (folder / "report.html").read_bytes() == before


def test_pairs_that_moved_are_said_and_the_page_is_there(refined, run, tmp_path):
    folder = copied(refined, tmp_path)
    results = read_results(folder / "results.json")
    results["data"]["source"] = str(tmp_path / "gone.csv")
    (folder / "results.json").write_text(json.dumps(results))
    code, _, err = run("report", folder)
    assert code == 0, err
    assert "cannot be read any more" in err
    page = (folder / "report.html").read_text()
    assert "cannot be read any more" in page
    assert "data:image/webp" not in page


def test_without_its_study_the_page_says_so(refined, pairs, run, tmp_path):
    folder = copied(refined, tmp_path)
    for path in folder.glob("study.sqlite*"):
        path.unlink()
    assert run("report", folder, pairs)[0] == 0
    assert "The study of this run is gone" in (folder / "report.html").read_text()


def test_other_pairs_and_other_folders_are_refused(refined, run, tmp_path):
    folder = copied(refined, tmp_path)
    other = write_pairs(tmp_path / "other", 40, start=200)
    refused(run("report", folder, other), "other images or captions")
    refused(run("report", tmp_path), "results.json")
    (folder / "results.json").write_text("{")
    refused(run("report", folder), "cannot be read")


@pytest.fixture(scope="module")
def explained(refined, pairs, tmp_path_factory):
    """The finished run, copied, with an explanation in it."""
    folder = shutil.copytree(refined[0], tmp_path_factory.mktemp("explained") / refined[0].name)
    texts = folder.parent / "texts.txt"
    texts.write_text("a face\na circle\nan arrow\n")
    explain("demo", pairs, folder / "explanation", mask=folder, texts=texts)
    return folder


def page_data(folder):
    text = (folder / "report.html").read_text(encoding="utf-8")
    return json.loads(text.split('<script type="application/json" id="data">')[1].split("</script>")[0])


def test_an_explanation_in_the_folder_becomes_cards_with_pictures(explained, pairs, run):
    code, _, err = run("report", explained, pairs)
    assert code == 0, err
    found = json.loads((explained / "explanation" / "explanation.json").read_text())
    data = page_data(explained)
    assert set(data["cards"]) == {head["head"] for head in found["heads"]}
    for head in found["heads"]:
        shown = {part["title"]: part for part in data["cards"][head["head"]]}
        largest = [found["images"][one["image"]]["id"] for one in head["examples"]["largest"]][:6]
        assert shown["Pictures it acts on most"]["pictures"] == largest
        assert all(data["pictures"][name].startswith("data:image/webp") for name in largest)
        assert len(shown["Pictures it acts on most"]["maps"][0]) == 64  # 8 × 8 patches
    text = (explained / "report.html").read_text()
    assert f'id="{found["heads"][7]["head"]}"' in text  # an anchor
    assert "What the heads do: <code>headwise explain" not in text


def test_an_explanation_of_something_else_or_a_broken_one_is_said_and_left_out(explained, pairs, run, tmp_path):
    folder = shutil.copytree(explained, tmp_path / explained.name)
    path = folder / "explanation" / "explanation.json"
    whole = path.read_text()
    other = read_results(path)
    other["model"]["weights_hash"] = "0" * 32
    for content, said in ((json.dumps(other), "another model or of other pairs"), (whole[:100], "cannot be read")):
        path.write_text(content)
        code, _, err = run("report", folder, pairs)
        assert code == 0, err
        assert said in err
        assert said in (folder / "report.html").read_text()
        assert page_data(folder)["cards"] == {}
    path.write_text("[]")
    assert run("report", folder, pairs)[0] == 0


def test_an_image_that_no_longer_decodes_is_said_and_the_page_is_written(explained, run, tmp_path):
    own = write_pairs(tmp_path / "pairs", 60)
    folder = shutil.copytree(explained, tmp_path / explained.name)
    results = read_results(folder / "results.json")
    results["data"]["source"] = str(own)
    (folder / "results.json").write_text(json.dumps(results))
    assert run("report", folder)[0] == 0
    assert "data:image/webp" in (folder / "report.html").read_text()
    (own.parent / "images" / "3.png").write_bytes(b"no picture")
    code, _, err = run("report", folder)
    assert code == 0, err
    assert "not an image" in err
    page = (folder / "report.html").read_text()
    assert "cannot be read any more" in page
    assert "data:image/webp" not in page


def test_cards_stay_where_the_pictures_have_moved(explained, run, tmp_path):
    folder = shutil.copytree(explained, tmp_path / explained.name)
    results = read_results(folder / "results.json")
    results["data"]["source"] = str(tmp_path / "gone.csv")
    (folder / "results.json").write_text(json.dumps(results))
    code, _, err = run("report", folder)
    assert code == 0, err
    assert "pictures of the heads&#39; cards cannot be read" in (folder / "report.html").read_text()
    data = page_data(folder)
    assert data["cards"]
    assert data["pictures"] == {}


def test_arrays_that_are_gone_cost_the_maps_alone(explained, pairs, run, tmp_path):
    folder = shutil.copytree(explained, tmp_path / explained.name)
    (folder / "explanation" / "explanation.safetensors").unlink()
    assert run("report", folder, pairs)[0] == 0
    cards = page_data(folder)["cards"]
    assert cards
    assert not any("maps" in part for card in cards.values() for part in card)

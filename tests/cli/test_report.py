"""report from the command line: the page of a finished run, also where something is missing."""

import json
import shutil

from conftest import write_pairs

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


def test_pairs_that_moved_are_said_and_the_page_is_there(refined, run, tmp_path):
    folder = copied(refined, tmp_path)
    results = json.loads((folder / "results.json").read_text())
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

"""The explorer's answers: recall, queries, neighbours, movement, saving; against computations of their own."""

import json
import resource
import shutil
import tempfile
from dataclasses import replace
from threading import Thread

import numpy as np
import pytest
import torch
from exploring import last, opened
from finished_run import CHOSEN, HOSTILE, ODD, finished_run

from headwise.applied.live import apply
from headwise.checked import read_results
from headwise.data.read import read
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.study import Study
from headwise.jobs.evaluate import evaluate
from headwise.jobs.explore import patience
from headwise.jobs.report import finished
from headwise.jobs.steps import exploring
from headwise.jobs.steps.opening import Machine
from headwise.jobs.steps.serving import lines
from headwise.towers import load


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("explore"))


@pytest.fixture(scope="module")
def session(run):
    return opened(run)


def test_the_images_are_of_the_search_split_alone(session, run):
    splits = json.loads((run / "splits.json").read_text())
    assert sorted(session.pairs.ids) == sorted(splits["search"])
    assert len(opened(run, most_images=7).pairs) == 7


def test_what_slow_clicks_take_is_told_with_what_would_make_them_fast():
    assert patience(2.9, 1000) is None
    assert patience(29.3, 1000) == (
        "After a click on the first block it takes about 29 s until all 1,000 images are through, for later blocks less. "
        "--most-images 100 would make it 3 s."
    )
    assert "--most-images" not in (patience(300, 1000) or "--most-images")  # ten images say nothing


def test_what_the_run_did_not_measure_is_refused(tmp_path):
    """Other templates make other texts: recall before would not be the run's."""
    run = finished_run(tmp_path, 30)
    Study(run / "study.sqlite", {"objective": {"fitness": "mean_recall", "texts": "others"}}).close()
    with pytest.raises(HeadwiseError, match=r"other texts.*--templates"):
        opened(run)


def test_recall_is_that_of_evaluate_on_the_same_images(session, run, tmp_path):
    found = last(session, edits={"L1.H2": "uniform", "L4.H0": "uniform(0.4)"})
    assert found["done"] == found["total"] == 40
    search = read(run.parent / "pairs.csv").subset(session.indices)
    mask = Mask.parse(session.chosen.grid, "L1.H2=uniform, L4.H0=uniform(0.4)")
    for which, given in (("before", None), ("after", mask)):
        expected = evaluate("demo", search, mask=given, machine=Machine(dtype="float32"))["metrics"]
        assert {one["name"]: one[which] for one in found["metrics"]} == pytest.approx(expected)


def test_neighbours_and_movement_are_those_of_the_models_own_forward(session):
    model = load("demo")
    pixels = session.streams.pixels[0 : len(session.pairs)]
    with torch.no_grad():
        before = torch.nn.functional.normalize(model.tower.encode(pixels), dim=1)
        with apply(model, Mask.suppress(model.tower.grid, ["L4.H0"], "zero")):
            after = torch.nn.functional.normalize(model.tower.encode(pixels), dim=1)
        text = torch.nn.functional.normalize(model.encode_texts(["a heart"]), dim=1)[0]
    found = last(session, edits={"L4.H0": "zero"}, query={"text": " a heart "})
    assert found["query"]["before"] == (before @ text).argsort(descending=True)[:8].tolist()
    assert found["query"]["after"] == (after @ text).argsort(descending=True)[:8].tolist()
    assert found["moved"]["mean"] == pytest.approx(float((1 - (before * after).sum(1)).mean()), abs=1e-5)
    found = last(session, edits={"L4.H0": "zero"}, query={"image": 3})
    near = (after @ after[3]).argsort(descending=True).tolist()
    assert found["query"]["after"] == [i for i in near if i != 3][:8]
    assert set(found["query"]["after_texts"]) <= set(session.pairs.texts)
    caption = session.pairs.captions[3][0]
    own = torch.nn.functional.normalize(model.encode_texts([caption]), dim=1)[0]
    texts = list(dict.fromkeys(session.pairs.texts))
    with torch.no_grad():
        every = torch.nn.functional.normalize(model.encode_texts(texts), dim=1) @ after[3]
    assert found["query"]["after_texts"] == [texts[i] for i in every.argsort(descending=True)[:8]]
    assert own.shape == after[3].shape


def test_nothing_edited_changes_nothing(session):
    found = last(session, edits={"L1.H2": "scale(1)"})
    assert found["mask"] == "identity"
    assert all(one["before"] == one["after"] for one in found["metrics"])
    assert found["gained"] == found["lost"] == 0
    assert found["points"] == pytest.approx(session.points, abs=1e-3)


def test_captions_in_any_script_are_found_as_they_are(tmp_path):
    session = opened(finished_run(tmp_path, 30, ODD))
    place = session.pairs.ids.index("images/0.png")
    found = last(session, query={"image": place})
    assert set(found["query"]["after_texts"]) <= set(session.pairs.texts)
    assert set(ODD) <= set(session.pairs.texts)
    assert last(session, query={"text": HOSTILE})["query"]["after"]
    from headwise.jobs.explore import _page

    page = _page(tmp_path / "run", finished(tmp_path / "run"), session)
    assert HOSTILE not in page


def test_a_run_that_swept_and_chose_nothing_can_be_explored(session, run):
    """As one of learned edits alone, none of which was shown to be better: the page needs the heads all the same."""
    from headwise.jobs.explore import _page

    results = finished(run)
    results["sweep"], results["chosen"] = [], {**results["chosen"], "heads": [], "edits": {}, "size": 0}
    page = _page(run.parent, results, replace(session, chosen=Mask.identity(session.chosen.grid)))
    for needed in ('id="heads"', 'id="card"', 'data-head="L5.H5"'):
        assert needed in page


def test_an_image_that_no_longer_decodes_is_said(tmp_path):
    folder = finished_run(tmp_path, 30)
    (tmp_path / "images" / "3.png").write_bytes(b"no picture")
    with pytest.raises(HeadwiseError, match="line 5: not an image"):
        opened(folder)


def test_a_newer_click_ends_an_older_one(session):
    older = session.look({"edits": {"L0.H0": "zero"}})
    newer = session.look({"edits": {"L0.H1": "zero"}})
    assert list(older) == []
    assert [one["done"] for one in newer][-1] == 40


def test_the_order_of_coming_counts_not_that_of_being_understood(session):
    """A query has to be embedded, which takes a while."""
    first, second = session.turn(), session.turn()
    newer = session.look({"edits": {"L0.H1": "zero"}}, second)
    older = session.look({"edits": {"L0.H0": "zero"}, "query": {"text": "a text that was never asked for"}}, first)
    assert list(older) == []
    assert [one["done"] for one in newer][-1] == 40


def test_an_error_that_nobody_thought_of_is_told_to_the_page(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def answers():
        yield {"done": 1}
        raise RuntimeError("value cannot be converted")

    first, second = map(json.loads, lines(answers()))
    assert first == {"done": 1}
    assert "RuntimeError" in second["error"]
    (log,) = tmp_path.iterdir()
    assert str(log) in second["error"]


def test_a_save_that_fails_leaves_nothing(run, tmp_path):
    session = opened(shutil.copytree(run, tmp_path / "run"), pairs=run.parent / "pairs.csv")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # as on a full disk
    try:
        with pytest.raises(HeadwiseError, match=r"explored-1 cannot be written: .*save again"):
            session.save({"edits": {"L0.H0": "zero"}})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert session.save({"edits": {"L0.H0": "zero"}}).name == "explored-1"


def test_a_newer_click_does_not_wait_for_what_runs(session):
    older = session.look({"edits": {"L0.H3": "zero"}})
    with session._running:  # as while a chunk is computed
        newer = Thread(target=session.look, args=({"edits": {"L0.H4": "zero"}},), daemon=True)
        newer.start()
        newer.join(30)
        assert not newer.is_alive()
    assert list(older) == []


def test_a_click_that_overflows_spoils_no_other(run):
    session = opened(run)
    with pytest.raises(HeadwiseError, match="not finite"):
        last(session, edits={"L0.H0": "scale(1e30)"})
    for edit in ("scale(1.5)", "zero"):
        assert last(session, edits={"L0.H0": edit})["done"] == 40


def test_first_answers_are_of_some_images_and_right(run, monkeypatch):
    monkeypatch.setattr(exploring, "FIRST", 0.0)
    session = opened(run, machine=Machine(chunk=8))
    answers = list(session.look({"edits": {"L1.H2": "uniform"}, "query": {"image": 39}}))
    assert [one["done"] for one in answers] == [8, 16, 32, 40]
    assert answers[0]["query"] is None  # that image's turn has not come
    assert answers[-1]["query"]["after"]
    some = read(run.parent / "pairs.csv").subset(session.indices[:16])
    expected = evaluate(
        "demo", some, mask=Mask.suppress(session.chosen.grid, ["L1.H2"], "uniform"), machine=Machine(dtype="float32")
    )["metrics"]
    assert {one["name"]: one["after"] for one in answers[1]["metrics"]} == pytest.approx(expected)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"operator": "zero"}, "needs edits"),
        ({"edits": ["L0.H0"]}, "needs edits"),
        ({"edits": {f"L0.H{i}": "zero" for i in range(99)}}, "needs edits"),
        ({"edits": {"L0.H0": "nothing"}}, "not an edit"),
        ({"edits": {"L9.H0": "zero"}}, "L9"),
        ({"edits": {"../../etc": "zero"}}, "etc"),
        ({"edits": {"L0.H0": "scale(-1)"}}, "0 or more"),
        ({"edits": {"L0.H0": "zero(1.5)"}}, "from 0 to 1"),
        ({"edits": {"L0.H0": "scale(nan)"}}, "finite"),
        ({"edits": {"L0.H0": 0}}, "not an edit"),
        ({"edits": {"L0.H0": True}}, "not an edit"),
        ({"edits": {"L0.H0": "shift"}}, "learned"),
        ({"edits": {"L0.H0": "spectral"}}, "learned"),
        ({"edits": {}, "query": {"text": "  "}}, "query is a text"),
        ({"edits": {}, "query": {"image": 40}}, "no image 40"),
        ({"edits": {}, "query": {"image": -1}}, "no image -1"),
        ({"edits": {}, "query": "x"}, "query is a text"),
    ],
)
def test_requests_that_make_no_sense_are_refused(session, request_, said):
    with pytest.raises(HeadwiseError, match=said):
        session.look(request_)


def test_what_was_found_is_saved_with_where_it_comes_from(session, run):
    request = {"edits": {"L1.H2": "mean", "L4.H0": "mean(0.25)"}}
    last(session, **request)
    folders = [session.save(request), session.save({"edits": {"L0.H0": "zero"}})]
    assert [folder.name for folder in folders] == ["explored-1", "explored-2"]
    mask = Mask.from_pretrained(folders[0])
    assert str(mask) == "L1.H2=mean, L4.H0=mean(0.25)"
    assert mask.is_bound
    assert mask.provenance["found_by"] == "explore"
    # its images are known: evaluating it on all pairs leaves them out
    found = evaluate("demo", run.parent / "pairs.csv", mask=folders[0], machine=Machine(dtype="float32"))
    assert found["searched"]["images"] == 40
    for folder in folders:
        shutil.rmtree(folder)


def test_a_model_without_text_tower_finds_images_by_images(session):

    other = replace(session, model=replace(session.model, encode_texts=None))
    with pytest.raises(HeadwiseError, match="no text tower"):
        other.look({"edits": {}, "query": {"text": "a heart"}})
    assert last(other, query={"image": 0})["query"]["before"]


def test_other_pairs_weights_and_broken_folders_are_refused(run, tmp_path):
    folder = shutil.copytree(run, tmp_path / "run")
    results = read_results(folder / "results.json")
    for change, said in (
        ({"model": {"weights_hash": "0" * 32}}, "other weights"),
        ({"data": {"hash": "0" * 32}}, "other images or captions"),
        ({"data": {"source": str(tmp_path / "gone.csv")}}, "gone.csv"),
    ):
        other = {**results, **{key: {**results[key], **value} for key, value in change.items()}}
        (folder / "results.json").write_text(json.dumps(other))
        with pytest.raises(HeadwiseError, match=said):
            opened(folder)
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "splits.json").write_text('{"search": ["not there"]}')
    with pytest.raises(HeadwiseError, match=r"splits\.json cannot be read"):
        opened(folder)
    with pytest.raises(HeadwiseError, match="too few"):
        opened(run, most_images=1)


def test_the_page_begins_with_the_runs_own_choice(session, run):
    from headwise.jobs.explore import _page

    page = _page(run, finished(run), session)
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert data["live"]["edits"] == dict.fromkeys(CHOSEN, "uniform")
    assert data["live"]["widest"] == exploring.WIDEST
    assert len(data["live"]["points"]) == 2 * len(data["live"]["names"]) == 80
    assert np.isfinite(data["live"]["points"]).all()

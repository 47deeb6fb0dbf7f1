"""The explorer's answers: recall, queries, neighbours, movement, saving; against computations of their own."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import write_pairs
from finished_run import CHOSEN, HOSTILE, ODD, finished_run

from headwise.applied.live import apply
from headwise.checked import read_results
from headwise.data.read import read
from headwise.edits.edit import Edit
from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.study import Study
from headwise.jobs.evaluate import evaluate
from headwise.jobs.explore import prepare
from headwise.jobs.refine import refine
from headwise.jobs.report import finished
from headwise.jobs.steps import exploring, guessing
from headwise.jobs.steps.guessing import Guesses
from headwise.jobs.steps.opening import Machine
from headwise.jobs.steps.progress import Silent
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.tasks import Goal
from headwise.search.deltas import HeadDeltas
from headwise.towers import load


def opened(run, **options):
    given = {
        "pairs": None,
        "most_images": 1000,
        "goal": Goal(),
        "machine": Machine(dtype="float32"),  # compared with the model's own forward, to the last neighbour
        "reporter": Silent(),
        "columns": {},
    } | options
    return prepare(run, finished(run), **given)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return finished_run(tmp_path_factory.mktemp("explore"))


@pytest.fixture(scope="module")
def session(run):
    return opened(run)


def last(session, **request) -> dict:
    *_, found = session.look({"edits": {}, **request})
    return found


def test_the_images_are_of_the_search_split_alone(session, run):
    splits = json.loads((run / "splits.json").read_text())
    assert sorted(session.pairs.ids) == sorted(splits["search"])
    assert len(opened(run, most_images=7).pairs) == 7


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
    from dataclasses import replace

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


# ---- what a run knows of single heads


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    folder = tmp_path_factory.mktemp("swept")
    pairs = write_pairs(folder / "pairs", 48, splits=("search", "search", "pick", "test"))
    settings = Settings(rungs=("mask",), strategies=("greedy",), budget=24.0, width=1, controls=1, finalists=1)
    refine("demo", pairs, folder / "run", settings=settings)
    return folder / "run"


def test_heads_that_the_run_swept_are_answered_for_all_images_at_once(swept):
    session = opened(swept)
    first, final = session.look({"edits": {"L4.H0": "uniform"}, "query": {"image": 3}})
    assert first["estimated"]
    assert not final["estimated"]
    assert first["done"] == first["total"] == final["done"] == 24
    assert first["moved"]["mean"] == pytest.approx(final["moved"]["mean"], rel=0.03)
    assert first["points"] == pytest.approx(final["points"], abs=3e-3)
    assert first["query"]["after"][0] == final["query"]["after"][0]
    both, exact = session.look({"edits": {"L4.H0": "uniform", "L4.H1": "uniform"}})
    assert both["estimated"]
    alone = [next(iter(session.look({"edits": {head: "uniform"}})))["points"] for head in ("L4.H0", "L4.H1")]
    assert both["points"] != alone[0]
    assert exact["mask"] == both["mask"]
    few = opened(swept, most_images=7)
    first, final = few.look({"edits": {"L4.H0": "uniform"}})
    assert first["moved"]["mean"] == pytest.approx(final["moved"]["mean"], rel=0.03)


def test_an_estimate_is_never_saved_as_a_score(swept):
    session = opened(swept)
    request = {"edits": {"L4.H0": "uniform"}}
    assert next(iter(session.look(request)))["estimated"]
    assert "scores" not in Mask.from_pretrained(session.save(request)).provenance
    last(session, **request)
    assert "search" in Mask.from_pretrained(session.save(request)).provenance["scores"]


def test_a_dragged_scale_is_answered_at_once_from_what_the_head_did_before(swept):
    session = opened(swept)
    last(session, edits={"L4.H0": "zero"})
    for edit in ("scale(0.5)", "scale(0.9)", "scale(1.5)"):
        first, final = session.look({"edits": {"L4.H0": edit}})
        assert first["estimated"]
        assert first["done"] == first["total"]
        assert first["moved"]["mean"] == pytest.approx(final["moved"]["mean"], rel=0.25)
        assert first["points"] == pytest.approx(final["points"], abs=0.02)
    again, final = session.look({"edits": {"L4.H0": "scale(0.9)"}})  # seen itself by now
    assert again["points"] == pytest.approx(final["points"], abs=2e-3)
    both = next(iter(session.look({"edits": {"L4.H0": "scale(0.2)", "L4.H1": "uniform"}})))
    assert both["estimated"]
    for edits in ({"L4.H1": "zero"}, {"L4.H0": "temperature(0.5)"}, {"L4.H0": "scale(0.9)+self"}):
        assert not any(answer["estimated"] for answer in session.look({"edits": edits}))


def test_what_clicks_computed_is_kept_as_far_as_memory_goes(monkeypatch):
    before = torch.randn(5, 4)
    grid = Grid((3, 3))
    known = Guesses(before)
    monkeypatch.setattr(guessing, "LEARNED", 2 * 5 * 4 * 2)  # bytes: of two heads
    after = {h: before + torch.randn(5, 4) for h in range(3)}
    for h in range(3):
        known.learn(Mask.of(grid, {Head(0, h): Edit.parse("zero")}), after[h])
    assert known.embeddings(Mask.of(grid, {Head(0, 0): Edit.parse("zero")})) is None
    half = known.embeddings(Mask.of(grid, {Head(0, 2): Edit.parse("scale(0.5)")}))
    assert torch.allclose(half, (before + after[2]) / 2, atol=1e-2)
    together = Mask.of(grid, {Head(0, h): Edit.parse("zero") for h in (1, 2)})
    assert torch.allclose(known.embeddings(together), after[1] + after[2] - before, atol=1e-2)
    known.learn(together, after[0])  # of two heads: says nothing of one
    assert known.embeddings(Mask.of(grid, {Head(0, 1): Edit.parse("zero")})) is not None
    assert known.embeddings(Mask.identity(grid)) is None


def test_a_guess_starts_from_the_nearest_mask_that_was_computed():
    before, grid = torch.randn(5, 4), Grid((3, 3))
    after = {h: before + torch.randn(5, 4) for h in range(4)}
    heads = [Head(0, 0), Head(0, 1), Head(0, 2), Head(1, 0)]

    def mask(*edits):
        return Mask.of(grid, {heads[h]: Edit.parse(edit) for h, edit in edits})

    known = Guesses(before)
    for h in range(4):
        known.learn(mask((h, "zero")), after[h])
    pair = mask((0, "zero"), (1, "zero"))
    computed = before + torch.randn(5, 4)  # of both together, far from the sum
    known.learn(pair, computed)
    change = {h: after[h] - before for h in range(4)}
    for wanted, expected in (
        (pair, computed),
        (mask((0, "zero"), (1, "zero"), (2, "zero")), computed + change[2]),  # one more
        (mask((0, "zero"), (1, "scale(0.5)")), computed - change[1] / 2),  # another number
        (mask((0, "zero"), (1, "zero"), (2, "zero"), (3, "scale(2)")), computed + change[2] - change[3]),
        (
            mask((0, "zero"), (2, "zero"), (3, "zero")),
            before + change[0] + change[2] + change[3],
        ),  # three from the pair
        (mask((2, "zero"), (3, "zero")), before + change[2] + change[3]),
    ):
        assert torch.allclose(known.embeddings(wanted), expected, atol=2e-2)
    assert known.embeddings(mask((0, "zero"), (1, "zero"), (2, "keys"))) is None
    known.learn(mask((0, "keys"), (1, "zero")), before)  # nearer, but nothing is known of what would have to go
    assert torch.allclose(
        known.embeddings(mask((0, "zero"), (1, "zero"), (2, "zero"))), computed + change[2], atol=2e-2
    )
    assert torch.allclose(known.embeddings(mask((1, "zero"))), after[1], atol=2e-2)


@pytest.mark.parametrize("edits", [{"L4.H0": "zero"}, {"L4.H0": "uniform", "L2.H1": "scale(0.5)"}, {}])
def test_what_the_run_did_not_sweep_is_computed(swept, edits):
    assert not any(answer["estimated"] for answer in opened(swept).look({"edits": edits}))


@pytest.mark.parametrize("what", ["damaged", "other images", "gone"])
def test_changes_that_cannot_be_trusted_are_left_alone(swept, tmp_path, what):
    run = tmp_path / "run"
    shutil.copytree(swept, run)
    path = run / "deltas-uniform.safetensors"
    if what == "damaged":
        data = bytearray(path.read_bytes())
        data[-1] ^= 1
        path.write_bytes(data)
    elif what == "gone":
        path.unlink()
    else:
        known = HeadDeltas.load(path, None)
        replace(known, identity=known.identity.flip(0)).save(path)
    (answer,) = opened(run).look({"edits": {"L4.H0": "uniform"}})
    assert not answer["estimated"]

"""What the explorer answers before anything is computed: from sweeps, and from what clicks computed before."""

import shutil
from dataclasses import replace

import pytest
import torch
from conftest import write_pairs
from exploring import last, opened

from headwise.edits.edit import Edit
from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.jobs.refine import refine
from headwise.jobs.steps import guessing
from headwise.jobs.steps.guessing import Guesses
from headwise.jobs.steps.settings import Settings
from headwise.search.deltas import HeadDeltas


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
        # three from the pair, three from nothing
        (mask((0, "zero"), (2, "zero"), (3, "zero")), before + change[0] + change[2] + change[3]),
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

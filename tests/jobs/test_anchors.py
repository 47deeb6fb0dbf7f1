"""Anchors of a run: what is read, what they cost, how far finalists move them, and that they hold learned rungs."""

import json
import shutil
from dataclasses import replace

import pytest
import torch
from conftest import write_pairs
from told import Told

import headwise
from headwise.data.read import read, read_beside
from headwise.data.seen import recognised
from headwise.data.splits import split
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.jobs.refine import refine
from headwise.jobs.steps.bench import prepare
from headwise.jobs.steps.clean import seen_by
from headwise.jobs.steps.keeping import with_kept
from headwise.jobs.steps.opening import Machine, anchor_images, kept_benches
from headwise.jobs.steps.settings import Settings
from headwise.search.values import ValueSettings
from headwise.towers import load

SETTINGS = Settings(
    rungs=("scale",),
    choose="best",
    finalists=4,
    controls=2,
    values=ValueSettings(epochs=4, learning_rate=0.05, batch=4, holdout=0.2),
)
OLD = 24  # anchor images


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), 48, splits=("search", "search", "pick", "test"))


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    """A folder of images alone, some in a folder inside it."""
    folder = tmp_path_factory.mktemp("old") / "images"
    pairs = write_pairs(folder.parent / "as", OLD, start=300)
    shutil.copytree(pairs.parent / "images", folder)
    (folder / "more").mkdir()
    (folder / "0.png").rename(folder / "more" / "0.png")
    return folder


@pytest.fixture(scope="module")
def held(source, old, tmp_path_factory):
    out = tmp_path_factory.mktemp("held") / "run"
    return refine("demo", source, out, settings=SETTINGS, anchor=old), out


def test_the_images_alone_are_read_whatever_lies_beside_them(source, old):
    bare = read_beside(old, {}, bare=True)
    assert len(bare) == OLD
    assert not bare.texts
    same = read_beside(source, {}, bare=True)
    assert [one.hash for one in same.images] == [one.hash for one in read(source).images]
    assert not same.texts
    assert same.splits is None


def test_how_far_finalists_move_them_is_measured_and_said(held, old):
    found, out = held
    results = found.results
    assert results["anchors"]["images"] == OLD
    assert results["anchors"]["weight"] == 1.0
    rows = results["finalists"]
    assert rows[0]["anchors_moved"] == 0
    learned = [row for row in rows if row["found_by"].startswith("scale, α ")]
    assert learned
    model = load("demo")
    images = torch.stack([model.preprocess(_picture(image)) for image in read_beside(old, {}, bare=True).images])
    assert results["anchors"]["moved"] == next(row["anchors_moved"] for row in rows if row["chosen"])
    mask = Mask.parse(model.tower.grid, learned[0]["mask"])  # with three digits of every scale
    with torch.no_grad():
        before = model.module.get_image_features(pixel_values=images).pooler_output
        with headwise.apply(model.module, mask):
            after = model.module.get_image_features(pixel_values=images).pooler_output
    moved = float(1 - torch.nn.functional.cosine_similarity(after, before).mean())
    assert moved == pytest.approx(learned[0]["anchors_moved"], rel=0.02)
    for name in ("report.md", "report.html"):
        text = (out / name).read_text()
        assert f"{OLD} anchor images" in text
        assert "anchors moved" in text


def _picture(image):
    import io

    from PIL import Image

    return Image.open(io.BytesIO(image.read())).convert("RGB")


def test_they_hold_and_cost_what_is_said(held, source, old):
    """A heavy weight leaves the anchors where they are; the same run without them moves them."""
    settings = SETTINGS.__class__(**{**_fields(SETTINGS), "anchor_weight": 1000.0})
    tight = refine("demo", source, settings=settings, anchor=old).results
    loose = held[0].results
    assert _most(tight) < 0.2 * _most(loose)
    ffe, plain = loose["ffe"], refine("demo", source, settings=SETTINGS).results["ffe"]
    epochs = next(one for one in loose["strategies"] if one["name"] == "scale")
    assert epochs["ffe"] > 0
    assert ffe["anchors"] > 0
    assert "anchors" not in plain
    assert ffe["before_test"] == pytest.approx(ffe["search"] + ffe["pick"] + ffe["anchors"])
    search, trained = 24, 24 - round(24 * 0.2)
    once = OLD / search  # embedded once; then as many anchors as images a step, forward and backward
    more = 4 * 2 * trained / search
    assert ffe["search"] - plain["search"] == pytest.approx(once + more, abs=1e-6)


def _fields(settings):
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def _most(results):
    return max(row["anchors_moved"] for row in results["finalists"])


def test_the_same_run_again_has_the_same_bytes_and_other_anchors_are_learned_with_anew(held, source, old, tmp_path):
    _, out = held
    before = (out / "results.json").read_bytes()
    refine("demo", source, out, settings=SETTINGS, anchor=old)
    assert (out / "results.json").read_bytes() == before
    again = tmp_path / "run"
    shutil.copytree(out, again)
    fewer = tmp_path / "fewer"
    shutil.copytree(old / "more", fewer)
    shutil.copy(old / "3.png", fewer)
    shutil.copy(old / "4.png", fewer)
    other = refine("demo", source, again, settings=SETTINGS, anchor=fewer).results
    assert other["anchors"]["images"] == 3
    assert len(list(again.glob("learned-scale-anchored-1-*.safetensors"))) == 2
    assert other["anchors"]["hash"] != json.loads(before)["anchors"]["hash"]


def test_kept_domains_go_on_working_with_them(source, old, tmp_path):
    domain = write_pairs(tmp_path / "kept", 30, start=400)
    settings = SETTINGS.__class__(**{**_fields(SETTINGS), "max_loss": 100.0})
    results = refine("demo", source, settings=settings, anchor=old, keep=[str(domain)]).results
    assert results["kept"]["domains"][0]["data"]["images"] == 30
    assert len(results["finalists"]) > 1
    parts = ("search", "pick", "kept", "anchors")
    assert results["ffe"]["before_test"] == pytest.approx(sum(results["ffe"][name] for name in parts))


def test_the_plan_counts_them(source, old):
    plain = refine("demo", source, settings=SETTINGS, dry_run=True).results["stages"]
    plan = refine("demo", source, settings=SETTINGS, anchor=old, dry_run=True).results["stages"]
    costs = {stage["stage"]: stage["ffe"] for stage in plan}
    assert costs["embedding the anchors"] == pytest.approx(OLD / 24)
    assert costs["how far finalists move the anchors"] > 1
    assert costs["learning scale"] > next(stage["ffe"] for stage in plain if stage["stage"] == "learning scale")


def test_images_of_the_data_themselves_are_left_out(source, old, tmp_path):
    folder = tmp_path / "mixed"
    shutil.copytree(old, folder)
    shutil.copy(source.parent / "images" / "3.png", folder / "mine.png")  # of the test split
    results = refine("demo", source, settings=SETTINGS, anchor=folder).results
    assert results["anchors"]["images"] == OLD
    with pytest.raises(HeadwiseError, match="have to be left out"):
        refine("demo", source, settings=SETTINGS, anchor=source.parent / "images")


def test_what_is_refused(run, source, old, tmp_path):
    out = ("-o", tmp_path / "out")
    code, _, err = run("refine", "demo", source, *out, "--rungs", "mask", "--anchor", old)
    assert code == 1
    assert "no such rung is asked for" in " ".join(err.split())
    rungs = ("--rungs", "scale", "--anchor")
    for anchor, said in ((tmp_path / "none", "does not exist"), (_empty(tmp_path), "holds no images")):
        code, _, err = run("refine", "demo", source, *out, *rungs, anchor)
        assert code == 1
        assert said in " ".join(err.split())
    broken = tmp_path / "broken"
    shutil.copytree(old, broken)
    (broken / "5.png").write_bytes(b"no picture")
    code, _, err = run("refine", "demo", source, *out, *rungs, broken)
    assert code == 1
    assert "5.png" in err
    code, _, err = run("refine", "demo", source, *out, "--rungs", "scale", "--anchor-weight", "2")
    assert code == 1
    assert "--anchor" in err
    code, _, err = run("refine", "demo", source, *out, *rungs, old, "--anchor-weight", "-1")
    assert code == 1
    assert "anchor_weight" in err


def _empty(folder):
    (folder / "empty").mkdir()
    return folder / "empty"


def test_a_budget_has_to_pay_for_embedding_them(source, old, tmp_path):
    few = write_pairs(tmp_path / "few", 12, splits=("search", "search", "pick", "test"))
    settings = Settings(rungs=("mask", "scale"), budget=9.0, controls=1)
    with pytest.raises(HeadwiseError, match=r"embedding the anchors takes 4\.0\. Give at least budget=13"):
        refine("demo", few, settings=settings, anchor=old)


def test_images_that_judge_kept_domains_are_no_anchors(source, tmp_path):
    """What training holds in place says nothing of what an edit does to old data."""
    kept = write_pairs(tmp_path / "kept", 24, start=300, splits=("search", "search", "pick", "test"))
    told = Told()
    bench = prepare(load("demo"), given := read(source), split(given))
    domains = kept_benches(bench.model, [kept], given, None, 0, Machine(), told)
    found = anchor_images(kept, with_kept(bench, domains), bench.model, Machine(), told, {})
    judged = {domains[0].pairs.images[i].hash for name in ("pick", "test") for i in domains[0].indices(name)}
    assert len(found.pairs) == 24 - len(judged) == 12
    assert not judged & {image.hash for image in found.pairs.images}
    assert any("12 images by which a kept domain is judged are left out" in said for said in told.said)
    memory = seen_by(replace(bench, anchored=found))["search"]
    assert recognised(found.pairs, [memory]).all()  # evaluate takes them for searched

"""`headwise explain` and `refine --explain`: what they write, resume, never the test split, bad input."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from conftest import write_pairs
from planted_head import noise_pictures, planted_model, planted_pairs
from safetensors.numpy import load_file

from headwise.data.pairs import ImageRef
from headwise.data.read import read
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation import engine
from headwise.explanation import effects as effects_room
from headwise.jobs.explain import explain
from headwise.jobs.steps.explaining import of_study
from headwise.reports.explanation import summary
from headwise.towers import load

FILES = {"explanation.json", "explanation.md", "explanation.safetensors", "explanation.sqlite"}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), 60)


@pytest.fixture(scope="module")
def done(pairs, tmp_path_factory):
    out = tmp_path_factory.mktemp("explained") / "out"
    texts = out.parent / "texts.txt"
    texts.write_text("a face\na circle\nan arrow\na letter\na house\nan animal\n")
    return explain("demo", pairs, out, texts=texts), out, texts


def test_total_effects_are_the_models_own_difference(done, pairs):
    results, out, _ = done
    model, given = load("demo"), read(pairs)
    arrays = load_file(out / "explanation.safetensors")
    order = [given.ids.index(image["id"]) for image in results["images"]]
    import io

    import torch
    from PIL import Image

    from headwise.applied.live import apply

    chosen = [0, len(order) - 1]
    pictures = [Image.open(io.BytesIO(given.images[order[i]].read())).convert("RGB") for i in chosen]
    pixels = torch.stack([model.preprocess(picture) for picture in pictures])
    with torch.no_grad():
        whole = model.tower.encode(pixels)
        for name in ("L0.H0", "L5.H3"):
            with apply(model, Mask.suppress(model.tower.grid, [name], "zero")):
                without = model.tower.encode(pixels)
            row = [one["head"] for one in results["heads"]].index(name)
            expected = (whole - without).numpy()
            found = arrays["total"][row][chosen].astype(np.float32)
            assert np.abs(found - expected).max() < 2e-3 * np.abs(whole.numpy()).max()


def test_labelling_and_checking_use_different_images_and_never_the_test_split(done, pairs):
    from headwise.data.splits import split

    results, _, _ = done
    given = read(pairs)
    splits = split(given)
    named = {part: {image["id"] for image in results["images"] if image["part"] == part} for part in ("label", "check")}
    assert named["label"] == {given.ids[i] for i in splits.search}
    assert named["check"] == {given.ids[i] for i in splits.pick}
    text = json.dumps(results)
    assert not any(f'"{given.ids[i]}"' in text for i in splits.test)


def test_ranks_of_gained_and_lost_queries_are_those_of_the_objective(done):
    results, _, _ = done
    for card in results["heads"]:
        for kind, better in (("gained", True), ("lost", False)):
            listed = card["queries"][f"{kind}_queries"]
            assert len(listed) == min(10, card["queries"][kind])
            for query in listed:
                crossed = [(query["before"] <= k) != (query["after"] <= k) for k in (1, 5, 10)]
                assert any(crossed)
                assert (query["after"] < query["before"]) == better


def test_where_no_removal_improves_anything_none_is_said_to(done):
    results = json.loads(json.dumps(done[0]))
    best = max(one["queries"]["delta"] for one in results["heads"])
    said = " ".join(summary(results))
    assert ("most for the better" in said) == (best > 0)
    for delta in (0.0, -0.02):
        for one in results["heads"]:
            one["queries"]["delta"] = delta
        said = " ".join(summary(results))
        assert "Removing no head changes it for the better; L0.H0 costs least" in said
        assert "most for the better" not in said


def test_a_run_that_was_killed_continues_and_ends_alike(done, pairs, tmp_path, monkeypatch):
    results, _, texts = done
    monkeypatch.setattr(engine, "MASKS_PER_WALK", 10)
    out, calls = tmp_path / "out", []
    own = effects_room.embed

    def dying(tower, pixels, masks, *args, **options):
        calls.append(len(masks))
        if len(calls) == 3:
            raise KeyboardInterrupt
        return own(tower, pixels, masks, *args, **options)

    monkeypatch.setattr(effects_room, "embed", dying)
    with pytest.raises(KeyboardInterrupt):
        explain("demo", pairs, out, texts=texts)
    assert not (out / "explanation.json").exists()
    assert not (out / "explanation.safetensors").exists()
    before = len(calls)
    again = explain("demo", pairs, out, texts=texts)
    assert len(calls) - before == 2  # of four sets two were done
    assert {path.name for path in out.iterdir()} >= FILES
    for mine, theirs in zip(again["heads"], results["heads"], strict=True):
        assert mine["head"] == theirs["head"]
        assert mine["effect"]["size"] == pytest.approx(theirs["effect"]["size"], rel=1e-3)
        assert mine["queries"]["gained"] == theirs["queries"]["gained"]


def test_the_same_call_again_runs_no_head(done, pairs, monkeypatch):
    results, out, texts = done
    written = (out / "explanation.json").read_bytes()

    def never(*args, **options):
        raise AssertionError("a head was run again")

    monkeypatch.setattr(effects_room, "embed", never)
    assert explain("demo", pairs, out, texts=texts)["heads"] == results["heads"]
    assert (out / "explanation.json").read_bytes() == written


def test_damaged_effects_are_made_again(done, pairs, tmp_path):
    results, out, texts = done
    shutil.copytree(out, tmp_path / "out")
    path = tmp_path / "out" / "explanation.safetensors"
    data = bytearray(path.read_bytes())
    data[len(data) // 4] ^= 0xFF
    path.write_bytes(data)
    assert explain("demo", pairs, tmp_path / "out", texts=texts)["heads"] == results["heads"]
    whole, again = load_file(out / "explanation.safetensors"), load_file(path)
    assert all(np.array_equal(whole[name], again[name]) for name in whole)


def test_another_operator_in_the_same_folder_is_refused(done, pairs):
    _, out, texts = done
    with pytest.raises(HeadwiseError, match="holds another study"):
        explain("demo", pairs, out, texts=texts, operator="uniform")


def test_a_folder_with_something_else_in_it_is_refused(pairs, tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(HeadwiseError, match="not empty"):
        explain("demo", pairs, tmp_path)


def test_without_text_tower_labels_and_recall_are_off_and_the_rest_works(tmp_path):
    model = replace(planted_model(), encode_texts=None, text_hash="")
    results = explain(model, planted_pairs(model, 60), tmp_path / "out")
    assert results["identity"] is None
    for card in results["heads"]:
        assert card["labels"] is None
        assert card["text_span"] is None
        assert card["queries"] is None
        assert card["attributes"]
        assert card["attention"]["entropy"] > 0
        assert card["examples"]["largest"]
    assert "no text tower" in (tmp_path / "out" / "explanation.md").read_text()


def test_pictures_that_are_gone_cost_their_attributes_alone(tmp_path):
    """The pixels are in the cache; the files were moved since."""
    model = planted_model()
    given = planted_pairs(model, 60)
    explain(model, given, tmp_path / "first")

    def gone() -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    moved = tuple(ImageRef(ref.origin, gone, ref.hash, ref.look) for ref in given.images)
    results = explain(model, replace(given, images=moved), tmp_path / "second")
    assert len(results["unreadable"]) == len(results["images"])
    first = json.loads((tmp_path / "first" / "explanation.json").read_text())
    assert [card["labels"] for card in results["heads"]] == [card["labels"] for card in first["heads"]]


def test_odd_captions_survive(tmp_path):
    model = planted_model()
    given = planted_pairs(model, 60)
    odd = ("</script><b>", "مرحبا بالعالم", "🐱🐱 | pipe", "`code`\nline")
    captions = tuple((f"{odd[i % 4]} {i}",) for i in range(60))
    results = explain(model, replace(given, captions=captions), tmp_path / "out")
    again = json.loads((tmp_path / "out" / "explanation.json").read_text())
    said = {image["captions"][0] for image in again["images"]}
    assert said <= {caption for (caption,) in captions}
    rows = [line for line in (tmp_path / "out" / "explanation.md").read_text().splitlines() if line.startswith("| L")]
    assert len([row for row in rows if row.count("|") == 8]) >= len(results["heads"])


def test_labelled_pairs_are_explained_with_their_class_names(tmp_path):
    model = planted_model()
    pictures = noise_pictures(60)
    given = replace(
        planted_pairs(model, 60), captions=((),) * 60, labels=tuple(i % 3 for i in range(60)),
        class_names=("cat", "dog", "bird"),
    )  # fmt: skip
    assert len(pictures) == len(given)
    results = explain(model, given, tmp_path / "out")
    assert results["images"][0]["captions"][0] in ("cat", "dog", "bird")
    assert any(name.startswith("class: ") for name in results["attributes"])
    assert results["settings"]["fitness"] == "acc1"


def test_a_folder_of_refine_stands_for_its_model_and_mask(tmp_path):
    (tmp_path / "results.json").write_text(json.dumps({"model": {"name": "demo"}}))
    assert of_study(str(tmp_path), None) == ("demo", tmp_path)
    assert of_study(str(tmp_path), "L0.H1=zero") == ("demo", "L0.H1=zero")
    assert of_study("demo", None) == ("demo", None)
    (tmp_path / "results.json").write_text("[]")
    with pytest.raises(HeadwiseError, match=r"results\.json is not what refine wrote"):
        of_study(str(tmp_path), None)


def test_most_images_limits_both_parts(tmp_path):
    model = planted_model()
    results = explain(model, planted_pairs(model, 60), tmp_path / "out", most_images=9)
    assert results["data"]["label_images"] == results["data"]["check_images"] == 9
    with pytest.raises(HeadwiseError, match="too few"):
        explain(model, planted_pairs(model, 60), tmp_path / "other", most_images=1)


@pytest.mark.parametrize(("content", "said"), [("", "is empty"), ("one\n", "one text alone")])
def test_texts_of_no_use_are_refused_on_the_command_line(run, pairs, tmp_path, content, said):
    path = tmp_path / "texts.txt"
    path.write_text(content)
    code, _, err = run("explain", "demo", pairs, "-o", tmp_path / "out", "--texts", path)
    assert code == 1
    assert said in err
    assert "Traceback" not in err
    assert not (tmp_path / "out").exists()


def test_the_command_line_prints_the_findings_or_json(run, done, pairs):
    results, out, texts = done
    code, printed, _ = run("explain", "demo", pairs, "-o", out, "--texts", texts)
    assert code == 0
    assert f"of {len(results['heads'])} heads" in printed
    assert "explanation.md" in printed
    code, printed, _ = run("explain", "demo", pairs, "-o", out, "--texts", texts, "--json")
    assert code == 0
    assert json.loads(printed)["heads"] == json.loads(json.dumps(results["heads"]))


def test_refine_explains_what_it_chose(run, pairs, tmp_path):
    small = ["--strategy", "greedy", "--controls", "2", "--finalists", "3", "--max-heads", "2", "--width", "2"]
    out = tmp_path / "out"
    code, printed, err = run("refine", "demo", pairs, "-o", out, *small, "--explain", "--json")
    assert code == 0, err
    chosen = json.loads(printed)["chosen"]
    found = json.loads((out / "explanation" / "explanation.json").read_text())
    assert [card["head"] for card in found["heads"] if card["edited"]] == chosen["heads"]
    assert {path.name for path in (out / "explanation").iterdir()} >= FILES
    page = (out / "report.html").read_text()
    assert page.count("Pictures it acts on most") >= len(found["heads"])  # a card for every head
    shutil.rmtree(out)

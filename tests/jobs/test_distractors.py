"""Distractors: which texts they are, the numbers they make, where they are refused, and that a run can be repeated."""

import json

import numpy as np
import pytest
import torch
from conftest import write_pairs

from headwise.data.read import read
from headwise.errors import HeadwiseError
from headwise.jobs.evaluate import evaluate
from headwise.jobs.refine import refine
from headwise.jobs.steps.distractors import distractors_of, texts_of
from headwise.jobs.steps.reopening import goal_of
from headwise.jobs.steps.settings import Settings
from headwise.jobs.steps.tasks import Goal, make_task
from headwise.jobs.take import take
from headwise.scoring.chance import chance
from headwise.towers import load


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), 40, splits=("search", "search", "pick", "test"))


@pytest.fixture(scope="module")
def lines(source):
    """Six texts, one of them twice, and a caption of an image of the search split."""
    caption = read(source).captions[1][0]
    path = source.parent / "lines.txt"
    path.write_text(
        f"a red circle\n  a red   circle \n\na blue house\na cat\n{caption}\na green tree\na boat\na car\n",
        encoding="utf-8",
    )
    return path


def test_captions_and_repetitions_are_dropped_and_counted(source, lines):
    found = distractors_of(str(lines), read(source).texts, "these")
    assert found.texts == ("a red circle", "a blue house", "a cat", "a green tree", "a boat", "a car")
    assert found.json()["texts"] == 6
    assert found.dropped == 1
    assert len(texts_of("phrases")) > 1000


def test_metrics_are_those_of_an_independent_count(source, lines):
    """Image → text over captions and distractors, from the embeddings; text → image is what it was."""
    plain, found = (evaluate("demo", source, only_split="test", goal=goal) for goal in (None, Goal(distractors=lines)))
    model, pairs = load("demo"), read(source)
    test = pairs.subset([i for i, name in enumerate(pairs.splits) if name == "test"])
    texts = (*test.texts, *texts_of(str(lines)))
    texts = [text for i, text in enumerate(texts) if text not in texts[:i]]
    texts = [text for text in texts if text in test.texts or text not in pairs.texts]
    with torch.no_grad():
        images = torch.stack([model.preprocess(_picture(image)) for image in test.images])
        x = model.module.get_image_features(pixel_values=images).pooler_output
        w = model.encode_texts(texts)
    s = torch.nn.functional.normalize(x.double(), dim=1) @ torch.nn.functional.normalize(w.double(), dim=1).T
    ranks = []
    for i, own in enumerate(test.captions):
        best = max(float(s[i, texts.index(text)]) for text in own)
        ranks.append(sum(float(s[i, t]) >= best for t, text in enumerate(texts) if text not in own))
    for k in (1, 5, 10):
        expected = np.mean([rank < k for rank in ranks])
        assert found["metrics"][f"text_retrieval_recall@{k}"] == pytest.approx(expected)
        name = f"image_retrieval_recall@{k}"
        assert found["metrics"][name] == plain["metrics"][name]
    assert found["distractors"]["texts"] == 6
    assert "distractors" not in plain


def _picture(image):
    import io

    from PIL import Image

    return Image.open(io.BytesIO(image.read())).convert("RGB")


def test_a_run_has_them_on_every_split_and_evaluate_and_take_repeat_it(source, lines, tmp_path):
    settings = Settings(budget=40, strategies=("greedy",), rungs=("mask",), sweep=False, finalists=3, controls=2)
    goal = Goal(distractors=str(lines))
    found = refine("demo", source, tmp_path / "run", settings=settings, goal=goal)
    results = found.results
    assert results["data"]["distractors"]["texts"] == 6
    assert results["settings"]["objective"]["distractors"] == 6
    assert "6 distractors" in (tmp_path / "run" / "report.md").read_text()
    assert "6 distractors" in (tmp_path / "run" / "report.html").read_text()
    again = evaluate("demo", source, only_split="test", goal=goal)
    assert again["metrics"] == results["test"][0]["metrics"]
    assert evaluate("demo", source, only_split="test")["metrics"] != again["metrics"]
    taken = take(tmp_path / "run", "greedy", tmp_path / "taken")  # with the run's own distractors
    assert taken.results["data"]["distractors"] == results["data"]["distractors"]
    with pytest.raises(HeadwiseError, match="another study"):
        refine("demo", source, tmp_path / "run", settings=settings)
    other = tmp_path / "other.txt"
    other.write_text("a dog\n")
    with pytest.raises(HeadwiseError, match="other distractors"):
        goal_of(tmp_path, Goal(distractors=str(other)), results)
    gone = json.loads(json.dumps(results))
    gone["data"]["distractors"]["source"] = str(tmp_path / "gone.txt")
    with pytest.raises(HeadwiseError, match=r"needed again.*cannot be read"):
        goal_of(tmp_path, Goal(), gone)


def test_chance_is_lower_among_more_texts(source):
    model, pairs = load("demo"), read(source)
    indices = range(len(pairs))
    plain, more = (
        chance(make_task(model, pairs, goal).objective(model, pairs, indices, "cpu"))
        for goal in (Goal(), Goal(distractors=("a cat", "a dog", "a house")))
    )
    assert more < plain


def test_a_part_of_a_mixture_has_its_own(source, lines, tmp_path):
    mix = tmp_path / "mix.json"
    parts = [{"source": str(source), "name": "a", "distractors": str(lines)}, {"source": str(source), "name": "b"}]
    mix.write_text(json.dumps(parts))
    task = make_task(load("demo"), read(f"mix:{mix}"), Goal())
    assert task.parts[0].distractors.dropped == 1
    assert task.parts[1].distractors is None
    with pytest.raises(HeadwiseError, match="in the file"):
        make_task(load("demo"), read(f"mix:{mix}"), Goal(distractors="phrases"))


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "cannot be read"), ("\n \n", "is empty"), (b"\xff\xfe\xfa", "not UTF-8")],
)
def test_a_file_that_is_none_is_refused(run, source, tmp_path, text, said):
    path = tmp_path / "texts.txt"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    code, _, err = run("refine", "demo", source, "-o", tmp_path / "out", "--distractors", path)
    assert code == 1
    assert said in " ".join(err.split())


def test_where_there_is_nothing_to_distract_from(source, tmp_path):
    pairs = read(source)
    with pytest.raises(HeadwiseError, match="are captions of"):
        make_task(load("demo"), pairs, Goal(distractors=pairs.texts[:3]))
    labels = [(path, i % 2) for i, path in enumerate(sorted((source.parent / "images").glob("*.png")))]
    table = tmp_path / "labels.csv"
    table.write_text("image,label\n" + "\n".join(f"{path},{'ab'[label]}" for path, label in labels))
    labelled = read(str(table), images=str(source.parent))
    with pytest.raises(HeadwiseError, match="has no captions"):
        make_task(load("demo"), labelled, Goal(distractors="phrases"))

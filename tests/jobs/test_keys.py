"""Nothing that was made by another function is taken for one's own: caches, studies and mask folders."""

import json
import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import write_pairs
from PIL import Image

import headwise
from headwise.data.cache import pixels
from headwise.data.read import read
from headwise.data.splits import split
from headwise.edits.edit import Edit
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.jobs.evaluate import evaluate
from headwise.jobs.merge import merge
from headwise.jobs.steps.bench import prepare
from headwise.jobs.steps.opening import Machine
from headwise.jobs.steps.tasks import Goal, embed_texts, make_task
from headwise.jobs.sweep import sweep
from headwise.jobs.transfer import transfer
from headwise.processor import machine
from headwise.towers import load, probes

LONG = "a drawing of a very small red cat that sits on a table beside two green apples and a blue cup of tea"
TEXTS = ("a cat", "two apples", LONG)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), 12)


def limited(tokens: int):
    model = load("demo")
    model.tokenize.args[1].model_max_length = tokens
    return model


def test_a_tokenizer_with_another_limit_gets_embeddings_of_its_own(tmp_path):
    whole, short = load("demo"), limited(8)
    for model in (whole, short, whole):  # each time as if there were no cache
        torch.testing.assert_close(embed_texts(model, TEXTS, cache_dir=tmp_path), model.encode_texts(TEXTS))
    assert len(list((tmp_path / "texts").iterdir())) == 2
    assert not torch.allclose(whole.encode_texts([LONG]), short.encode_texts([LONG]))


def test_other_groups_are_another_study(pairs, tmp_path):
    """The data's hash is without groups, which say nothing where the fitness is not over them."""
    given = read(pairs)
    labels = tuple(i % 2 for i in range(len(given)))
    bare = replace(given, captions=((),) * len(given), labels=labels, class_names=("circle", "arrow"))
    place, time = (replace(bare, groups=tuple(str(i // n % 2) for i in range(len(given)))) for n in (2, 4))
    found = {}
    for fitness in ("worst_group_acc", "acc1"):
        goal = Goal(fitness=fitness, templates="plain")
        found[fitness] = [make_task(load("demo"), each, goal).key for each in (place, time)]
    assert found["worst_group_acc"][0] != found["worst_group_acc"][1]
    assert found["acc1"][0] == found["acc1"][1]
    out, machine = tmp_path / "study.sqlite", Machine(cache_dir=tmp_path / "cache")
    goal = Goal(fitness="worst_group_acc", templates="plain")
    splits = split(place, keep_groups=False)
    prepare(load("demo"), place, splits, goal=goal, study=out, cache_dir=machine.cache_dir).study.close()
    with pytest.raises(HeadwiseError, match="another study"):
        prepare(load("demo"), time, splits, goal=goal, study=out, cache_dir=machine.cache_dir)


def test_another_limit_set_on_the_live_model_is_noticed(tmp_path):
    model = load("demo")
    before = embed_texts(model, TEXTS, cache_dir=tmp_path)
    model.tokenize.args[1].model_max_length = 8
    assert not torch.equal(embed_texts(model, TEXTS, cache_dir=tmp_path)[2], before[2])


def test_an_encoder_of_ones_own_gets_embeddings_of_its_own(tmp_path):
    model = load("demo")
    own = replace(model, tokenize=None, text_hash="", encode_texts=lambda texts: model.encode_texts(texts))
    other = replace(own, encode_texts=lambda texts: model.encode_texts([text.upper() for text in texts]))
    third = replace(own, encode_texts=lambda texts: -model.encode_texts(texts))
    for one in (own, other, third, own):
        torch.testing.assert_close(embed_texts(one, TEXTS, cache_dir=tmp_path), one.encode_texts(TEXTS))


def test_pixels_of_two_lambdas_are_two(pairs, tmp_path):
    from torchvision import transforms as T

    given, model = read(str(pairs)), load("demo")

    def composed(last):
        steps = [T.Resize((64, 64)), lambda image: image.convert("RGB"), T.ToTensor(), T.Lambda(last)]
        return replace(model, preprocess=T.Compose(steps), preprocess_spec={"steps": "Compose(Lambda())"})

    for one in (composed(lambda x: x), composed(lambda x: x.flip(-1)), composed(lambda x: x)):
        found = pixels(given, one, cache_dir=tmp_path)[0:1]
        torch.testing.assert_close(found[0], one.preprocess(Image.open(pairs.parent / "images" / "0.png")))


def test_old_formats_of_the_caches_are_not_read(pairs, tmp_path, monkeypatch):
    """Entries are named by their key, and the format is part of it."""
    from headwise.data import cache
    from headwise.jobs.steps import tasks

    model, given = load("demo"), read(str(pairs))
    for number in (1, 2):
        monkeypatch.setattr(cache, "FORMAT", number)
        monkeypatch.setattr(tasks, "FORMAT", number)
        pixels(given, model, cache_dir=tmp_path)
        embed_texts(model, TEXTS, cache_dir=tmp_path)
    assert len(list((tmp_path / "texts").iterdir())) == 2
    assert len(list((tmp_path / "pixels").glob("*/pixels"))) == 2


@pytest.mark.parametrize("what", [r"model\.tokenizer", r"model\.preprocessing", r"objective\.bias"])
def test_a_study_of_another_function_is_refused(pairs, tmp_path, what):
    sweep("demo", pairs, tmp_path / "out", machine=Machine(cache_dir=tmp_path / "cache"))
    model = load("demo")
    other = {
        r"model\.tokenizer": limited(8),
        r"model\.preprocessing": replace(model, preprocess=lambda image: model.preprocess(image) + 0.1),
        r"objective\.bias": replace(model, logit_bias=-12.0),  # the sigmoid loss depends on it
    }[what]
    with pytest.raises(HeadwiseError, match=rf"(?s)holds another study.*{what}") as caught:
        sweep(replace(other, name="demo"), pairs, tmp_path / "out", machine=Machine(cache_dir=tmp_path / "cache"))
    assert "model.weights" not in str(caught.value)


def test_a_study_of_another_processor_is_refused_and_both_are_named(pairs, tmp_path):
    if torch.backends.cpu.get_cpu_capability() == "DEFAULT":
        pytest.skip("there is no lesser processor to pretend to be")
    command = [sys.executable, "-m", "headwise", "sweep", "demo", pairs, "-o", tmp_path / "out"]
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": "default", "HEADWISE_CACHE": str(tmp_path / "cache")}
    subprocess.run(command, env=environment, check=True, capture_output=True)
    with pytest.raises(HeadwiseError) as caught:
        sweep("demo", pairs, tmp_path / "out", machine=Machine(cache_dir=tmp_path / "cache"))
    here = str(machine()["processor"])
    for words in (here, here.rpartition(",")[0] + ", DEFAULT", "another output folder"):
        assert words in str(caught.value)


# ---- mask folders


@pytest.fixture(scope="module")
def mask(tmp_path_factory) -> Path:
    """A mask as refine and front write it."""
    model = load("demo")
    found = Mask.parse(model.tower.grid, "L2.H1=zero")
    about = {"base_model": "demo", "weights_hash": model.tower.weights_hash, "functions": probes.described(model)}
    folder = tmp_path_factory.mktemp("mask")
    found.with_provenance(**about).save_pretrained(folder)
    return folder


def mean_shifted():
    model = load("demo")
    return replace(model, preprocess=lambda image: model.preprocess(image) + 0.1)


def cropped():
    model = load("demo")
    return replace(model, preprocess=lambda image: model.preprocess(image.crop((2, 2, image.width, image.height))))


def other_activation():
    from transformers.activations import ACT2FN

    model = load("demo")
    for layer in model.module.vision_model.encoder.layers:
        layer.mlp.activation_fn = ACT2FN["relu"]
    return model


OTHERS = {
    "tokenizer": lambda: limited(8), "preprocessing": mean_shifted, "preprocessing ": cropped,
    "image tower": other_activation,
}  # fmt: skip


@pytest.mark.parametrize("what", OTHERS)
def test_a_mask_is_refused_where_something_around_the_weights_is_another(mask, pairs, tmp_path, what):
    other, cached = OTHERS[what](), Machine(cache_dir=tmp_path / "cache")
    for verb in (
        lambda: evaluate(other, pairs, mask, machine=cached),
        lambda: merge(other, mask, tmp_path / "merged", machine=cached),
        lambda: transfer(other, [mask], [pairs], tmp_path / "transfer", machine=cached),
    ):
        with pytest.raises(HeadwiseError, match=rf"has its weights, but its {what.strip()}.*--no-check-weights"):
            verb()
    assert evaluate(other, pairs, mask, machine=cached, check_weights=False)["mask"] == "L2.H1=zero"
    if what != "image tower":  # inside a context an outer mask may edit it
        with pytest.raises(HeadwiseError, match=what.strip()), headwise.apply(other, Mask.from_pretrained(mask)):
            pass


def test_a_mask_is_taken_where_nothing_is_another_also_inside_another_mask(mask, pairs, tmp_path):
    model, found = load("demo"), Mask.from_pretrained(mask)
    assert evaluate(model, pairs, mask, machine=Machine(cache_dir=tmp_path))["mask"] == "L2.H1=zero"
    with headwise.apply(model, Mask.parse(model.tower.grid, "L1.H0=zero")), headwise.apply(model, found):
        pass
    merge(model, mask, tmp_path / "merged")


def test_a_mask_that_was_changed_by_hand_or_by_a_flipped_bit_is_refused(mask, tmp_path):
    text = (mask / "head_mask.json").read_text()
    expected = Mask.from_pretrained(mask)
    edited = tmp_path / "edited"
    edited.mkdir()
    (edited / "head_mask.json").write_text(text.replace("0.0", "1.0", 1))
    with pytest.raises(HeadwiseError, match=r"checksum differs.*by hand, delete its line 'checksum'"):
        Mask.from_pretrained(edited)
    data, refused = text.encode(), 0
    for place in range(0, len(data), 3):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 7
        (edited / "head_mask.json").write_bytes(flipped)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the key itself was hit: an unknown one is ignored, and said
                found = Mask.from_pretrained(edited)
        except HeadwiseError:
            refused += 1
        else:
            assert (found, found.provenance) == (expected, expected.provenance)
    assert refused > len(data) / 6
    value = json.loads(text)
    del value["checksum"]
    value["edits"]["L0.H0"] = "scale(0.5)"
    (edited / "head_mask.json").write_text(json.dumps(value))
    assert Mask.from_pretrained(edited).edit("L0.H0") == Edit.parse("scale(0.5)")

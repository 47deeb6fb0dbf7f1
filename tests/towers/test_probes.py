"""Keys tell functions apart that have the same name, settings or repr, and agree between processes."""

import copy
import os
import random
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from processors import PROCESSORS
from torchvision import transforms as T

from headwise.errors import HeadwiseError
from headwise.towers import load, probes


def composed(last):
    return T.Compose([T.Resize((24, 24)), lambda image: image.convert("RGB"), T.ToTensor(), T.Lambda(last)])


def test_two_preprocessings_that_differ_inside_a_lambda_have_two_keys():
    whole, cropped = composed(lambda x: x), composed(lambda x: T.functional.pad(x[:, 2:22, 2:22], 2))
    assert str(whole.transforms[-1]) == str(cropped.transforms[-1])
    assert probes.pixels_key(whole) == probes.pixels_key(composed(lambda y: y))
    assert probes.pixels_key(whole) != probes.pixels_key(cropped)
    assert not probes.near(probes.pixels_sketch(whole), probes.pixels_sketch(cropped))
    assert probes.near(probes.pixels_sketch(whole), probes.pixels_sketch(composed(lambda x: x + 1e-3)))


@pytest.mark.parametrize("mode", ["LA", "RGBA", "P", "1", "CMYK", "I;16"])
def test_a_mode_that_is_treated_otherwise_has_another_key(mode):
    def plain(image):
        return T.functional.to_tensor(image.convert("RGB").resize((8, 8)))

    def other(image):
        return plain(image) if image.mode != mode else 1 - plain(image)

    assert mode in {image.mode for image in probes.images()}
    assert probes.pixels_key(plain) != probes.pixels_key(other)


@pytest.mark.parametrize(
    "step",
    [
        T.RandomCrop(20), T.RandomHorizontalFlip(), T.RandomHorizontalFlip(0.1), T.ColorJitter(0.3), T.RandomRotation(9),
        T.RandomResizedCrop(24), T.Lambda(lambda image: image.rotate(random.random() * 90)),
        T.Lambda(lambda image: image.rotate(np.random.rand() * 90)),
    ],
    ids=lambda step: type(step).__name__,
)  # fmt: skip
def test_a_random_preprocessing_is_an_error(step):
    transform = T.Compose([T.Resize((24, 24)), step, lambda image: image.convert("RGB"), T.ToTensor()])
    with pytest.raises(HeadwiseError, match=r"preprocessing is random.*for evaluation"):
        probes.pixels_key(transform)


@pytest.mark.parametrize("chance", [0, 1])
def test_what_draws_without_effect_is_not_random(chance):
    flip = T.Compose([T.Resize((24, 24)), T.RandomHorizontalFlip(chance), lambda i: i.convert("RGB"), T.ToTensor()])
    assert probes.pixels_key(flip) == probes.pixels_key(flip)


def test_a_preprocessing_that_fails_on_every_picture_says_why():
    def broken(image):
        raise RuntimeError("no such filter")

    with pytest.raises(HeadwiseError, match="every picture: RuntimeError: no such filter"):
        probes.pixels_key(broken)


@pytest.mark.parametrize("family", [name for name in PROCESSORS if "Siglip" not in name])
def test_a_tokenizer_with_another_limit_or_vocabulary_has_another_key(family, tmp_path):
    tokenizer = PROCESSORS[family](tmp_path).tokenizer

    def tokenize(texts):
        limit = min(tokenizer.model_max_length, 77)
        return dict(tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt"))

    tokenizer.model_max_length = 77
    keys = [probes.tokens_key(tokenize)]
    assert keys[0] == probes.tokens_key(tokenize)
    tokenizer.model_max_length = 12
    keys.append(probes.tokens_key(tokenize))
    tokenizer.model_max_length = 77
    tokenizer.add_tokens(["dog"])
    keys.append(probes.tokens_key(tokenize))
    assert len(set(keys)) == 3


def test_open_clip_tokenizers_of_two_contexts_have_two_keys():
    tokenizer = pytest.importorskip("open_clip").get_tokenizer("ViT-B-32")
    short = copy.copy(tokenizer)
    short.context_length = 16
    assert probes.tokens_key(lambda texts: {"text": tokenizer(texts)}) != probes.tokens_key(
        lambda texts: {"text": short(texts)}
    )


ASKED = """
import json, sys, torch
torch.set_num_threads(int(sys.argv[1]))
from headwise.towers import load, probes
model = load("demo")
print(json.dumps([probes.pixels_key(model.preprocess), probes.described(model), probes.tokens_key(model.tokenize)]))
"""


def test_keys_are_the_same_in_every_process_and_with_every_number_of_threads():
    answers = []
    for number in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": number, "OMP_NUM_THREADS": number}
        command = [sys.executable, "-c", ASKED, number]
        answers.append(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)
    assert answers[0] == answers[1]


def test_a_random_text_encoder_of_ones_own_is_an_error_and_two_of_them_have_two_keys():
    model = load("demo")
    assert set(probes.texts_key(model)) == {"tokenizer", "text_encoder"}
    own = replace(model, tokenize=None)
    keys = probes.texts_key(own)
    assert set(keys) == {"text_encoder"}
    assert probes.texts_key(own) == keys
    assert (
        probes.texts_key(replace(own, encode_texts=lambda texts: model.encode_texts([t[::-1] for t in texts]))) != keys
    )
    with pytest.raises(HeadwiseError, match="text encoder is random"):
        probes.texts_key(replace(own, encode_texts=lambda texts: torch.rand(len(texts), 8)))


def test_equal_weights_with_another_activation_answer_otherwise():
    model, other = load("demo"), load("demo")
    assert probes.changed(probes.described(model), other) == []
    from transformers.activations import ACT2FN

    known = model.module.config.vision_config.hidden_act
    for layer in other.module.vision_model.encoder.layers:
        layer.mlp.activation_fn = ACT2FN["gelu" if known != "gelu" else "relu"]
    assert other.tower.weights_hash == model.tower.weights_hash
    (said,) = probes.changed(probes.described(model), other)
    assert "image tower" in said


def test_tokenizing_leaves_a_live_tokenizer_as_it_was():
    model = load("demo")
    backend = model.tokenize.args[1].backend_tokenizer
    for truncation in (None, {"max_length": 9, "stride": 0, "strategy": "longest_first", "direction": "right"}):
        backend.no_truncation() if truncation is None else backend.enable_truncation(**truncation)
        before = backend.to_str()
        model.tokenize(["a", "a much longer caption than the first"])
        assert backend.to_str() == before

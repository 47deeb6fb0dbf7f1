"""What to be wary of is said where it holds, and nowhere else: a model at chance, a choice that nothing else was asked about."""

import io
from dataclasses import replace

import numpy as np
from conftest import write_pairs
from PIL import Image

import headwise
from headwise.data.splits import split
from headwise.edits.mask import Mask
from headwise.jobs.refine import refine
from headwise.jobs.steps.bench import prepare
from headwise.jobs.steps.prospects import warnings
from headwise.jobs.steps.settings import Settings

SMALL = Settings(budget=20.0, strategies=("greedy",), controls=2)
WORDS = ["hammer", "violin", "penguin", "mortgage", "umbrella", "glacier", "sandwich", "theorem", "bicycle", "candle"]


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def test_captions_that_say_nothing_of_the_pictures_are_at_chance():
    pairs = [(noise(i), f"a {WORDS[i % 10]} and {i // 10} {WORDS[(7 * i + 3) % 10]}s") for i in range(80)]
    said = refine("demo", pairs, settings=SMALL).results["warnings"]
    (chance,) = [sentence for sentence in said if "where chance is" in sentence]
    # recall at k of n images drawn blindly is k / n: 40 images of the search split, k = 1, 5, 10
    assert f"where chance is {100 * (1 + 5 + 10) / 3 / 40:.2f}" in chance


def test_a_model_that_knows_the_pictures_is_not(tmp_path):
    known = write_pairs(tmp_path, 60)
    said = refine("demo", known, settings=SMALL).results["warnings"]
    assert not any("where chance is" in sentence for sentence in said)


def test_a_choice_without_other_data_is_said_to_be_untested_there(tmp_path):
    pairs = headwise.read(write_pairs(tmp_path, 24))
    bench = prepare(headwise.load("demo"), pairs, split(pairs))
    edited, unedited = Mask.suppress(bench.tower.grid, ["L4.H0"]), Mask.identity(bench.tower.grid)
    others = replace(bench, kept=(bench,)), replace(bench, anchored=bench)

    def said(bench, chosen):
        return [sentence for sentence in warnings(bench, None, chosen) if "other data was not measured" in sentence]

    assert len(said(bench, edited)) == 1
    assert not any(
        said(one, mask) for one, mask in [(bench, unedited), (bench, None), *((one, edited) for one in others)]
    )

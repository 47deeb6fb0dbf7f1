"""A model that does not know the data is said to be at chance; one that knows them is not."""

import io

import numpy as np
from conftest import write_pairs
from PIL import Image

from headwise.jobs.refine import refine
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

"""Images that a mask has seen are found again: renamed, re-encoded, scaled, in subsets and supersets; others are not."""

import io

import numpy as np
import pytest
from PIL import Image

from headwise.data.read import read
from headwise.data.seen import narrowed, recognised, remembered, without
from headwise.data.splits import split
from headwise.errors import HeadwiseError

from .conftest import encoded, picture


def source(pictures):
    """Pairs in memory, every picture under an unrelated caption."""
    return read([(data, f"caption {i}") for i, data in enumerate(pictures)])


def again(image: Image.Image, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def large(seed: int) -> Image.Image:
    return picture(seed, (240, 200))


@pytest.mark.parametrize(
    "copy",
    [
        lambda image: again(image, "PNG", compress_level=0),
        lambda image: again(image, "BMP"),
        lambda image: again(image, "WEBP", lossless=True),
        lambda image: again(image, "JPEG", quality=60),
        lambda image: again(image.resize((120, 100)), "PNG"),
        lambda image: again(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), "JPEG", quality=80),
    ],
    ids=["other PNG", "BMP", "WebP", "JPEG", "half the size", "mirrored JPEG"],
)
def test_copies_are_found_and_other_pictures_are_not(copy):
    seen = source([again(large(i), "PNG") for i in range(8)])
    memory = remembered(seen, range(8))
    mixed = source([copy(large(i)) for i in (2, 5)] + [again(large(i), "PNG") for i in range(100, 140)])
    assert recognised(mixed, [memory]).tolist() == [True] * 2 + [False] * 40


def test_subsets_and_supersets_are_found_by_their_bytes():
    everything = source([encoded(i) for i in range(20)])
    memory = remembered(everything, range(5, 15))
    assert recognised(everything, [memory]).tolist() == [5 <= i < 15 for i in range(20)]
    assert recognised(source([encoded(i) for i in range(6, 9)]), [memory]).all()
    assert not recognised(everything, []).any()
    assert "looks" in memory
    assert len(str(memory)) < 10 * 130  # a few bytes an image


def test_fine_noise_is_not_one_picture():
    noise = [np.random.default_rng(i).integers(0, 256, (224, 224, 3), dtype=np.uint8) for i in range(12)]
    pictures = [again(Image.fromarray(pixels), "PNG") for pixels in noise]
    memory = remembered(source(pictures[:6]), range(6))
    assert not recognised(source(pictures[6:]), [memory]).any()
    assert recognised(source([again(Image.fromarray(noise[0]), "BMP"), pictures[7]]), [memory]).tolist() == [
        True,
        False,
    ]


def test_plain_colours_are_told_apart():
    colours = [again(Image.new("RGB", (30, 30), colour), "PNG") for colour in ("red", "lime", "blue", "white", "black")]
    memory = remembered(source(colours[:3]), range(3))
    assert recognised(source(colours), [memory]).tolist() == [True] * 3 + [False] * 2


def test_what_is_left_is_enough_or_an_error():
    pairs = source([encoded(i) for i in range(6)])
    assert without(pairs, np.array([True, False, True, False, False, False])).ids == tuple(
        pairs.ids[i] for i in (1, 3, 4, 5)
    )
    with pytest.raises(HeadwiseError, match="1 of its images are left"):
        without(pairs, np.arange(6) > 0)


def test_narrowed_splits_have_a_hash_of_their_own():
    pairs = source([encoded(i) for i in range(30)])
    splits = split(pairs)
    none, first = np.zeros(30, bool), np.arange(30) == splits.test[0]
    assert narrowed(pairs, splits, {"test": none}) == splits
    left = narrowed(pairs, splits, {"test": first})
    assert left.test == splits.test[1:]
    assert (left.search, left.pick) == (splits.search, splits.pick)
    assert left.hash != splits.hash
    with pytest.raises(HeadwiseError, match="0 images of its pick split"):
        narrowed(pairs, splits, {"pick": ~none})


def test_a_damaged_memory_is_an_error():
    pairs = source([encoded(0), encoded(1)])
    for memory in ({"hashes": "!"}, {"hashes": "QUJD"}, {"looks": "QUJD"}):
        with pytest.raises(HeadwiseError, match="list of searched images is damaged"):
            recognised(pairs, [memory])

"""transformers' words for a preprocessing in open_clip's: what each says is done is what the other does."""

import pytest

from headwise.errors import HeadwiseError
from headwise.shipping.convert import _preprocess

CLIP = {
    "size": {"shortest_edge": 224},
    "crop_size": {"height": 224, "width": 224},
    "do_center_crop": True,
    "do_normalize": True,
    "image_mean": [0.5, 0.4, 0.3],
    "image_std": [0.2, 0.2, 0.2],
    "resample": 3,
}


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, {"size": [224, 224], "resize_mode": "shortest", "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}),
        ({"size": {"height": 224, "width": 224}}, {"resize_mode": "squash"}),  # a crop of the same size does nothing
        ({"size": {"height": 224, "width": 224}, "do_center_crop": False}, {"resize_mode": "squash"}),
        ({"do_normalize": False}, {"mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}),
    ],
)
def test_words_are_translated(change, expected):
    assert expected.items() <= _preprocess(CLIP | change).items()


def test_what_open_clip_cannot_say_is_refused():
    with pytest.raises(HeadwiseError, match="resized to 256 pixels and cropped to 224"):
        _preprocess(CLIP | {"size": {"shortest_edge": 256}})

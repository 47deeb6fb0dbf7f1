"""Attention statistics and maps against the library's own eager attention."""

import math

import numpy as np
import pytest
import torch
from conftest import small_clip

from headwise.edits.heads import Head
from headwise.explanation.attention import Looks, attention_maps, attention_statistics, patch_grid
from headwise.towers import tower_of

SIDE = 4  # patches


@pytest.fixture(scope="module")
def eager(images):
    module = small_clip()
    module.set_attn_implementation("eager")
    with torch.no_grad():
        return torch.stack(module(pixel_values=images, output_attentions=True).attentions)  # (L, B, H, N, N)


def test_statistics_are_those_of_the_librarys_attention(tower, images, eager):
    found = attention_statistics(tower, images)
    assert set(found) == set(tower.grid)
    n = SIDE**2 + 1
    place = np.array([divmod(i, SIDE) for i in range(SIDE**2)], float)
    between = np.linalg.norm(place[:, None] - place, axis=-1) / (math.sqrt(2) * (SIDE - 1))
    for head, looks in found.items():
        a = eager[head.layer, :, head.index].double().numpy()  # (B, N, N)
        assert looks.entropy == pytest.approx(-(a * np.log(a)).sum(-1).mean() / math.log(n), abs=1e-4)
        assert looks.class_share == pytest.approx(a[..., 0].mean(), abs=1e-4)
        patches = a[:, 1:, 1:] / a[:, 1:, 1:].sum(-1, keepdims=True)
        assert looks.distance == pytest.approx((patches * between).sum(-1).mean(), abs=1e-4)
        assert looks.sink_share == pytest.approx(a.mean(1).max(-1).mean(), abs=1e-4)


def test_the_sinks_value_norm_is_its_values_length_by_the_mean(tower, images, eager):
    with torch.no_grad():
        x = tower.stem(images)
        _, v = tower.blocks[0].attend(x)
    norms = v.norm(dim=-1)  # (B, H, N)
    sink = eager[0].mean(2).argmax(-1)  # (B, H)
    expected = (norms.gather(-1, sink[..., None])[..., 0] / norms.mean(-1)).mean(0)
    found = attention_statistics(tower, images)
    for index in range(tower.grid.rows[0]):
        assert found[Head(0, index)].sink_norm == pytest.approx(float(expected[index]), abs=1e-4)


def test_maps_are_the_class_tokens_attention_on_patches(tower, images, eager):
    wanted = {head: [3, 0] for head in tower.grid}
    maps = attention_maps(tower, images, wanted)
    for head, own in maps.items():
        for place, image in enumerate(wanted[head]):
            expected = eager[head.layer, image, head.index, 0, 1:].reshape(SIDE, SIDE)
            assert np.allclose(own[place], expected / expected.max(), atol=2e-3)


def test_kinds_of_sinks():
    looks = {"entropy": 0.5, "class_share": None, "distance": None}
    assert Looks(**looks, sink_share=0.1, sink_norm=0.1).sink == "none"
    assert Looks(**looks, sink_share=0.6, sink_norm=0.1).sink == "nop"
    assert Looks(**looks, sink_share=0.6, sink_norm=1.1).sink == "broadcast"


def test_attention_pooling_has_statistics_and_maps():
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig(
        hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2, image_size=24, patch_size=8
    )
    torch.manual_seed(0)
    tower = tower_of(SiglipVisionModel(config).eval())
    pixels = torch.randn(3, 3, 24, 24)
    assert patch_grid(tower) == (3, 0)
    found = attention_statistics(tower, pixels)
    pool = found[Head.parse("pool.H1")]
    assert pool.class_share is None
    assert pool.distance is None
    assert 0 < pool.entropy <= 1
    maps = attention_maps(tower, pixels, {Head.parse("pool.H0"): [2]})
    assert maps[Head.parse("pool.H0")].shape == (1, 3, 3)
    assert maps[Head.parse("pool.H0")].max() == 1

"""Hugging Face CLIP at the shapes that people use: ViT-B/32 and ViT-L/14, all layers, random weights."""

import golden
import pytest
import torch
from golden import changed, difference, embed, pictures

from headwise.applied.live import apply
from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.evaluation import engine
from headwise.towers import tower_of

B32 = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "patch_size": 32,
}
L14 = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
}
TEXT = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64, "vocab_size": 99}


def complete(vision: dict, dimension: int):
    from transformers import CLIPConfig, CLIPModel

    return CLIPModel(CLIPConfig(vision_config=vision, text_config=TEXT, projection_dim=dimension))


def vision_alone(vision: dict, dimension: int):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    return CLIPVisionModelWithProjection(CLIPVisionConfig(**vision, projection_dim=dimension))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param((complete, B32, 512), id="B32"),
        pytest.param((vision_alone, B32, 512), id="B32-vision"),
        pytest.param((complete, L14, 768), id="L14", marks=pytest.mark.slow),
    ],
)
def module(request):
    build, vision, dimension = request.param
    return golden.randomise(build(vision, dimension))


@pytest.fixture(scope="module")
def tower(module):
    return tower_of(module)


def own(module, images):
    with torch.inference_mode():
        if not hasattr(module, "get_image_features"):
            return module(pixel_values=images).image_embeds
        out = module.get_image_features(pixel_values=images)
        return getattr(out, "pooler_output", out)


def test_the_grid_is_the_architectures(module, tower):
    config = getattr(module.config, "vision_config", module.config)
    assert tower.grid == Grid((config.num_attention_heads,) * config.num_hidden_layers)
    assert tower.tokens == (224 // config.patch_size) ** 2 + 1


def test_identity_is_the_own_forward(module, tower):
    images = pictures(tower, 2)
    assert difference(embed(tower, images, Mask.identity(tower.grid)), own(module, images)) < 1e-5


def test_zero_is_zeroing_out_projection_columns_at_many_depths(module, tower):
    """Heads of many layers and several of the last: together a trie that branches at many depths."""
    images = pictures(tower, 1)
    count = len(tower.blocks)
    heads = [tower.grid.head(row, row % tower.blocks[row].heads) for row in range(0, count, count // 6)]
    heads += [tower.grid.head(count - 1, index) for index in (0, 1, tower.blocks[-1].heads - 1)]
    masks = [Mask.suppress(tower.grid, [head]) for head in dict.fromkeys(heads)]
    ours = dict(engine.embed(tower, images, masks, golden.PLAN))
    for mask in masks:
        (head,) = mask.heads
        out = module.vision_model.encoder.layers[head.layer].self_attn.out_proj.weight
        with changed(out):
            out[:, head.index * 64 : (head.index + 1) * 64] = 0
            assert difference(ours[mask], own(module, images)) < 1e-5, head


def test_masks_in_place_equal_the_engine(module, tower):
    images = pictures(tower, 1)
    means = engine.head_means(tower, images, golden.PLAN)
    for mask in golden.mixed(tower)[: None if len(tower.blocks) == 12 else 1]:
        mask = engine.with_means(mask, means)
        with apply(module, mask):
            ours = embed(tower, images, mask)
            assert difference(ours, own(module, images)) < 1e-5, str(mask)


def test_row_saving_and_bfloat16(tower):
    golden.row_saving_changes_nothing(tower)
    golden.bfloat16_agrees(tower)

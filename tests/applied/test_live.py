"""Masks on a user's live model."""

import pytest
import torch
from conftest import small_clip

from headwise.applied.live import apply
from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.towers import tower_of

GRID = Grid((4, 4, 4))
MASK = Mask.suppress(GRID, ["L0.H1", "L2.H3"])


@torch.no_grad()
def embed(module, images):
    return module(pixel_values=images).image_embeds


def test_inside_the_context_the_model_is_masked_and_after_it_restored(clip_module, images):
    before = embed(clip_module, images)
    with apply(clip_module, MASK):
        inside = embed(clip_module, images)
    assert not torch.allclose(before, inside, atol=1e-3)
    assert torch.equal(embed(clip_module, images), before)


def test_identity_is_bit_identical(clip_module, images):
    before = embed(clip_module, images)
    with apply(clip_module, Mask.identity(GRID)):
        assert torch.equal(embed(clip_module, images), before)


def test_an_exception_restores_the_model(clip_module, images):
    before = embed(clip_module, images)
    with pytest.raises(KeyError), apply(clip_module, MASK):
        raise KeyError
    assert torch.equal(embed(clip_module, images), before)


def test_nested_contexts_restore_the_outer_mask(clip_module, images):
    inner = Mask.suppress(GRID, ["L0.H0"])
    with apply(clip_module, MASK):
        outer = embed(clip_module, images)
        with apply(clip_module, inner):
            assert not torch.equal(embed(clip_module, images), outer)
        assert torch.equal(embed(clip_module, images), outer)


def test_gradients_flow_with_a_mask_applied(clip_module, images):
    with apply(clip_module, MASK):
        clip_module(pixel_values=images).image_embeds.sum().backward()
    weight = clip_module.vision_model.encoder.layers[0].self_attn.v_proj.weight
    assert weight.grad is not None
    head = weight.grad.view(4, 16, -1)
    assert head[1].abs().max() == 0  # nothing reaches a suppressed head
    assert head[0].abs().max() > 0
    clip_module.zero_grad(set_to_none=True)


def test_half_precision_and_training_mode_survive(images):
    module = small_clip().to(torch.bfloat16).train()
    with apply(module, MASK):
        assert embed(module, images.to(torch.bfloat16)).dtype == torch.bfloat16
        assert module.training


def test_a_mask_of_another_grid_is_refused(clip_module):
    with pytest.raises(HeadwiseError, match="3 layers x 4 heads"), apply(clip_module, Mask.identity(Grid((12,) * 12))):
        pass


def test_a_mask_of_other_weights_is_refused(clip_module):
    mask = MASK.with_provenance(base_model="the other one", weights_hash=tower_of(small_clip(seed=5)).weights_hash)
    with pytest.raises(HeadwiseError, match="the other one"), apply(clip_module, mask):
        pass
    with apply(clip_module, mask, check_weights=False):
        pass
    with apply(clip_module, MASK.with_provenance(weights_hash=tower_of(clip_module).weights_hash)):
        pass


def test_a_mask_that_changes_nothing_is_an_error():
    module = small_clip()
    with torch.no_grad():
        module.vision_model.encoder.layers[0].self_attn.out_proj.weight[:, 16:32] = 0
    with pytest.raises(HeadwiseError, match="took no effect"), apply(module, Mask.suppress(GRID, ["L0.H1"])):
        pass
    assert "forward" not in vars(module.vision_model.encoder.layers[0])


def test_an_unknown_model_lists_what_was_looked_for():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    with pytest.raises(HeadwiseError, match=r"Looked for.*self_attn"), apply(module, MASK):
        pass


def test_a_float16_checkpoint_has_the_hash_of_its_float32_reading():
    half = small_clip().half()
    assert tower_of(half).weights_hash == tower_of(half.float()).weights_hash

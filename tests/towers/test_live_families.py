"""Masks in place on live models of every library: half precision, compiled, trained, wrapped."""

import copy

import pytest
import torch
from cases import CASES, built, hf_model, open_clip_model, timm_model
from golden import PLAN, pictures, randomise
from torch import nn

from headwise.applied.live import apply
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation import engine
from headwise.towers import tower_of

NAMES = ["open_clip ViT-B-32", "open_clip CoCa", "open_clip EVA02-CLIP", "timm CLIP", "hf CLIP", "hf SigLIP"]
families = pytest.mark.parametrize("name", NAMES)


def image_tower(model: nn.Module) -> nn.Module:
    return getattr(model, "visual", model)


def call(model: nn.Module, images: torch.Tensor, name: str) -> torch.Tensor:
    return CASES[name].own(model, images)


def a_mask(model: nn.Module) -> Mask:
    """The first head of every row, the pooling's too."""
    grid = tower_of(model).grid
    return Mask.suppress(grid, [grid.head(row, 0) for row in range(len(grid.rows))])


@families
def test_a_context_restores_the_model_also_nested_and_after_an_exception(name):
    model = built(name)
    images, mask = pictures(tower_of(model), 2), a_mask(model)
    other = Mask.suppress(mask.grid, ["L0.H1"])
    forwards = {key: module.forward for key, module in model.named_modules()}
    with torch.inference_mode():
        before = call(model, images, name)
        with apply(model, mask):
            outer = call(model, images, name)
            assert not torch.allclose(outer, before, atol=1e-4)
            with apply(model, other):
                assert not torch.allclose(call(model, images, name), outer, atol=1e-4)
            with pytest.raises(KeyError), apply(model, other):
                raise KeyError
            assert torch.equal(call(model, images, name), outer)
        assert torch.equal(call(model, images, name), before)
    assert all(module.forward == forwards[key] for key, module in model.named_modules())


@families
def test_identity_is_bit_identical(name):
    model = built(name)
    images = pictures(tower_of(model), 2)
    with torch.inference_mode():
        before = call(model, images, name)
        with apply(model, Mask.identity(tower_of(model).grid)):
            assert torch.equal(call(model, images, name), before)


@families
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_take_the_mask_found_in_float32(name, dtype):
    model = built(name)
    tower = tower_of(model)
    images, mask = pictures(tower, 2), a_mask(model).with_provenance(weights_hash=tower.weights_hash)
    with torch.inference_mode():
        with apply(model, mask):
            full = call(model, images, name)
        half = copy.deepcopy(model).to(dtype)
        with apply(half, mask, check_weights=False):
            out = call(half, images.to(dtype), name)
    assert out.dtype == dtype
    assert nn.functional.cosine_similarity(full, out.float()).min() > 0.999


def test_open_clips_mixed_half_precision():
    full = randomise(open_clip_model("ViT-B-32"))
    mixed = open_clip_model("ViT-B-32", precision="fp16")
    mixed.load_state_dict(full.state_dict())
    assert mixed.visual.ln_post.weight.dtype == torch.float32 != mixed.visual.conv1.weight.dtype
    tower, images, mask = tower_of(full), pictures(tower_of(full), 2), a_mask(full)
    with torch.inference_mode():
        with apply(full, mask):
            expected = full.encode_image(images)
        with apply(mixed.eval(), mask):
            out = mixed.encode_image(images.half())
        assert nn.functional.cosine_similarity(expected, out.float()).min() > 0.999
        # norms that open_clip keeps in float32 stay so when the engine casts the tower
        recast = tower_of(mixed).cast("cpu", torch.bfloat16)
        again = recast.encode(images.bfloat16())
        assert nn.functional.cosine_similarity(tower.encode(images), again.float()).min() > 0.999


@families
def test_a_model_that_is_already_compiled(name):
    model = built(name)
    visual = image_tower(model)
    tower = tower_of(model)
    images, mask = pictures(tower, 2), a_mask(model)
    torch.compiler.reset()
    compiled = torch.compile(tower.encode, backend="eager")
    try:
        with torch.no_grad():
            before = compiled(images)
            with apply(visual, mask):
                expected = tower.encode(images)
                assert torch.equal(compiled(images), expected)
            assert not torch.allclose(expected, before, atol=1e-4)
            assert torch.equal(compiled(images), before)
    finally:
        torch.compiler.reset()


@pytest.mark.parametrize("wrapper", [nn.DataParallel, lambda m: torch.compile(m, backend="eager")])
def test_wrapped_models_are_recognised(wrapper):
    model = built("hf CLIP vision")
    images, mask = pictures(tower_of(model), 2), a_mask(model)
    wrapped = wrapper(model)
    with torch.no_grad():
        with apply(model, mask):
            expected = model(pixel_values=images).image_embeds
        with apply(wrapped, mask):
            assert torch.equal(wrapped(pixel_values=images).image_embeds, expected)
    torch.compiler.reset()


def replica(module: nn.Module, scale: float) -> nn.Module:
    """A replica as `torch.nn.parallel.replicate` makes them, with other parameter values in place of another device."""
    copied = module._replicate_for_data_parallel()
    for name, child in module._modules.items():
        copied._modules[name] = None if child is None else replica(child, scale)
    for name, parameter in module._parameters.items():
        if parameter is None:
            copied._parameters[name] = None
        else:  # not a leaf, so not a parameter
            setattr(copied, name, parameter * scale)
    return copied


@pytest.mark.parametrize("name", [*NAMES, "open_clip RN50", "timm EVA02, average", "timm gate before the projection"])
@pytest.mark.parametrize("operator", ["zero", "mean"])
def test_replicas_compute_with_their_own_parameters(name, operator):
    """What DataParallel runs on each GPU: a replica of the masked model, whose parameters are its own."""
    model, scale = built(name), 0.75
    tower = tower_of(model)
    images = pictures(tower, 2)
    mask = Mask.suppress(tower.grid, a_mask(model).heads, operator)
    if operator == "mean":
        mask = engine.with_means(mask, engine.head_means(tower, images, PLAN))
    scaled = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in scaled.parameters():
            parameter.mul_(scale)
        with apply(scaled, mask):
            expected = call(scaled, images, name)
        with apply(model, mask):
            out = call(replica(model, scale), images, name)
        plain = call(replica(model, scale), images, name)
    assert (out - expected).abs().max() < 1e-5
    assert (plain - expected).abs().max() > 1e-4


def test_a_copy_of_a_masked_model_is_masked_and_independent():
    model = copy.deepcopy(built("hf CLIP vision"))
    images, mask = pictures(tower_of(model), 2), a_mask(model)
    with torch.no_grad():
        with apply(model, mask):
            masked = model(pixel_values=images).image_embeds
            copied = copy.deepcopy(model)
        for parameter in model.parameters():
            parameter.zero_()
        assert torch.equal(copied(pixel_values=images).image_embeds, masked)


def checkpointing(name: str) -> nn.Module:
    if name == "open_clip":
        model = open_clip_model("ViT-B-32")
        model.set_grad_checkpointing()
    elif name == "timm":
        model = timm_model("vit_base_patch32_clip_224", depth=2)
        model.set_grad_checkpointing()
    else:
        model = hf_model("CLIP", {"vocab_size": 100})
        enable = getattr(model, "activation_checkpointing_enable", model.gradient_checkpointing_enable)
        enable()
    return randomise(model).train()


@pytest.mark.parametrize("name", ["open_clip", "timm", "hf"])
def test_gradient_checkpointing_computes_the_same_gradients(name):
    family = {"open_clip": "open_clip ViT-B-32", "timm": "timm CLIP", "hf": "hf CLIP"}[name]
    model = checkpointing(name)
    tower = tower_of(model)
    images, mask = pictures(tower, 1), a_mask(model)
    weight = tower.blocks[0].weights().out

    def gradient() -> torch.Tensor:
        with apply(model, mask):
            (grad,) = torch.autograd.grad(call(model, images, family).sum(), weight)
        return grad

    with_it = gradient()
    if name == "hf":
        getattr(model, "activation_checkpointing_disable", model.gradient_checkpointing_disable)()
    else:
        model.set_grad_checkpointing(False)
    torch.testing.assert_close(with_it, gradient())
    assert with_it[:, : tower.blocks[0].head_dim].abs().max() == 0  # nothing reaches a suppressed head
    assert with_it.abs().max() > 0


def test_a_mask_that_changes_nothing_is_an_error():
    model = copy.deepcopy(built("open_clip ViT-B-32"))
    with torch.no_grad():
        model.visual.transformer.resblocks[0].attn.out_proj.weight[:, :64] = 0
    mask = Mask.suppress(tower_of(model).grid, ["L0.H0"])
    with pytest.raises(HeadwiseError, match="took no effect"), apply(model, mask):
        pass
    with apply(model, mask, probe=False):
        pass


def test_an_attention_mask_is_refused_where_a_head_mask_would_drop_it():
    model = built("timm CLIP")
    tokens = torch.randn(1, 50, 768)
    with apply(model, a_mask(model)), pytest.raises(HeadwiseError, match="attention mask"):
        model.blocks[0](tokens, attn_mask=torch.zeros(50, 50))


def test_another_resolution_than_the_towers_own():
    """A rotary tower that takes any size gets its positions from its caller, not from the tower's own size."""
    model = randomise(timm_model("vit_small_patch16_rope_mixed_224", depth=2, img_size=96, dynamic_img_size=True))
    tower = tower_of(model)
    images = torch.randn(2, 3, 64, 128)
    gate = Mask.suppress(tower.grid, ["L0.H0", "L1.H0"], f"scale({1 - 1e-6!r})")
    with torch.no_grad(), apply(model, gate, probe=False):
        almost = model(images)
    with torch.no_grad():
        torch.testing.assert_close(almost, model(images), atol=1e-4, rtol=1e-3)

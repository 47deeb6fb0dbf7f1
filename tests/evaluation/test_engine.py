"""The trie walk against the library's own forward and against each mask alone."""

import dataclasses

import numpy as np
import pytest
import torch
from conftest import small_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from torch._subclasses.fake_tensor import FakeTensorMode

from headwise.applied.live import apply
from headwise.edits.arrays import Array
from headwise.edits.edit import KINDS, Edit, Letter
from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation import engine
from headwise.evaluation.layout import Plan, plan
from headwise.towers import tower_of

PLAN = Plan("float32", chunk=4, stack=3)
GRID = Grid((4, 4, 4))


def letter(name: str, number: float, seed: int) -> Letter:
    """Any letter there is, for heads of 16 values; `mean` is left without its constant."""
    rng, arrays = np.random.default_rng(seed), ()
    if name == "shift":
        arrays = (("constant", Array.of(rng.normal(size=16))),)
    if name == "spectral":
        axes, _ = np.linalg.qr(rng.normal(size=(16, 16)))
        values = map(Array.of, (axes, rng.random(16), rng.normal(size=16)))
        arrays = tuple(zip(("axes", "scales", "centre"), values, strict=True))
    return Letter(name, None if KINDS[name].default is None and not KINDS[name].needs else number, arrays)


def letters(side: str):
    names = st.sampled_from([name for name, kind in KINDS.items() if kind.side == side])
    return st.none() | st.builds(letter, names, st.sampled_from([0.0, 0.5]), st.integers(0, 3))


edits = st.just(Edit()) | st.builds(Edit, letters("attention"), letters("value"))
masks = st.lists(st.lists(edits, min_size=4, max_size=4), min_size=3, max_size=3).map(
    lambda rows: Mask(GRID, tuple(map(tuple, rows)))
)


@pytest.fixture(scope="module")
def means(tower, images):
    return engine.head_means(tower, images, PLAN)


def test_identity_is_the_librarys_own_forward(tower, clip_module, images):
    identity = Mask.identity(tower.grid)
    out = dict(engine.embed(tower, images, [identity], PLAN))[identity]
    with torch.no_grad():
        own = clip_module(pixel_values=images).image_embeds
    assert (out - own).abs().max() < 1e-5


@given(st.lists(masks, min_size=1, max_size=8), st.integers(1, 5), st.integers(1, 11))
@settings(max_examples=30, deadline=None)
def test_the_trie_equals_each_mask_alone(tower, images, means, some, stack, chunk):
    plan = dataclasses.replace(PLAN, stack=stack, chunk=chunk)
    together = dict(engine.embed(tower, images, some, plan, means=means))
    assert set(together) == set(some)
    for mask in some:
        with apply(tower, engine.with_means(mask, means), probe=False), torch.no_grad():
            alone = tower.encode(images)
        assert (together[mask] - alone).abs().max() < 1e-6 * alone.abs().max()


@pytest.mark.parametrize("head", ["L0.H1", "L1.H3", "L2.H0"])
def test_zero_is_zeroing_the_out_projections_columns(clip_module, tower, images, head):
    mask = Mask.suppress(tower.grid, [head])
    out = dict(engine.embed(tower, images, [mask], PLAN))[mask]
    layer, index = mask.heads[0].layer, mask.heads[0].index
    weight = clip_module.vision_model.encoder.layers[layer].self_attn.out_proj.weight
    columns = slice(index * 16, (index + 1) * 16)
    kept = weight[:, columns].clone()
    with torch.no_grad():
        weight[:, columns] = 0
        expected = clip_module(pixel_values=images).image_embeds
        weight[:, columns] = kept
    assert (out - expected).abs().max() < 1e-5


def test_results_do_not_depend_on_the_other_masks_bit_for_bit(tower, images):
    """What a resumed run computes must be what the interrupted one would have computed."""
    plan = dataclasses.replace(PLAN, stack=1)
    some = [Mask.suppress(GRID, [head]) for head in GRID]
    together = dict(engine.embed(tower, images, some, plan))
    for mask in some[::3]:
        assert torch.equal(dict(engine.embed(tower, images, [mask], plan))[mask], together[mask])


def test_more_masks_than_one_walk_holds(tower, images):
    some = [Mask.suppress(GRID, [a, b]) for a in GRID for b in GRID if a < b]
    assert len(some) > engine.MASKS_PER_WALK
    together = dict(engine.embed(tower, images, some, PLAN))
    mask = some[37]
    alone = dict(engine.embed(tower, images, [mask], PLAN))[mask]
    assert list(together) == [mask for walk in engine.walks(some) for mask in walk]
    torch.testing.assert_close(together[mask], alone, atol=1e-6, rtol=1e-6)


def test_a_sweep_costs_half_of_running_every_mask_alone():
    tower = tower_of(small_clip(layers=6, heads=2))
    sweep = [Mask.suppress(tower.grid, [head]) for head in tower.grid]
    alone = sum(engine.ffe(tower, [mask]) for mask in sweep)
    assert alone == pytest.approx(len(sweep))
    assert engine.ffe(tower, sweep) < 0.65 * alone
    assert engine.ffe(tower, []) == 0


def test_progress_adds_up_to_the_cost(tower, images):
    done: list[float] = []
    some = [Mask.suppress(GRID, [head]) for head in GRID]
    list(engine.embed(tower, images, some, PLAN, progress=done.append))
    assert sum(done) == pytest.approx(engine.ffe(tower, some))


def test_bfloat16_agrees(tower, images):
    some = [Mask.identity(GRID), Mask.suppress(GRID, ["L1.H2"])]
    full = dict(engine.embed(tower, images, some, PLAN))
    half = dict(engine.embed(tower, images, some, dataclasses.replace(PLAN, dtype="bfloat16")))
    for mask in some:
        assert torch.cosine_similarity(full[mask], half[mask]).min() > 0.999
    assert tower.dtype == torch.float32  # the user's model stays as it was


def test_head_means_are_the_mean_over_images_and_rows(clip_module, tower, images, means):
    layer = clip_module.vision_model.encoder.layers[1]
    seen: list[torch.Tensor] = []
    handle = layer.self_attn.out_proj.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    with torch.no_grad():
        clip_module(pixel_values=images)
    handle.remove()
    expected = seen[0].mean((0, 1)).view(4, 16)
    torch.testing.assert_close(means[1], expected, atol=1e-6, rtol=1e-5)


def test_mean_without_constants_is_an_error(tower, images):
    with pytest.raises(HeadwiseError, match="with_means"):
        list(engine.embed(tower, images, [Mask.suppress(GRID, ["L0.H0"], "mean")], PLAN))


def test_a_mask_for_another_grid_is_an_error(tower, images):
    with pytest.raises(HeadwiseError, match="this model has 3 layers x 4 heads"):
        list(engine.embed(tower, images, [Mask.identity(Grid((2, 2)))], PLAN))


def test_a_tower_on_a_gpu_is_not_copied_for_any_gpu(tower):
    with FakeTensorMode():  # tensors that have a device and no numbers
        there = dataclasses.replace(tower, parts=torch.nn.ModuleList([torch.nn.Linear(2, 2, device="cuda:1")]))
        assert there.cast("cuda", torch.float32) is there
        assert there.cast("cuda:1", torch.float32) is there


def test_a_plan_for_a_missing_gpu_or_an_unknown_precision_is_an_error(tower, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(HeadwiseError, match="no such CUDA GPU"):
        plan(tower, device="cuda")
    with pytest.raises(HeadwiseError, match="bfloat16"):
        plan(tower, dtype="int8")


@pytest.mark.parametrize("most", [6, 4, 1])
def test_less_at_once_where_memory_is_too_small(tower, clip_module, images, most):
    """Stacks of 3 × 4 images do not fit; what does gives the same embeddings, and all of the work is told once."""
    masks = [Mask.suppress(GRID, [f"L{row}.H{head}"], "uniform") for row in range(3) for head in range(4)]
    whole = dict(engine.embed(tower, images, masks, PLAN))
    seen, told = [], []

    def too_much(_module, arguments):
        seen.append(len(arguments[0]))
        if len(arguments[0]) > most:
            raise torch.OutOfMemoryError("CUDA out of memory")

    hooks = [layer.mlp.register_forward_pre_hook(too_much) for layer in clip_module.vision_model.encoder.layers]
    try:
        found = dict(engine.embed(tower, images, masks, PLAN, progress=told.append))
    finally:
        for hook in hooks:
            hook.remove()
    assert max(seen) > most
    assert list(found) == list(whole)
    assert max(float((found[mask] - whole[mask]).abs().max()) for mask in masks) < 1e-5
    assert sum(told) == pytest.approx(engine.ffe(tower, masks))


def test_an_image_that_does_not_fit_is_said(tower, clip_module, images):
    def too_much(_module, _arguments):
        raise torch.OutOfMemoryError("CUDA out of memory")

    hook = clip_module.vision_model.encoder.layers[1].mlp.register_forward_pre_hook(too_much)
    try:
        with pytest.raises(HeadwiseError, match="too small for one image"):
            list(engine.embed(tower, images, [Mask.identity(GRID)], PLAN))
    finally:
        hook.remove()

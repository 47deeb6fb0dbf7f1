"""Heads cut out of every family: the smaller module computes what the folded one does, by its library's own call."""

from __future__ import annotations

import pytest
import torch
from cases import CASES, built
from headwise_pruning import removing

from headwise.edits.mask import Mask
from headwise.shipping.prune import program, pruned, pruned_module
from headwise.towers import tower_of

MIXED = {  # a norm over all heads, or positions of each head's own: their heads stay as folded weights
    "open_clip custom block, inner norm",
    "open_clip EVA02-CLIP",
    "timm norm before the projection",
    "timm EVA02, average",
    "timm EVA02 post-norm",
    "timm EVA, mixed rotary",
    "timm RN50",
    "open_clip RN50",
}


@pytest.mark.parametrize("name", CASES)
def test_pruned_as_folded(name):
    """`pruned` itself compares the walk and the library's forward with the folded tower; here it is what was cut."""
    tower = tower_of(built(name))
    cut = pruned(tower, removing(tower))
    assert (cut.gone == 0) == (name in MIXED), cut.sentence
    if cut.gone:
        assert len(cut.kept[0]) == 0
        assert sum(map(len, cut.kept)) == tower.grid.size - cut.gone
        before, after = (sum(p.numel() for p in one.parts.parameters()) for one in (tower, cut.tower))
        assert after < before
    assert tower.grid == tower_of(built(name)).grid  # the live model has all its heads


@pytest.mark.parametrize("name", ["hf CLIP", "open_clip ViT-B-32", "timm CLIP"])
def test_the_librarys_own_methods_run_pruned(name):
    module = built(name)
    tower = tower_of(module)
    mask = removing(tower)
    twin, cut = pruned_module(module, tower_of, mask)
    images = torch.randn(2, 3, tower.resolution, tower.resolution)
    with torch.inference_mode():
        own = CASES[name].own(twin, images)
        from headwise.applied.live import apply

        with apply(tower, mask):
            wanted = CASES[name].own(module, images)
    assert cut.gone
    torch.testing.assert_close(own, wanted, atol=1e-4 * float(wanted.abs().max()), rtol=0)


def test_mean_outputs_stay_in_the_bias(tower, images):
    """Operator mean: what a removed head emitted is kept, also in a block that loses its attention."""
    from headwise.applied.live import apply
    from headwise.evaluation.engine import head_means, with_means
    from headwise.evaluation.layout import Plan

    mask = Mask.suppress(tower.grid, ["L1.H0", "L1.H1", "L1.H2", "L1.H3", "L2.H0"], "mean")
    mask = with_means(mask, head_means(tower, images, Plan()))
    cut = pruned(tower, mask)
    with torch.inference_mode(), apply(tower, mask):
        wanted = tower.encode(images)
    with torch.inference_mode():
        torch.testing.assert_close(cut.tower.encode(images), wanted, atol=1e-5, rtol=1e-4)
    assert [len(row) for row in cut.kept] == [4, 0, 3]


def test_a_program_runs_without_headwise(tower, images, tmp_path):
    cut = pruned(tower, Mask.suppress(tower.grid, ["L0.H0", "L2.H1", "L2.H3"]))
    torch.export.save(program(cut.tower), tmp_path / "image.pt2")
    loaded = torch.export.load(tmp_path / "image.pt2").module()
    with torch.inference_mode():
        torch.testing.assert_close(loaded(images), cut.tower.encode(images), atol=1e-5, rtol=1e-4)
        assert loaded(images[:1]).shape == (1, 24)

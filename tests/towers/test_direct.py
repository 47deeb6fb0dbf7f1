"""Direct contributions: parts and rest are the library's own embedding, in every family, and a head's part by hand."""

import pytest
import torch
from cases import CASES, built, own_embedding

from headwise.explanation.direct import LIMIT, decompose, direct_contributions, direct_heads, why_not
from headwise.towers import tower_of

NOT_LINEAR = {"timm maximum pooling", "timm refined pooling"}


@pytest.mark.parametrize("name", CASES)
def test_parts_and_rest_sum_to_the_librarys_embedding(name):
    tower = tower_of(built(name))
    images = torch.randn(2, 3, tower.resolution, tower.resolution, generator=torch.Generator().manual_seed(0))
    if name in NOT_LINEAR:
        assert "not linear" in str(why_not(tower, images))
        return
    assert why_not(tower, images) is None
    found = decompose(tower, images)
    own = own_embedding(name, images)
    total = found.heads.sum(0) + sum(found.rest.values())
    assert (total - own).norm() < LIMIT * own.norm()
    assert len(found.heads) == len(direct_heads(tower))
    assert (found.heads.flatten(1).norm(dim=1) > 0).all()


def test_a_heads_part_is_its_columns_of_the_out_projection_through_norm_and_projection():
    module = built("hf CLIP")
    tower = tower_of(module)
    images = torch.randn(2, 3, tower.resolution, tower.resolution, generator=torch.Generator().manual_seed(1))
    found = decompose(tower, images)
    vision, inputs, last = module.vision_model, {}, {}
    hooks = [
        layer.self_attn.out_proj.register_forward_pre_hook(lambda m, args, i=i: inputs.update({i: args[0]}))
        for i, layer in enumerate(vision.encoder.layers)
    ]
    hooks.append(vision.post_layernorm.register_forward_pre_hook(lambda m, args: last.update(x=args[0])))
    with torch.inference_mode():
        module.get_image_features(pixel_values=images)
        norm, weight = vision.post_layernorm, module.visual_projection.weight
        std = (last["x"].var(-1, correction=0, keepdim=True) + norm.eps).sqrt()
        for k, head in enumerate(direct_heads(tower)):
            columns = slice(64 * head.index, 64 * head.index + 64)
            out = vision.encoder.layers[head.layer].self_attn.out_proj.weight[:, columns]
            part = inputs[head.layer][:, 0, columns] @ out.T
            expected = ((part - part.mean(-1, keepdim=True)) / std * norm.weight) @ weight.T
            assert torch.allclose(found.heads[k], expected, atol=1e-5)
    for hook in hooks:
        hook.remove()


def test_chunks_do_not_matter_and_hooks_are_gone():
    tower = tower_of(built("hf SigLIP"))
    # transformers leaves hooks of its own on a model that was once asked for attention; other tests share this one
    before = {module: list(module._forward_hooks) for module in tower.parts.modules()}
    images = torch.randn(5, 3, tower.resolution, tower.resolution, generator=torch.Generator().manual_seed(2))
    whole = torch.empty(len(direct_heads(tower)), 5, 768, dtype=torch.float16).numpy()
    parts = whole.copy()
    assert direct_contributions(tower, images, whole, chunk=5) < LIMIT
    direct_contributions(tower, images, parts, chunk=2)
    assert abs(whole.astype("f4") - parts.astype("f4")).max() < 1e-3
    assert {module: list(module._forward_hooks) for module in tower.parts.modules()} == before

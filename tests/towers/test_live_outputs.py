"""What a library gives beside the embedding, under a mask: attention, hidden states, and what hooks see."""

import copy
from dataclasses import dataclass

import pytest
import torch
from cases import CASES, built, hf_model, timm_model
from golden import PLAN, pictures, randomise, soft_mask
from test_live_families import call
from torch import nn

from headwise.applied.live import apply
from headwise.edits.edit import KINDS
from headwise.edits.mask import Mask
from headwise.evaluation import engine
from headwise.towers import tower_of

HF = {
    "hf CLIP": {"vocab_size": 100},
    "hf SigLIP": {"vocab_size": 200, "max_position_embeddings": 64, "projection_size": 768},
    "hf Chinese-CLIP": {"vocab_size": 100},
    "hf AltCLIP": {"vocab_size": 100, "project_dim": 64},
    "hf MetaCLIP 2": {"vocab_size": 100, "eos_token_id": 2},
}
CLASSES = {
    "hf CLIP": "CLIP",
    "hf SigLIP": "Siglip",
    "hf Chinese-CLIP": "ChineseCLIP",
    "hf AltCLIP": "AltCLIP",
    "hf MetaCLIP 2": "MetaClip2",
}


def replaced(a: torch.Tensor, gates: tuple[float, ...], operator: str) -> torch.Tensor:
    """A' = g·A + (1−g)·A0, written out for every head, (B, H, Q, N)."""
    count = a.shape[-1]
    a0 = {
        "zero": torch.zeros(a.shape[-2], count),
        "uniform": torch.full((a.shape[-2], count), 1 / count),
        "cls": torch.eye(count)[:1].expand(a.shape[-2], -1),
        "self": torch.eye(count),
        "mean": torch.zeros(a.shape[-2], count),  # the constant comes beside the attention
    }
    out = a.clone()
    for head, g in enumerate(gates):
        if operator == "cls_row":
            out[:, head, 0] *= g
        else:
            out[:, head] = g * a[:, head] + (1 - g) * a0[operator]
    return out


@dataclass
class Eager:
    vision: nn.Module
    tower: object
    images: torch.Tensor


def eager(name: str) -> Eager:
    model = hf_model(CLASSES[name], HF[name], {"num_hidden_layers": 3})
    model.set_attn_implementation("eager")
    randomise(model)
    tower = tower_of(model)
    return Eager(model.vision_model, tower, pictures(tower, 2))


@pytest.mark.parametrize("name", list(HF))
@torch.no_grad()
def test_attentions_and_hidden_states_are_those_that_the_edited_layers_used(name):
    """Every layer's entry is in its place, and is what the layer's own input gives when it is written out."""
    case = eager(name)
    grid = case.tower.grid
    rows = [row for row, block in enumerate(case.tower.blocks) if block.tokenwise]
    for operator in ("zero", "uniform", "mean", "cls", "self", "cls_row"):
        if operator not in case.tower.letters:
            continue
        gates = [(0.0, 0.3, *[1.0] * (grid.rows[row] - 2)) if row == 1 else (1.0,) * grid.rows[row] for row in
                 range(len(grid.rows))]  # fmt: skip
        means = engine.head_means(case.tower, case.images, PLAN) if operator == "mean" else None
        mask = Mask.gated(grid, gates, operator)
        mask = mask if means is None else engine.with_means(mask, means)
        with apply(case.tower, mask):
            out = case.vision(pixel_values=case.images, output_attentions=True, output_hidden_states=True)
        plain = case.vision(pixel_values=case.images, output_attentions=True, output_hidden_states=True)
        assert len(out.hidden_states) == len(rows) + 1
        for before in (0, 1):
            torch.testing.assert_close(out.hidden_states[before], plain.hidden_states[before])
        layers = case.vision.encoder.layers
        assert len(out.attentions) == len(rows)
        for row in rows:
            attn = layers[row].self_attn
            h = layers[row].layer_norm1(out.hidden_states[row])  # (B, N, D)
            q, k, v = (
                project(h).unflatten(-1, (attn.num_heads, -1)).transpose(1, 2)
                for project in (attn.q_proj, attn.k_proj, attn.v_proj)
            )
            own = (q @ k.transpose(-1, -2) * attn.head_dim**-0.5).softmax(-1)  # (B, H, N, N)
            wanted = replaced(own, gates[row], operator)
            torch.testing.assert_close(out.attentions[row], wanted, atol=1e-5, rtol=1e-4)
            z = wanted @ v  # (B, H, N, d)
            if operator == "mean":
                for head, edit in mask.edits.items():
                    if case.tower.grid.row_of(head) == row:
                        constant = torch.tensor(edit.value.array("constant").numpy())
                        z[:, head.index] += (1 - edit.value.number) * constant
            y = attn.out_proj(z.transpose(1, 2).flatten(2))  # (B, N, D)
            x = out.hidden_states[row] + y
            x = x + layers[row].mlp(layers[row].layer_norm2(x))
            torch.testing.assert_close(out.hidden_states[row + 1], x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", list(HF))
@torch.no_grad()
def test_fused_attention_returns_as_many_attentions_under_a_mask_as_without(name):
    model = built(name)
    tower = tower_of(model)
    images = pictures(tower, 1)
    plain = model.vision_model(pixel_values=images, output_attentions=True, output_hidden_states=True)
    with apply(model, soft_mask(tower, "zero")):
        out = model.vision_model(pixel_values=images, output_attentions=True, output_hidden_states=True)
    assert len(out.hidden_states) == len(plain.hidden_states)
    assert len(out.attentions or ()) == len(plain.attentions or ())


# ---- hooks


def seen_by_hooks(model: nn.Module, name: str, images: torch.Tensor) -> list[tuple[str, tuple]]:
    """Every call of every submodule, in order, with the shapes of what it was given and gave."""
    calls: list[tuple[str, tuple]] = []

    def shapes(value: object) -> object:
        if isinstance(value, torch.Tensor):
            return tuple(value.shape)
        if isinstance(value, tuple | list):
            return tuple(shapes(one) for one in value)
        return type(value).__name__

    def hook(label: str):
        return lambda module, args, output: calls.append((label, (shapes(args), shapes(output))))

    handles = [module.register_forward_hook(hook(label)) for label, module in model.named_modules()]
    try:
        with torch.no_grad():
            call(model, images, name)
    finally:
        for handle in handles:
            handle.remove()
    return calls


@pytest.mark.parametrize("name", list(CASES))
def test_every_hook_fires_as_often_and_on_the_same_shapes_as_without_a_mask(name):
    model = copy.deepcopy(built(name))
    tower = tower_of(model)
    images = pictures(tower, 1)
    plain = sorted(map(str, seen_by_hooks(model, name, images)))
    with apply(model, soft_mask(tower, "zero")):
        masked = sorted(map(str, seen_by_hooks(model, name, images)))
    assert masked == plain
    assert sorted(map(str, seen_by_hooks(model, name, images))) == plain


@pytest.mark.parametrize("name", ["open_clip ViT-B-32", "timm CLIP", "hf CLIP", "hf SigLIP", "open_clip RN50"])
@torch.no_grad()
def test_a_hook_on_the_attention_sees_its_edited_output_and_may_replace_it(name):
    """With every head of the first row at zero the attention's output is the out-projection's bias alone."""
    model = built(name)
    tower = tower_of(model)
    images, site = pictures(tower, 1), tower.blocks[0].site
    mask = Mask.suppress(tower.grid, [tower.grid.head(0, i) for i in range(tower.grid.rows[0])])
    outputs: list[torch.Tensor] = []
    handle = site.register_forward_hook(lambda *args: outputs.append(args[2]))
    with apply(model, mask):
        masked = call(model, images, name)
    handle.remove()
    (out,) = outputs
    out = out[0] if isinstance(out, tuple) else out
    bias = tower.blocks[0].weights().out_bias
    torch.testing.assert_close(out, bias.expand_as(out))

    def replace(module, args, output):
        shift = torch.linspace(-1, 1, output[0].shape[-1])
        return (output[0] + shift, *output[1:]) if isinstance(output, tuple) else output + shift

    handle = site.register_forward_hook(replace)
    with apply(model, mask):
        moved = call(model, images, name)
    handle.remove()
    assert (moved - masked).abs().max() > 1e-3


@torch.no_grad()
def test_the_usual_attention_map_hook_of_timm_sees_the_edited_attention():
    """`fused_attn = False` and a hook on `attn_drop`, as timm's users draw attention maps."""
    model = randomise(timm_model("vit_base_patch32_clip_224", depth=2))
    for block in model.blocks:
        block.attn.fused_attn = False
    tower = tower_of(model)
    images, maps = pictures(tower, 1), []
    means = engine.head_means(tower, images, PLAN)
    handle = model.blocks[1].attn.attn_drop.register_forward_hook(lambda *args: maps.append(args[2]))
    model(images)
    (own,) = maps
    for operator in ("zero", "uniform", "cls", "self", "cls_row", "mean"):
        maps.clear()
        gates = (1.0,) * 12, (0.0, 0.3, *[1.0] * 10)
        mask = engine.with_means(Mask.gated(tower.grid, gates, operator), means)
        with apply(model, mask):
            explicit = model(images)
        # what a head emits is edited after its attention, which stays as it is then
        wanted = replaced(own, gates[1], operator) if KINDS[operator].side == "attention" else own
        torch.testing.assert_close(maps[0], wanted, atol=1e-5, rtol=1e-4)
        model.blocks[1].attn.fused_attn = True
        with apply(model, mask):
            torch.testing.assert_close(model(images), explicit, atol=1e-4, rtol=1e-4)
        model.blocks[1].attn.fused_attn = False
    handle.remove()


@pytest.mark.parametrize("name", ["open_clip ViT-B-32", "open_clip CoCa", "hf SigLIP"])
@torch.no_grad()
def test_attention_weights_of_torchs_multi_head_attention(name):
    model = built(name)
    tower = tower_of(model)
    row = len(tower.blocks) - 1
    attn = tower.blocks[row].site
    width = attn.embed_dim
    generator = torch.Generator().manual_seed(2)
    q = torch.randn(2, 3, width, generator=generator)
    k = torch.randn(2, 5, attn.kdim, generator=generator)
    own_out, own = attn(q, k, k, need_weights=True, average_attn_weights=False)
    gates = [(1.0,) * count for count in tower.grid.rows]
    gates[row] = (0.0, 0.3, *[1.0] * (tower.grid.rows[row] - 2))
    with apply(tower, Mask.gated(tower.grid, gates, "uniform")):
        out, each = attn(q, k, k, need_weights=True, average_attn_weights=False)
        _, mean = attn(q, k, k)
        fused, none = attn(q, k, k, need_weights=False)
    wanted = replaced(own, gates[row], "uniform")
    torch.testing.assert_close(each, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(mean, wanted.mean(1), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(fused, out, atol=1e-5, rtol=1e-4)
    assert none is None
    assert not torch.allclose(out, own_out, atol=1e-4)

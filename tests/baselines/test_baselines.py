import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from headwise.baselines import BASELINES, FitSettings, fit
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import embed
from headwise.evaluation.layout import plan
from headwise.scoring.losses import captions, value_of
from headwise.scoring.ranking import retrieve
from headwise.scoring.recall import recalls
from headwise.search.training import Anchors, split_off
from headwise.towers import tower_of

sys.path.insert(0, str(Path(__file__).parents[1] / "search"))
from planted import SCALE, planted

SETTINGS = FitSettings(epochs=6, batch=16)


@pytest.fixture(scope="module")
def case():
    return planted("zero")


def run(name, case, settings=SETTINGS, *, scale=SCALE, loss="softmax", bias=0.0, **options):
    memory = captions(case.texts, case.owner, len(case.images), loss=loss, scale=scale, bias=bias)
    return fit(name, case.tower, case.images, memory, settings, **options)


def loss(case, embeddings, texts, scale=SCALE):
    return retrieve(embeddings, texts, case.owner, scale=scale).loss


@pytest.mark.parametrize("name", BASELINES)
def test_each_lowers_the_loss_and_leaves_the_users_model_as_it_was(case, name):
    parts = case.tower.parts
    kinds = [(type(module), module.training) for module in parts.modules()]
    before = {key: value.clone() for key, value in parts.state_dict().items()}
    settings = replace(SETTINGS, epochs=30) if name in ("adapter", "logit") else SETTINGS
    found = run(name, case, settings)
    ((_, plain),) = embed(case.tower, case.images, [Mask.identity(case.tower.grid)], plan(case.tower, dtype="float32"))
    embeddings = found.embed(case.images)
    assert embeddings.shape == plain.shape
    assert loss(case, embeddings, found.text(case.texts), found.scale) < 0.97 * loss(case, plain, case.texts)
    assert found.best > 0
    assert found.history[found.best].held_out < found.history[0].held_out
    assert found.seconds > 0
    assert [(type(module), module.training) for module in parts.modules()] == kinds
    assert before.keys() == parts.state_dict().keys()
    assert all(torch.equal(value, before[key]) for key, value in parts.state_dict().items())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in parts.parameters())


def test_the_number_of_trained_values_is_what_was_trained(case):
    one = replace(SETTINGS, epochs=1)
    width, layers, embedding = 64, 3, 24
    # per LayerNorm a weight and a bias: two in each block, one before the first and one after the last
    assert run("layernorm", case, one).trained == 2 * width * (2 * layers + 2)
    # four projections of each block, two factors of rank 3
    assert run("lora", case, replace(one, rank=3)).trained == layers * 4 * 2 * width * 3
    assert run("projection", case, one).trained == embedding * width
    # of every block four square projections and the two matrices of the MLP, none of smaller side than the width
    assert run("svd", case, one).trained == layers * 6 * width
    assert run("adapter", case, one).trained == embedding**2
    assert run("adapter", case, replace(one, both_sides=True)).trained == 2 * embedding**2
    assert run("logit", case, one).trained == 1
    assert run("logit", case, one, loss="sigmoid", bias=-10.0).trained == 2


def test_lora_ends_in_an_ordinary_tower_with_the_weights_it_trained(case):
    found = run("lora", case)
    assert [type(m) for m in found.tower.parts.modules()] == [type(m) for m in case.tower.parts.modules()]
    old, new = case.tower.parts.state_dict(), found.tower.parts.state_dict()
    changed = {key.rpartition(".")[0].rpartition(".")[2] for key in old if not torch.equal(old[key], new[key])}
    assert changed == {"q_proj", "k_proj", "v_proj", "out_proj"}
    delta = new["0.encoder.layers.1.self_attn.v_proj.weight"] - old["0.encoder.layers.1.self_attn.v_proj.weight"]
    assert int(torch.linalg.matrix_rank(delta.double(), tol=1e-4)) <= SETTINGS.rank


def test_the_tower_that_comes_back_is_the_one_that_was_judged(case):
    for name in ("lora", "layernorm", "projection", "svd"):
        found = run(name, case)
        memory = captions(case.texts, case.owner, 48, scale=SCALE)
        held_out = split_off(48, SETTINGS.holdout, SETTINGS.seed)[1]
        again = value_of(memory, found.embed(case.images)[held_out], held_out)
        assert float(again) == pytest.approx(found.history[found.best].held_out, rel=1e-4)


def test_layernorm_changes_nothing_but_layernorms(case):
    found = run("layernorm", case)
    old, new = case.tower.parts.state_dict(), found.tower.parts.state_dict()
    assert all("norm" in key or "layrnorm" in key for key in old if not torch.equal(old[key], new[key]))


def test_the_projection_alone_moves_and_decay_holds_it(case):
    found = run("projection", case)
    old, new = case.tower.parts.state_dict(), found.tower.parts.state_dict()
    assert old.keys() == new.keys()
    (moved,) = (key for key in old if not torch.equal(old[key], new[key]))
    assert old[moved].shape == (24, 64)

    def far(decay):
        held = run("projection", case, replace(SETTINGS, weight_decay=decay, holdout=0.0)).tower.parts.state_dict()
        return float((held[moved] - old[moved]).norm())

    assert far(100.0) < 0.9 * far(0.0)


def test_singular_values_alone_move_and_the_directions_stay(case):
    found = run("svd", case)
    assert [type(m) for m in found.tower.parts.modules()] == [type(m) for m in case.tower.parts.modules()]
    old, new = case.tower.parts.state_dict(), found.tower.parts.state_dict()
    assert list(old) == list(new)
    moved = [key for key in old if not torch.equal(old[key], new[key])]
    assert len(moved) == 3 * 6
    assert all(".layers." in key and key.endswith("weight") and "norm" not in key for key in moved)
    for key in moved:
        u, s, v = torch.linalg.svd(old[key].double(), full_matrices=False)
        turned = u.T @ new[key].double() @ v.T  # (K, K), diagonal as long as no direction turns
        assert float((turned - torch.diag(turned.diagonal())).abs().max()) < 1e-4 * float(s[0])
        assert float((turned.diagonal() / s - 1).abs().max()) > 1e-3


def test_tuning_the_logits_changes_no_rank(case):
    found = run("logit", case)
    ((_, plain),) = embed(case.tower, case.images, [Mask.identity(case.tower.grid)], plan(case.tower, dtype="float32"))
    assert torch.equal(found.embed(case.images), plain)
    assert 0 < found.scale < SCALE  # the planted head makes the model wrong, so it should be less sure


def test_an_adapter_undoes_a_linear_change_of_the_captions(case):
    ((_, plain),) = embed(
        case.tower, case.images, [Mask.suppress(case.tower.grid, ["L1.H2"])], plan(case.tower, dtype="float32")
    )
    generator = torch.Generator().manual_seed(0)
    centred = plain - plain.mean(0)
    turned = centred.repeat_interleave(2, 0) @ (torch.eye(24) + 0.4 * torch.randn(24, 24, generator=generator))
    settings = FitSettings(epochs=60, batch=16, learning_rate=0.02, patience=10)
    found = run("adapter", replace(case, texts=turned), settings)
    before, after = (
        recalls(retrieve(x, turned, case.owner, scale=SCALE).ranks)["mean_recall"]
        for x in (plain, found.embed(case.images))
    )
    assert after > before + 0.2


def test_both_sides_change_the_captions_too(case):
    found = run("adapter", case, replace(SETTINGS, both_sides=True))
    assert not torch.allclose(found.text(case.texts), case.texts)
    assert run("adapter", case).text(case.texts) is case.texts


@pytest.mark.parametrize("name", BASELINES)
def test_the_same_seed_gives_the_same_bytes_and_draws_nothing_from_the_global_generator(case, name):
    settings = replace(SETTINGS, epochs=2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = run(name, case, settings)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again = run(name, case, settings)
    assert torch.equal(first.embed(case.images), again.embed(case.images))
    assert (first.history, first.scale) == (again.history, again.scale)


def test_where_training_does_not_help_the_model_stays_as_it_is(case):
    ((_, plain),) = embed(case.tower, case.images, [Mask.identity(case.tower.grid)], plan(case.tower, dtype="float32"))
    solved = replace(case, texts=plain.repeat_interleave(2, 0))
    found = run("layernorm", solved, replace(SETTINGS, learning_rate=50.0, patience=2))
    assert found.best == 0
    assert len(found.history) == 3
    assert found.tower.weights_hash == case.tower.weights_hash


@pytest.mark.parametrize("name", ["lora", "layernorm", "adapter", "projection", "svd"])
def test_anchors_hold_embeddings_where_they_are(case, name):
    ((_, before),) = embed(case.tower, case.images, [Mask.identity(case.tower.grid)], plan(case.tower, dtype="float32"))
    settings = replace(SETTINGS, holdout=0.0)

    def moved(anchors):
        found = run(name, case, settings, anchors=anchors)
        return float(1 - torch.nn.functional.cosine_similarity(found.embed(case.images), before).mean())

    free, light, heavy = moved(None), *(moved(Anchors(case.images, before, weight)) for weight in (1e-6, 1e3))
    assert light == pytest.approx(free, rel=0.05)
    assert heavy < 0.5 * free


def test_anchors_have_nothing_to_hold_where_no_image_moves(case):
    with pytest.raises(HeadwiseError, match="moves no image"):
        run("logit", case, anchors=Anchors(case.images, torch.zeros(len(case.images), 24), 1.0))


@pytest.mark.parametrize("name", ["lora", "layernorm", "projection", "svd"])
def test_saving_memory_changes_the_result_by_rounding_alone(case, name):
    settings = replace(SETTINGS, epochs=2)
    plain, saved = run(name, case, settings), run(name, case, replace(settings, recompute=True))
    assert torch.allclose(plain.embed(case.images), saved.embed(case.images), atol=1e-4)


def test_bfloat16_autocast_trains_float32_values(case):
    found = run("layernorm", case, replace(SETTINGS, autocast=True))
    assert found.history[found.best].held_out < found.history[0].held_out
    assert {parameter.dtype for parameter in found.tower.parts.parameters()} == {torch.float32}


def test_bad_input_is_refused(case):
    with pytest.raises(HeadwiseError, match="not a baseline"):
        run("prompt", case)
    with pytest.raises(HeadwiseError, match="rank"):
        FitSettings(rank=0)
    with pytest.raises(HeadwiseError, match="no caption"):
        run("adapter", replace(case, texts=case.texts[:-2], owner=case.owner[:-2]))
    with pytest.raises(HeadwiseError, match="owner"):
        run("lora", replace(case, owner=np.arange(3)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_tiny_patch16_224", {"global_pool": "token"}),
        ("vit_tiny_patch16_224", {"global_pool": "avg"}),
        ("vit_tiny_patch16_224", {"global_pool": "map", "class_token": False}),
        ("eva02_tiny_patch14_224", {}),
    ],
)
def test_lora_is_added_where_a_layer_is_called(name, options):
    """timm's packed projections are read by their weights alone where few queries are wanted, and always beside RoPE."""
    import timm

    torch.manual_seed(0)
    side = 28 if "eva" in name else 32
    tower = tower_of(timm.create_model(name, img_size=side, num_classes=0, depth=2, **options).eval())
    images = torch.randn(16, 3, side, side)
    memory = captions(torch.randn(16, 192), np.arange(16), 16)
    found = fit("lora", tower, images, memory, replace(SETTINGS, epochs=1))
    assert found.trained > 0
    assert found.embed(images).shape == (16, 192)


def test_without_peft_lora_says_what_to_install(case, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(HeadwiseError, match=r"headwise\[baselines\]"):
        run("lora", case)

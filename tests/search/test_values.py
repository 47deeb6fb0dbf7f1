"""Values of heads learned by back-propagation: what is trained is what the engine runs, planted harm is found, anchors hold."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from planted import HEAD, SCALE, planted

from headwise.applied.fold import folded
from headwise.edits.heads import Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import embed
from headwise.evaluation.layout import plan
from headwise.evaluation.moments import head_moments
from headwise.scoring.losses import captions, value_of
from headwise.search.gated import frozen, under
from headwise.search.training import Anchors
from headwise.search.values import Values, ValueSettings, learn_values

RUNGS = [
    ("scale",),
    ("temperature",),
    ("shift",),
    ("spectral",),
    ("scale", "temperature", "shift"),
    ("temperature", "spectral"),
]
SHORT = ValueSettings(batch=16, epochs=3)


@pytest.fixture(scope="module")
def case():
    return planted("zero")


@pytest.fixture(scope="module")
def moments(case):
    return head_moments(case.tower, case.images, plan(case.tower, dtype="float32"))


def captions_of(case, **options):
    return captions(case.texts, case.owner, len(case.images), scale=SCALE, **options)


def learn(case, moments, settings=SHORT, **options):
    return learn_values(case.tower, case.images, captions_of(case), settings, moments, **options)


def theta_of(values, seed=0):
    generator = torch.Generator().manual_seed(seed)
    theta = values.start + 0.3 * torch.randn(len(values.start), generator=generator)
    values.project(theta)
    return theta


def test_moments_are_those_of_the_outputs(case, moments):
    seen = []
    with torch.inference_mode():
        x = case.tower.stem(case.images)
        for row, block in enumerate(case.tower.blocks):
            z, _ = block.attend(x, case.tower.queries(row))
            seen.append(z.transpose(0, 1).flatten(1, 2).double())  # (H, B·Q, d)
            x = block.finish(x if case.tower.queries(row) is None else x[:, case.tower.queries(row)], z)
    for z, found in zip(seen, moments, strict=True):
        torch.testing.assert_close(found.mean.double(), z.mean(1), atol=1e-5, rtol=1e-4)
        covariance = torch.stack([torch.cov(head.T, correction=0) for head in z])
        rebuilt = found.axes.double() @ torch.diag_embed(found.spread.double() ** 2) @ found.axes.mT.double()
        torch.testing.assert_close(rebuilt, covariance, atol=1e-5 * float(covariance.abs().max()), rtol=1e-3)
        assert bool((found.spread[:, :-1] >= found.spread[:, 1:] - 1e-6).all())


@pytest.mark.parametrize("learned", RUNGS)
def test_what_is_trained_is_what_the_engine_and_folded_weights_run(case, moments, learned):
    values = Values(case.tower, ValueSettings(learn=learned), moments)
    theta = theta_of(values)
    mask = values.mask(theta)
    with torch.no_grad():
        trained = under(case.tower, case.images, values.rows(theta, None, 1.0))
    ((_, engine),) = embed(case.tower, case.images, [mask], plan(case.tower, dtype="float32"))
    scale = float(engine.abs().max())
    assert torch.allclose(trained, engine, atol=1e-5 * scale)
    with folded(case.tower, mask), torch.inference_mode():
        assert torch.allclose(case.tower.encode(case.images), engine, atol=1e-5 * scale)
    start = values.mask(values.start)
    ((_, plain), *_) = embed(
        case.tower, case.images, [Mask.identity(case.tower.grid)], plan(case.tower, dtype="float32")
    )
    ((_, unchanged),) = embed(case.tower, case.images, [start], plan(case.tower, dtype="float32"))
    assert torch.allclose(unchanged, plain, atol=1e-5 * scale)
    assert not torch.allclose(engine, plain, atol=1e-3 * scale)


@pytest.mark.parametrize("learned", RUNGS)
def test_gradients_equal_finite_differences(case, learned):
    tower = case.tower.cast("cpu", torch.float64)
    images, numbers = case.images[:6].double(), torch.arange(6)
    memory = captions(case.texts.double(), case.owner, 48, scale=SCALE)
    values = Values(
        tower, ValueSettings(learn=learned), head_moments(case.tower, case.images, plan(case.tower, dtype="float32"))
    )
    theta = theta_of(values).double().requires_grad_()

    def loss(theta):
        return value_of(memory, under(tower, images, values.rows(theta, None, 1.0)), numbers)

    with frozen(tower.parts):
        (gradient,) = torch.autograd.grad(loss(theta), theta)
        some = torch.linspace(0, len(theta) - 1, 12).long()
        with torch.no_grad():
            for i in some.tolist():
                step = torch.zeros_like(theta)
                step[i] = 1e-5
                slope = float(loss(theta + step) - loss(theta - step)) / 2e-5
                assert float(gradient[i]) == pytest.approx(slope, rel=1e-4, abs=1e-7)


def test_a_planted_head_is_scaled_down_and_the_held_out_loss_falls(case, moments):
    settings = ValueSettings(batch=16, epochs=25, learning_rate=0.1, holdout=0.2, patience=25)
    found = learn(case, moments, settings)
    scales = {head: edit.gate or 0.0 for head, edit in found.mask.edits.items()}
    assert min(scales, key=lambda head: scales[head]) == Head.parse(HEAD)
    assert scales[Head.parse(HEAD)] < 0.5
    first, best = found.history[0].held_out, found.history[found.best - 1].held_out
    assert first is not None
    assert best is not None
    assert best < first
    assert [mask.size > 0 for mask in found.shrunken.values()] == [True] * 4


def test_anchors_hold_embeddings_where_they_are(case, moments):
    ((_, before),) = embed(case.tower, case.images, [Mask.identity(case.tower.grid)], plan(case.tower, dtype="float32"))
    settings = ValueSettings(batch=16, epochs=6, learning_rate=0.1, holdout=0.0)

    def moved(anchors):
        mask = learn(case, moments, settings, anchors=anchors).mask
        ((_, after),) = embed(case.tower, case.images, [mask], plan(case.tower, dtype="float32"))
        return float((1 - torch.nn.functional.cosine_similarity(before, after)).mean())

    free = moved(None)
    held = moved(Anchors(case.images[:16], before[:16], 30.0 * SCALE))
    assert held < 0.5 * free


def test_a_penalty_holds_values_where_they_begin(case, moments):
    def spread(penalty):
        return learn(case, moments, replace(SHORT, penalty=penalty)).history[-1].open

    assert spread(100.0) < spread(0.0)


@pytest.mark.parametrize("learned", [("scale",), ("temperature", "spectral")])
def test_the_same_seed_gives_the_same_values_and_a_run_goes_on_where_it_stopped(case, moments, learned, tmp_path):
    settings, path = replace(SHORT, learn=learned), tmp_path / "values.safetensors"
    whole = learn(case, moments, settings)
    assert learn(case, moments, settings).mask == whole.mask
    assert learn(case, moments, replace(settings, seed=1)).mask != whole.mask

    class Enough(Exception):
        pass

    done = []

    def stop(ffe):
        done.append(ffe)
        if sum(done) > 0.6 * whole.spent:
            raise Enough

    with pytest.raises(Enough):
        learn(case, moments, settings, checkpoint=path, progress=stop)
    assert path.exists()
    assert learn(case, moments, settings, checkpoint=path).mask == whole.mask
    with pytest.raises(HeadwiseError, match="another run"):
        learn(case, moments, replace(settings, learning_rate=0.1), checkpoint=path)


def test_progress_adds_up_to_what_was_spent(case, moments):
    done = []
    found = learn(case, moments, progress=done.append)
    assert sum(done) == pytest.approx(found.spent)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"learn": ("banana",)}, r"'banana' cannot be learned.*scale, temperature, shift, spectral"),
        ({"learn": ()}, "cannot be learned"),
        ({"learn": ("spectral", "scale")}, "learn it alone, or with temperature"),
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"epochs": 0}, "epochs is 0"),
        ({"penalty": -1.0}, "penalty is -1.0"),
        ({"holdout": 1.0}, "holdout is 1.0"),
    ],
)
def test_a_wrong_setting_is_named(change, says):
    with pytest.raises(HeadwiseError, match=says):
        ValueSettings(**change)


def test_values_and_shrinking_are_counted_by_what_was_learned(case, moments):
    heads, width = case.tower.grid.size, case.tower.blocks[0].head_dim
    masks = {n: Values(case.tower, ValueSettings(learn=n), moments) for n in (("scale",), ("spectral",))}
    counts = {n: v.mask(theta_of(v)).values for n, v in masks.items()}
    assert counts == {("scale",): heads, ("spectral",): heads * width}
    mask = masks["spectral",].mask(theta_of(masks["spectral",]))
    whole, half = mask.edit("L0.H0").value, mask.shrunk(0.5).edit("L0.H0").value
    assert whole is not None
    assert half is not None
    np.testing.assert_allclose(half.array("scales").numpy(), 0.5 + 0.5 * whole.array("scales").numpy(), rtol=1e-6)

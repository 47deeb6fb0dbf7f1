"""A batch in parts: embeddings and gradients are those of the whole batch."""

import pickle

import pytest
import torch
from planted import planted

from headwise.evaluation.layout import plan
from headwise.evaluation.moments import head_moments
from headwise.search.gated import frozen, under
from headwise.search.parts import PART, Embedder, Parts
from headwise.search.values import Values, ValueSettings

COUNT = 2 * PART + 3  # the last part is smaller


@pytest.fixture(scope="module")
def case():
    return planted("zero")


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("learned", [("scale", "temperature", "shift"), ("temperature", "spectral")])
def test_embeddings_and_gradients_are_those_of_the_whole_batch(case, learned, recompute):
    tower, draw = case.tower, torch.Generator().manual_seed(0)
    values = Values(tower, ValueSettings(learn=learned), head_moments(tower, case.images, plan(tower, dtype="float32")))
    theta = (values.start + 0.1 * torch.randn(len(values.start), generator=draw)).requires_grad_()
    numbers = torch.randperm(len(case.images), generator=draw)[:COUNT]
    embedder = Embedder(tower, Parts([case.images], recompute, False))
    with frozen(tower.parts):
        rows = values.rows(theta, None, 1.0)
        whole, parted = under(tower, case.images[numbers], rows), embedder(0, numbers, rows)
        torch.testing.assert_close(parted, whole, atol=1e-6, rtol=1e-5)
        target = torch.randn(whole.shape, generator=draw)
        expected, found = (
            torch.autograd.grad((e * target).sum(), theta, retain_graph=True)[0] for e in (whole, parted)
        )
        torch.testing.assert_close(found, expected, atol=1e-6 * float(expected.abs().max()), rtol=1e-4)
        with torch.no_grad():
            assert torch.equal(embedder(0, numbers, rows), parted)


def test_a_copy_in_another_process_that_kept_nothing_gives_the_same_bits(case):
    """As a worker does that takes over from one that died between embeddings and gradients."""
    tower = case.tower
    values = Values(
        tower, ValueSettings(learn=("scale",)), head_moments(tower, case.images, plan(tower, dtype="float32"))
    )
    found = []

    class Elsewhere:
        def call(self, function, arguments):
            return [pickle.loads(pickle.dumps(function))(tower, argument) for argument in arguments]

    for workers in (None, Elsewhere()):
        theta = (values.start * 0.9).requires_grad_()
        embedder = Embedder(tower, Parts([case.images], False, False), workers)
        e = embedder(0, torch.arange(COUNT), values.rows(theta, None, 1.0))
        e.square().sum().backward()
        found.append((e.detach(), theta.grad))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))

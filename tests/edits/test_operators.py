"""Every operator equals the explicit attention matrix A' = g·A + (1−g)·A0 applied to v."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.edits.operators import OPERATORS, suppress
from headwise.errors import HeadwiseError

B, H, N, D = 2, 3, 5, 4


def explicit(operator: str, attention: torch.Tensor, v: torch.Tensor, g: torch.Tensor, mean: torch.Tensor):
    a0 = {
        "zero": torch.zeros(N, N),
        "uniform": torch.full((N, N), 1 / N),
        "cls": torch.nn.functional.one_hot(torch.zeros(N, dtype=torch.long), N).float(),
        "self": torch.eye(N),
    }.get(operator)
    g = g[:, None, None]  # (H, 1, 1)
    if operator == "mean":
        return g * (attention @ v) + (1 - g) * mean[:, None, :]
    if operator == "cls_row":
        a = attention.clone()
        a[:, :, :1] = g * attention[:, :, :1]
        return a @ v
    return (g * attention + (1 - g) * a0) @ v


def sample(seed: int):
    generator = torch.Generator().manual_seed(seed)
    attention = torch.rand(B, H, N, N, generator=generator).softmax(-1)  # (B, H, N, N)
    v = torch.randn(B, H, N, D, generator=generator)  # (B, H, N, d)
    return attention, v, torch.rand(H, generator=generator), torch.randn(H, D, generator=generator)


@given(st.sampled_from(list(OPERATORS)), st.integers(0, 1000), st.sampled_from([None, slice(0, 1), slice(1, 4)]))
@settings(max_examples=60, deadline=None)
def test_equals_the_explicit_attention(operator, seed, queries):
    attention, v, g, mean = sample(seed)
    expected = explicit(operator, attention, v, g, mean)
    z = attention @ v  # (B, H, N, d)
    if queries is not None:
        z, expected = z[:, :, queries], expected[:, :, queries]
    out = suppress(operator, z, v, g, queries=queries, mean=mean)
    torch.testing.assert_close(out, expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("operator", list(OPERATORS))
def test_gate_one_is_bit_identical(operator):
    attention, v, _, mean = sample(3)
    z = attention @ v
    assert torch.equal(suppress(operator, z, v, torch.ones(H), mean=mean), z)


@pytest.mark.parametrize("operator", list(OPERATORS))
def test_gradients_of_the_gates(operator):
    attention, v, g, mean = (t.double() for t in sample(5))
    z = attention @ v
    g.requires_grad_(True)
    assert torch.autograd.gradcheck(lambda gates: suppress(operator, z, v, gates, mean=mean), (g,))


def test_gates_may_differ_per_image():
    attention, v, _, _ = sample(7)
    z, g = attention @ v, torch.rand(B, H)
    out = suppress("uniform", z, v, g)
    for b in range(B):
        torch.testing.assert_close(out[b], suppress("uniform", z[b], v[b], g[b]))


def test_mean_without_its_constants_is_refused():
    _, v, g, _ = sample(1)
    with pytest.raises(HeadwiseError, match="mean outputs"):
        suppress("mean", v, v, g)


def test_self_is_refused_where_queries_are_not_tokens():
    _, v, g, _ = sample(1)
    with pytest.raises(HeadwiseError, match="pooling"):
        suppress("self", v[:, :, :1], v, g)

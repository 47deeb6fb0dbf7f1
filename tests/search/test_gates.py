import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.search.gates import FORMS, expected_l0, hard_concrete, hard_concrete_mode, soft_top_k, suppressed_exactly

VALUES = st.lists(st.floats(-6, 6), min_size=4, max_size=12)


def test_expected_l0_is_the_mean_number_of_open_gates():
    theta = torch.tensor([-3.0, -1.0, 0.0, 0.5, 2.0])
    generator = torch.Generator().manual_seed(0)
    samples = hard_concrete(theta.expand(200_000, 5), torch.rand(200_000, 5, generator=generator))
    open_gates = (samples > 0).float().mean(0)  # (5)
    assert float(expected_l0(theta)) == pytest.approx(float(open_gates.sum()), abs=0.01)
    each = torch.stack([expected_l0(value[None]) for value in theta])
    assert torch.allclose(each, open_gates, atol=0.005)


def test_hard_concrete_gates_reach_both_ends_exactly():
    noise = torch.rand(1000, generator=torch.Generator().manual_seed(0))
    gates = hard_concrete(torch.zeros(1000), noise)
    assert (gates == 0).any()
    assert (gates == 1).any()
    assert ((gates > 0) & (gates < 1)).any()
    assert hard_concrete_mode(torch.tensor([-4.0, 0.0, 4.0])).tolist() == [0.0, 0.5, 1.0]


@settings(max_examples=50, deadline=None)
@given(VALUES, st.integers(1, 3), st.integers(0, 99))
def test_top_k_suppresses_exactly_k_heads_in_training_and_in_evaluation(values, k, seed):
    theta = torch.tensor(values)
    noise = torch.rand(len(values), generator=torch.Generator().manual_seed(seed))
    gates = FORMS["top_k"].train(theta, noise, 0.7, k)
    assert sorted(gates.tolist()) == [0.0] * k + [1.0] * (len(values) - k)
    still = FORMS["top_k"].evaluate(theta, 0.7, k)
    assert theta[still == 0].max() <= theta[still == 1].min()
    assert int((still == 0).sum()) == k


@settings(max_examples=50, deadline=None)
@given(VALUES, st.integers(1, 3), st.floats(0.2, 3))
def test_the_soft_choice_sums_to_k_and_sharpens_to_the_hard_one(values, k, temperature):
    keys = torch.tensor(values, dtype=torch.float64)
    assert float(soft_top_k(keys, k, temperature).sum()) == pytest.approx(k)
    apart = torch.arange(len(values), dtype=torch.float64)
    assert torch.allclose(soft_top_k(apart, k, 0.02), suppressed_exactly(-apart, k), atol=1e-4)


def test_straight_through_gradients_are_those_of_the_soft_choice():
    theta = torch.tensor([0.3, -0.2, 1.0, 0.1], requires_grad=True)
    weight, noise = torch.tensor([1.0, -2.0, 0.5, 3.0]), torch.rand(4, generator=torch.Generator().manual_seed(3))
    (FORMS["top_k"].train(theta, noise, 0.5, 2) * weight).sum().backward()
    other = theta.detach().clone().requires_grad_()
    gumbel = -(-noise.log()).log()
    ((1 - soft_top_k(0.5 * gumbel - other, 2, 0.5)) * weight).sum().backward()
    assert theta.grad is not None
    assert theta.grad.abs().max() > 0
    assert torch.allclose(theta.grad, other.grad)


def test_a_falling_temperature_drives_sigmoid_gates_to_the_ends():
    theta = torch.tensor([-1.0, 1.0])
    warm, cold = (FORMS["sigmoid"].evaluate(theta, temperature, 0) for temperature in (1.0, 0.1))
    assert 0.2 < warm[0] < warm[1] < 0.8
    assert cold[0] < 1e-4
    assert cold[1] > 1 - 1e-4

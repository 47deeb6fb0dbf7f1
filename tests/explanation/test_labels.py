"""Labels: matching pursuit against plain least squares, the null, TextSpan against its published loop."""

import numpy as np
import pytest
import torch

from headwise.explanation.labels import against, axes, centred_texts, label_all, pursue, text_span

E, N, P = 24, 300, 120


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def texts(rng):
    return centred_texts(torch.from_numpy(rng.normal(size=(P, E)) + 3.0))


def planted(rng, texts: torch.Tensor, which: list[int], noise: float) -> np.ndarray:
    """Effects that vary along some texts, (N, E)."""
    weights = rng.normal(size=(N, len(which))) * np.arange(len(which) + 1, 1, -1)
    return (weights @ texts[which].numpy() + noise * rng.normal(size=(N, E)) + 0.7).astype(np.float32)


def test_text_directions_have_length_one_and_no_common_part(texts):
    assert torch.allclose(texts.norm(dim=1), torch.ones(P), atol=1e-5)
    assert texts.mean(0).norm() < 0.05


def test_pursuit_explains_what_least_squares_on_its_texts_explains(rng, texts):
    x = planted(rng, texts, [3, 50, 99], noise=0.3)
    own = axes(x, kept=1.0)
    found = pursue(texts, texts @ own.directions.T * own.spread, 5)
    centred = x - x.mean(0)
    total = (centred**2).sum()
    for k in range(1, 6):
        chosen = texts[list(found.texts[:k])].numpy()  # (k, E)
        fit, *_ = np.linalg.lstsq(chosen.T, centred.T, rcond=None)
        left = ((centred.T - chosen.T @ fit) ** 2).sum()
        assert found.explained[k - 1] == pytest.approx(total - left, rel=1e-3)
    assert set(found.texts[:3]) == {3, 50, 99}


def test_each_text_is_the_one_that_explains_most_of_what_is_left(rng, texts):
    x = planted(rng, texts, [10, 20], noise=1.0)
    own = axes(x, kept=1.0)
    found = pursue(texts, texts @ own.directions.T * own.spread, 4)
    left = x - x.mean(0)
    for k, text in enumerate(found.texts):
        assert text == int(((left @ texts.numpy().T) ** 2).sum(0).argmax())
        chosen = texts[list(found.texts[: k + 1])].numpy()
        fit, *_ = np.linalg.lstsq(chosen.T, (x - x.mean(0)).T, rcond=None)
        left = x - x.mean(0) - (chosen.T @ fit).T


def test_axes_hold_the_share_of_variance_that_was_asked_for(rng, texts):
    x = planted(rng, texts, [1, 2], noise=0.1)
    own = axes(x)
    variance = np.linalg.svd(x - x.mean(0), compute_uv=False) ** 2
    shares = np.cumsum(variance) / variance.sum()
    assert len(own.spread) == int(np.searchsorted(shares, 0.9)) + 1
    assert own.kept == pytest.approx(shares[len(own.spread) - 1], rel=1e-4)


def test_a_planted_direction_is_found_and_random_heads_abstain(rng, texts):
    heads = [
        planted(rng, texts, [7], noise=0.05),
        *(rng.normal(size=(N, E)) @ rng.normal(size=(E, E)) for _ in range(12)),
    ]
    found = label_all(lambda row: heads[row].astype(np.float32), len(heads), texts, draws=60)
    assert found[0].found.texts[0] == 7
    assert not found[0].abstains
    assert found[0].p < 0.05
    assert found[0].found.explained[0] > 0.8
    assert sum(not one.abstains for one in found[1:]) <= 3  # one in twenty by chance


@pytest.mark.parametrize("evenly", [False, True])
def test_heads_without_texts_get_labels_no_more_often_than_promised(rng, evenly):
    """Neither directions that lie as texts do (a null of even directions let most of them pass) nor evenly drawn ones."""
    lie = np.linspace(3, 0.1, E)
    texts = centred_texts(torch.from_numpy(rng.normal(size=(P, E)) * lie))
    spread = np.linspace(3, 0.2, E)
    heads = []
    for _ in range(120):
        frame, _ = np.linalg.qr((1 if evenly else lie[:, None]) * rng.normal(size=(E, E)))
        heads.append((rng.normal(size=(80, E)) * spread @ frame.T).astype(np.float32))
    found = label_all(heads.__getitem__, len(heads), texts, draws=60, count=3)
    share = np.mean([not one.abstains for one in found])
    assert share <= 0.14


def test_a_head_that_does_nothing_abstains(texts):
    nothing = np.zeros((N, E), np.float32)
    constant = np.tile(texts[4].numpy(), (N, 1))
    for one in label_all([nothing, constant].__getitem__, 2, texts, draws=5):
        assert one.abstains
        assert one.found.texts == ()


def test_the_sign_says_whether_a_head_writes_towards_or_against(rng, texts):
    near = rng.normal(size=N)
    without = near[:, None] * texts[5].numpy() + 0.1 * rng.normal(size=(N, E))
    towards = 0.3 * near[:, None] * texts[5].numpy()
    assert not against(towards, without, texts[[5]].numpy())[0]
    assert against(-towards, without, texts[[5]].numpy())[0]


def published(data: np.ndarray, text: np.ndarray, rounds: int, rank: int) -> list[int]:
    """TextSpan step by step as its paper has it."""
    _, _, vh = np.linalg.svd(data, full_matrices=False)
    basis = vh[:rank]
    text = text @ basis.T @ np.linalg.inv(basis @ basis.T) @ basis
    data = data - data.mean(0)
    found = []
    for _ in range(rounds):
        projection = data @ text.T
        j = int(projection.std(0).argmax())
        found.append(j)
        r = text[j].copy()
        data = data - np.outer(data @ r, r) / (r @ r)
        text = text - np.outer(text @ r, r) / (r @ r)
    return found


def test_text_span_is_the_published_one(rng, texts):
    x = planted(rng, texts, [3, 50, 99, 100], noise=0.5)
    unit = torch.nn.functional.normalize(torch.from_numpy(rng.normal(size=(P, E))), dim=1)
    for rank in (4, 80):
        assert text_span(x, unit, 4, rank) == published(x.astype(np.float64), unit.numpy(), 4, rank)

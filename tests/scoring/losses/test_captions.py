import numpy as np
import pytest
import torch

from headwise.errors import HeadwiseError
from headwise.scoring.losses import captions, value_of
from headwise.scoring.ranking import retrieve

OWNER = np.array([0, 0, 1, 2, 2, 2, 3, 4, 4, 5])


def data(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(6, 8, generator=generator), torch.randn(10, 8, generator=generator)


@pytest.mark.parametrize(("loss", "scale", "bias"), [("softmax", 20.0, 0.0), ("sigmoid", 10.0, -5.0)])
def test_one_batch_of_all_images_has_the_loss_that_evaluation_reports(loss, scale, bias):
    x, texts = data()
    memory = captions(texts, OWNER, 6, loss=loss, scale=scale, bias=bias)
    value = value_of(memory, x.double(), torch.arange(6))
    expected = retrieve(x, texts, OWNER, loss=loss, scale=scale, bias=bias).loss
    assert float(value) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("loss", "scale", "bias"), [("softmax", 20.0, 0.0), ("sigmoid", 10.0, -5.0)])
@pytest.mark.parametrize("tile", [1, 23, 10**6])
def test_a_text_of_several_images_has_the_loss_that_evaluation_reports(loss, scale, bias, tile):
    x, texts = data()
    owner, of = (
        np.append(OWNER, [3, 5, 0]),
        np.append(np.arange(10), [0, 0, 6]),
    )  # text 0 is of 0, 3 and 5; 6 of 3 and 0
    memory = captions(texts, owner, 6, of=of, loss=loss, scale=scale, bias=bias)
    value = sum(float(term) for term in memory.terms(x.double(), torch.arange(6), tile=tile))
    expected = retrieve(x, texts, owner, of=of, loss=loss, scale=scale, bias=bias).loss
    assert value == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(("loss", "scale", "bias"), [("softmax", 60.0, 0.0), ("sigmoid", 60.0, -30.0)])
def test_images_of_one_text_are_not_negatives_of_each_other(loss, scale, bias):
    x = torch.eye(4)[[0, 0, 1, 1, 2, 2]]  # (6, 4): two images of each of three texts
    memory = captions(
        torch.eye(4)[:3], np.arange(6), 6, of=np.repeat(np.arange(3), 2), loss=loss, scale=scale, bias=bias
    )
    assert float(value_of(memory, x, torch.arange(6))) < 1e-6


@pytest.mark.parametrize(("loss", "scale", "bias"), [("softmax", 60.0, 0.0), ("sigmoid", 60.0, -30.0)])
def test_captions_of_one_image_are_not_negatives_of_each_other(loss, scale, bias):
    # every image says the same thing twice and far from all others: as negatives the two would cost ln 2 or more
    x = torch.eye(4)  # (4, 4)
    memory = captions(x.repeat_interleave(2, 0), np.repeat(np.arange(4), 2), 4, loss=loss, scale=scale, bias=bias)
    assert float(value_of(memory, x, torch.arange(4))) < 1e-6


@pytest.mark.parametrize(("loss", "scale", "bias"), [("softmax", 20.0, 0.0), ("sigmoid", 10.0, -5.0)])
@pytest.mark.parametrize("tile", [1, 23, 10**6])
def test_the_loss_in_tiles_has_the_same_value_and_gradient(loss, scale, bias, tile):
    x, texts = data()
    memory = captions(texts.double(), OWNER, 6, loss=loss, scale=scale, bias=bias)
    numbers = torch.tensor([4, 0, 2, 5])
    whole, parts = (x[numbers].double().requires_grad_() for _ in range(2))
    value = value_of(memory, whole, numbers)
    value.backward()
    terms = []
    for term in memory.terms(parts, numbers, tile=tile):
        term.backward()
        terms.append(float(term.detach()))
    assert sum(terms) == pytest.approx(float(value.detach()), rel=1e-12)
    assert torch.allclose(whole.grad, parts.grad, atol=1e-12)


def test_every_caption_of_the_split_is_a_negative_of_a_batch():
    x, texts = data()
    batch = torch.tensor([0, 1])
    before = value_of(captions(texts, OWNER, 6, scale=20.0), x[batch], batch)
    texts[9] = x[0]  # a caption of image 5, which is not in the batch, fits image 0 better than its own
    assert value_of(captions(texts, OWNER, 6, scale=20.0), x[batch], batch) > before + 0.5


def test_an_image_without_captions_and_an_unknown_loss_are_refused():
    _, texts = data()
    with pytest.raises(HeadwiseError, match="no caption"):
        captions(texts, OWNER, 7)
    with pytest.raises(HeadwiseError, match="not a loss"):
        captions(texts, OWNER, 6, loss="hinge")


@pytest.mark.parametrize(("loss", "scale", "bias"), [("softmax", 20.0, 0.0), ("sigmoid", 10.0, -5.0)])
@pytest.mark.parametrize("tile", [1, 23, 10**6])
def test_distractors_are_negatives_as_in_evaluation(loss, scale, bias, tile):
    x, texts = data()
    foreign = torch.randn(7, 8, generator=torch.Generator().manual_seed(5))
    memory = captions(texts, OWNER, 6, loss=loss, scale=scale, bias=bias, distractors=foreign)
    value = sum(float(term) for term in memory.terms(x.double(), torch.arange(6), tile=tile))
    both = torch.cat([texts, foreign])
    expected = retrieve(x, both, OWNER, loss=loss, scale=scale, bias=bias, distractors=7).loss
    assert value == pytest.approx(expected, rel=1e-5)
    assert value > float(value_of(captions(texts, OWNER, 6, loss=loss, scale=scale, bias=bias), x, torch.arange(6)))

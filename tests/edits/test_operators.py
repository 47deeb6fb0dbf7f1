"""Every edit equals what it is defined as, written with whole attention matrices, head by head."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.edits.arrays import Array
from headwise.edits.edit import KINDS, Edit, Letter
from headwise.edits.operators import letter_row, row_of
from headwise.errors import HeadwiseError

B, H, N, D = 2, 3, 5, 4


def attention(q, k, v):
    return torch.nn.functional.scaled_dot_product_attention(q, k, v)


def sample(seed: int):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(B, H, N, D, generator=generator, dtype=torch.float64) for _ in range(3))  # q, k, v


@st.composite
def letters(draw, side: str) -> Letter:
    name = draw(st.sampled_from([name for name, kind in KINDS.items() if kind.side == side]))
    kind = KINDS[name]
    number = None if kind.default is None and not kind.needs else draw(st.floats(0, min(kind.most, 2.0)))
    numbers = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    arrays = []
    for array, sides in kind.arrays:
        value = torch.randn((D,) * len(sides), generator=numbers)
        arrays.append((array, Array.of(torch.linalg.qr(value).Q if array == "axes" else value)))
    return Letter(name, number, tuple(arrays))


def edits():
    return st.builds(
        Edit, attention=st.one_of(st.none(), letters("attention")), value=st.one_of(st.none(), letters("value"))
    )


def explicit(edit: Edit, q, k, v) -> torch.Tensor:
    """One head, (B, N, d), by its whole attention."""
    look, value = edit.attention, edit.value
    name, g = (look.name, look.number) if look else ("", 1.0)
    q, k = {"keys": (k, k), "queries": (q, q)}.get(name, (q, k))
    a = ((g if name == "temperature" else 1.0) * q @ k.mT / D**0.5).softmax(-1)  # (B, N, N)
    a0 = {"uniform": torch.full((N, N), 1 / N), "self": torch.eye(N), "cls": torch.eye(N)[:1].expand(N, -1)}.get(name)
    z = (a if a0 is None else g * a + (1 - g) * a0.double()) @ v
    if value is None:
        return z
    arrays = {name: torch.tensor(array.numpy()).double() for name, array in value.arrays}
    number = value.number
    if value.name == "spectral":
        return arrays["centre"] + ((z - arrays["centre"]) @ arrays["axes"] * arrays["scales"]) @ arrays["axes"].mT
    if value.name == "cls_row":
        return torch.cat([number * z[:, :1], z[:, 1:]], 1)
    added = {"mean": 1 - number, "shift": 1.0}.get(value.name, 0.0) * arrays.get("constant", torch.zeros(D))
    return number * z + added


@given(
    st.lists(edits(), min_size=H, max_size=H), st.integers(0, 1000), st.sampled_from([None, slice(0, 1), slice(1, 4)])
)
@settings(max_examples=120, deadline=None)
def test_equals_the_explicit_attention(row, seed, queries):
    q, k, v = sample(seed)
    expected = torch.stack([explicit(edit, q[:, h], k[:, h], v[:, h]) for h, edit in enumerate(row)], 1)
    z, own = attention(q, k, v), q
    if queries is not None:
        z, own, expected = z[:, :, queries], q[:, :, queries], expected[:, :, queries]
    found = row_of(row, D)
    if found is not None:
        z = found.emit(found.attend(z, own, k, v, attention, queries=queries, all_queries=q), queries)
    torch.testing.assert_close(z, expected, atol=1e-6, rtol=1e-5)


@given(st.lists(edits(), min_size=H, max_size=H), st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_the_whole_attention_makes_the_same_outputs(row, seed):
    q, k, v = sample(seed)
    if (found := row_of(row, D)) is None:
        return
    weights = found.attention((q @ k.mT / D**0.5).softmax(-1), q, k)  # (B, H, N, N)
    torch.testing.assert_close(weights.sum(-1), torch.ones(B, H, N).double(), atol=1e-6, rtol=0)
    torch.testing.assert_close(weights @ v, found.attend(attention(q, k, v), q, k, v, attention), atol=1e-6, rtol=1e-5)


NUMBERED = [name for name, kind in KINDS.items() if kind.keeps is not None]


@pytest.mark.parametrize("name", NUMBERED)
def test_a_number_that_keeps_is_bit_identical(name):
    q, k, v = sample(3)
    z = attention(q, k, v)
    row = letter_row(name, torch.ones(H), mean=torch.randn(H, D))
    assert torch.equal(row.emit(row.attend(z, q, k, v, attention)), z)


@pytest.mark.parametrize("name", NUMBERED)
def test_gradients_of_the_numbers(name):
    q, k, v = sample(5)
    z = attention(q, k, v)
    mean, g = torch.randn(H, D, dtype=torch.float64), torch.rand(H, dtype=torch.float64, requires_grad=True)

    def run(gates):
        row = letter_row(name, gates, mean=mean)
        return row.emit(row.attend(z, q, k, v, attention))

    assert torch.autograd.gradcheck(run, (g,))


def test_arrays_that_are_missing_or_of_another_width_are_refused():
    with pytest.raises(HeadwiseError, match="mean outputs"):
        letter_row("mean", torch.ones(H))
    with pytest.raises(HeadwiseError, match=r"head 1 has no arrays yet.*with_means"):
        row_of([Edit(), Edit.parse("mean"), Edit()], D)
    wide = Edit(value=Letter("shift", None, (("constant", Array.of([0.0] * 7)),)))
    with pytest.raises(HeadwiseError, match="for heads of 7 values; this head emits 4"):
        row_of([wide], D)


@pytest.mark.parametrize("name", ["self", "keys", "queries"])
def test_what_needs_tokens_is_refused_where_queries_are_none(name):
    q, k, v = sample(1)
    row = row_of([Edit.parse(name)] * H, D)
    with pytest.raises(HeadwiseError, match="pooling"):
        row.attend(q[:, :, :1], q[:, :, :1], k, v, attention)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ((("constant", Array.of([1.0])), ("more", Array.of([1.0]))), "has the arrays constant, more"),
        ((("axes", Array.of([[1.0]])),), "axes; it takes: constant"),
        ((("constant", Array.of([[1.0, 2.0]])),), r"has the shape \[1, 2\]"),
    ],
)
def test_arrays_that_do_not_belong_to_a_letter_are_refused(arrays, says):
    with pytest.raises(HeadwiseError, match=says):
        Letter("shift", None, arrays)


def test_numbers_that_are_not_finite_are_refused():
    with pytest.raises(HeadwiseError, match="not finite"):
        Array.of([float("nan")])

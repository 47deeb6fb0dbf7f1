import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwise.edits.heads import POOL, Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError

GRID = Grid((4, 4, 2), pool=3)
heads = st.sampled_from(list(GRID))
head_sets = st.sets(heads)


@given(heads)
def test_head_parses_what_it_prints(head):
    assert Head.parse(str(head)) == head


@pytest.mark.parametrize("text", ["L1H2", "1.2", "L-1.H0", "L1.H2.H3", "", "pool"])
def test_other_texts_are_not_heads(text):
    with pytest.raises(HeadwiseError, match=r"L10\.H3"):
        Head.parse(text)


def test_pool_heads_come_last():
    assert sorted([Head(POOL, 0), Head(11, 3), Head(2, 1)]) == [Head(2, 1), Head(11, 3), Head(POOL, 0)]
    assert str(list(GRID)[-1]) == "pool.H2"


@given(st.lists(st.integers(1, 5), max_size=4), st.integers(0, 3))
def test_a_grid_is_known_by_its_heads(layers, pool):
    grid = Grid(tuple(layers), pool)
    assert Grid.spanned(reversed(list(grid))) == grid


@given(head_sets)
def test_mask_parses_what_it_prints(chosen):
    mask = Mask.suppress(GRID, chosen, "zero")
    assert Mask.parse(GRID, str(mask)) == mask
    assert set(mask.heads) == chosen
    assert mask.size == len(chosen)


@given(head_sets, head_sets)
def test_set_operations_act_on_the_suppressed_heads(a, b):
    x, y = Mask.suppress(GRID, a), Mask.suppress(GRID, b)
    assert set((x | y).heads) == a | b
    assert set((x & y).heads) == a & b
    assert set((x - y).heads) == a - b
    assert set((x ^ y).heads) == a ^ b


@given(head_sets, head_sets)
def test_keys_are_equal_exactly_for_equal_effects(a, b):
    x, y = Mask.suppress(GRID, a, "zero"), Mask.suppress(GRID, b, "zero")
    assert (x.key == y.key) == (a == b)
    if a:
        assert x.key != x.with_operator("mean").key
    else:
        assert x.key == x.with_operator("uniform").key


def test_identity_suppresses_nothing():
    assert Mask.identity(GRID).is_identity
    assert str(Mask.identity(GRID)) == "identity"


@pytest.mark.parametrize("gate", [-0.1, 1.5, float("nan")])
def test_gates_outside_the_unit_interval_are_refused(gate):
    with pytest.raises(HeadwiseError, match=r"L0\.H1.*\[0, 1\]"):
        Mask.suppress(GRID, ["L0.H1"], gate=gate)


def test_a_head_outside_the_grid_is_refused():
    for name in ("L3.H0", "L2.H2", "pool.H3"):
        with pytest.raises(HeadwiseError, match="does not exist"):
            Mask.suppress(GRID, [name])
    with pytest.raises(HeadwiseError, match="does not exist"):
        Mask.suppress(Grid((4,)), ["pool.H0"])


def test_gates_of_another_shape_are_refused():
    with pytest.raises(HeadwiseError, match="shape"):
        Mask(Grid((2, 2)), ((1.0, 1.0),))


def test_unknown_operator_names_the_known_ones():
    with pytest.raises(HeadwiseError, match="uniform"):
        Mask.suppress(GRID, ["L0.H0"], "banana")


def test_scale_is_another_name_of_zero():
    assert Mask.suppress(GRID, ["L0.H0"], "scale", gate=0.5).operator == "zero"


def test_masks_of_different_grids_or_operators_do_not_combine():
    a = Mask.suppress(GRID, ["L0.H0"], "zero")
    with pytest.raises(HeadwiseError, match="grids"):
        _ = a | Mask.identity(Grid((4,)))
    with pytest.raises(HeadwiseError, match="operators"):
        _ = a | Mask.suppress(GRID, ["L0.H0"], "mean")
    assert (Mask.identity(GRID) | Mask.suppress(GRID, ["L0.H0"], "mean")).operator == "mean"

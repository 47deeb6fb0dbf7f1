import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwise.edits.edit import KEEP, KINDS, Edit
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


@st.composite
def edits(draw) -> Edit:
    """Any edit that a text can hold whole, with numbers of at most three digits."""
    number = st.integers(0, 99).map(lambda n: n / 50)
    texts = []
    for side in ("attention", "value"):
        names = [name for name, kind in KINDS.items() if kind.side == side and not kind.arrays]
        name = draw(st.sampled_from(["", *names]))
        if not name:
            continue
        kind, value = KINDS[name], draw(number)
        numbered = kind.needs or (kind.default is not None and draw(st.booleans()))
        texts.append(f"{name}({min(value, kind.most):g})" if numbered else name)
    return Edit.parse("+".join(texts))


@given(edits())
def test_an_edit_parses_what_it_prints(edit):
    assert Edit.parse(str(edit)) == edit
    assert Edit.parse(edit.text(exact=True)) == edit


@given(st.dictionaries(heads, edits()))
def test_edits_parse_what_they_print(chosen):
    mask = Mask.of(GRID, chosen)
    assert Mask.parse(GRID, str(mask)) == mask
    assert dict(mask.edits) == {head: edit for head, edit in chosen.items() if edit != KEEP}
    assert mask.size == len(mask.heads) == len(mask.edits)


@given(head_sets, head_sets)
def test_set_operations_act_on_the_edited_heads(a, b):
    x, y = Mask.suppress(GRID, a), Mask.suppress(GRID, b)
    assert set((x | y).heads) == a | b
    assert set((x & y).heads) == a & b
    assert set((x - y).heads) == a - b
    assert set((x ^ y).heads) == a ^ b


@given(st.dictionaries(heads, edits()), st.dictionaries(heads, edits()))
def test_where_both_edit_a_head(a, b):
    x, y = Mask.of(GRID, a), Mask.of(GRID, b)
    assert dict((x | y).edits) == {**x.edits, **y.edits}
    assert dict((x & y).edits) == {head: edit for head, edit in x.edits.items() if head in y.edits}


@given(st.dictionaries(heads, edits()), st.dictionaries(heads, edits()))
def test_keys_are_equal_exactly_for_equal_edits(a, b):
    x, y = Mask.of(GRID, a), Mask.of(GRID, b)
    assert (x.key == y.key) == (x == y) == (x.order == y.order)


def test_identity_changes_nothing_and_is_the_first():
    identity = Mask.identity(GRID)
    assert identity.is_identity
    assert str(identity) == "identity"
    assert (
        min([Mask.suppress(GRID, ["L0.H0"]), identity, Mask.suppress(GRID, ["pool.H2"])], key=lambda m: m.order)
        is identity
    )


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("scale(0)", "zero"),
        ("temperature(0)", "uniform"),
        ("zero(0.5)", "scale(0.5)"),
        ("scale(1)", "keep"),
        ("temperature(1)+scale(1)", "keep"),
        ("uniform(1)+zero", "zero"),
        ("scale(0.9)+temperature(0.6)", "temperature(0.6)+scale(0.9)"),
        ("scale(1e+3)", "scale(1000)"),
        ("scale(-0)", "zero"),
        ("uniform(-0.0)", "uniform"),
    ],
)
def test_one_name_for_one_thing(text, other):
    assert Edit.parse(text) == Edit.parse(other)
    assert Edit.parse(text).text(exact=True) == Edit.parse(other).text(exact=True)
    grid = Grid((2,))
    assert Mask.of(grid, {"L0.H1": text}).key == Mask.of(grid, {"L0.H1": other}).key


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("banana", "banana.*temperature.*scale"),
        ("scale", r"needs a number, as in scale\(1\.5\)"),
        ("scale(-1)", "0 or more"),
        ("scale(nan)", "nan.*0 or more"),
        ("scale(inf)", "finite"),
        ("scale(1e39)", r"1e\+39; it has to be 0 or more, and finite: at most 1e\+30"),
        ("temperature(1e300)", r"at most 1e\+30"),
        ("temperature(-0.5)", "temperature.*0 or more"),
        ("uniform(1.5)", "from 0 to 1"),
        ("keys(2)", "takes no number"),
        ("scale(two)", "'two'.*not a number"),
        ("zero+mean", "value side twice"),
        ("keys+uniform", "attention side twice"),
        ("scale(1.5", "not an edit"),
        ("zero zero", "not an edit"),
    ],
)
def test_a_wrong_edit_is_named(text, says):
    with pytest.raises(HeadwiseError, match=says):
        Mask.parse(GRID, f"L0.H1={text}")


@pytest.mark.parametrize(("text", "says"), [("L0.H1", "what is done to it"), ("L0.H1=zero, L0.H1=mean", "twice")])
def test_a_wrong_list_of_edits_is_named(text, says):
    with pytest.raises(HeadwiseError, match=says):
        Mask.parse(GRID, text)


def test_a_head_outside_the_grid_is_refused():
    for name in ("L3.H0", "L2.H2", "pool.H3"):
        with pytest.raises(HeadwiseError, match="does not exist"):
            Mask.suppress(GRID, [name])
    with pytest.raises(HeadwiseError, match="does not exist"):
        Mask.suppress(Grid((4,)), ["pool.H0"])


def test_edits_of_another_shape_are_refused():
    with pytest.raises(HeadwiseError, match="shape"):
        Mask(Grid((2, 2)), ((KEEP, KEEP),))


def test_edits_of_different_grids_do_not_combine():
    with pytest.raises(HeadwiseError, match="grids"):
        _ = Mask.suppress(GRID, ["L0.H0"]) | Mask.identity(Grid((4,)))


@given(st.dictionaries(heads, edits()), st.floats(0, 1))
def test_shrinking_goes_from_identity_to_the_edits(chosen, alpha):
    mask = Mask.of(GRID, chosen)
    assert mask.shrunk(1.0) == mask
    numbered = Mask.of(
        GRID, {h: e for h, e in mask.edits.items() if not {"keys", "queries"} & {x.name for x in e.letters}}
    )
    assert numbered.shrunk(0.0).is_identity
    for head, edit in numbered.edits.items():
        after = numbered.shrunk(alpha).edit(head)
        for before, now in ((edit.attention, after.attention), (edit.value, after.value)):
            if before is not None:
                number = 1.0 if now is None else now.number
                assert number == pytest.approx(1 + alpha * (before.number - 1))


def test_what_a_mask_is():
    mask = Mask.parse(GRID, "L0.H0=zero, L1.H1=uniform")
    assert mask.is_binary
    assert mask.values == 2
    assert not Mask.parse(GRID, "L0.H0=scale(1.5)").is_binary
    assert not Mask.parse(GRID, "L0.H0=zero+keys").is_binary
    assert not Mask.parse(GRID, "L0.H0=mean").is_bound
    assert Mask.parse(GRID, "L0.H0=mean").bound(lambda head: [0.5, 1.0]).is_bound

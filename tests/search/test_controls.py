import math
from collections import Counter
from itertools import permutations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwise.edits.edit import Edit
from headwise.edits.heads import Grid
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.search.controls import controls

GRID = Grid((4, 3, 5), pool=2)
TEXTS = ["keep", "keep", "uniform", "scale(1.4)", "temperature(0.6)+scale(0.9)"]
edits = st.tuples(*(st.tuples(*[st.sampled_from([Edit.parse(text) for text in TEXTS])] * n) for n in GRID.rows))


@given(edits, st.integers(1, 30), st.integers(0, 5))
def test_controls_match_every_row_and_are_different(rows, count, seed):
    mask = Mask(GRID, rows)
    found = controls(mask, count, seed)
    available = math.prod(len(set(permutations(row))) for row in rows)
    assert len(found) == len(set(found)) == (min(count, available - 1) if available > 1 else 1)
    assert all(Counter(a) == Counter(b) for other in found for a, b in zip(other.table, rows, strict=True))
    if available > 1:
        assert mask not in found
    assert found == controls(mask, count, seed)


def test_every_matching_mask_comes_back_when_fewer_exist_than_asked():
    mask = Mask.suppress(Grid((2, 2)), ["L0.H0", "L1.H1"])
    expected = {Mask.suppress(Grid((2, 2)), [f"L0.H{a}", f"L1.H{b}"]) for a, b in product((0, 1), (0, 1))} - {mask}
    assert set(controls(mask, 100)) == expected


def test_no_control_is_likelier_than_another():
    mask = Mask.suppress(Grid((3, 4)), ["L0.H0", "L1.H1"])
    counts = {}
    for seed in range(1200):
        for other in controls(mask, 2, seed):
            counts[other] = counts.get(other, 0) + 1
    assert len(counts) == 11
    assert max(counts.values()) < 1.35 * min(counts.values())


def test_soft_gates_are_kept_and_moved():
    mask = Mask.gated(Grid((4,)), ((0.25, 1.0, 0.75, 1.0),))
    assert all(sorted(edit.gate for edit in other.table[0]) == [0.25, 0.75, 1.0, 1.0] for other in controls(mask, 5))
    assert len(controls(mask, 50)) == 11


def test_a_count_below_one_is_refused():
    with pytest.raises(HeadwiseError, match="at least 1"):
        controls(Mask.identity(GRID), 0)

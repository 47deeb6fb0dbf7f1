"""Long lists of edits are told by what they differ in."""

from __future__ import annotations

from headwise.reports.edit_lists import against, shortened

LONG = "L0.H1=zero, L1.H0=zero, L2.H3=zero, L3.H1=uniform, L4.H4=zero, L5.H0=zero, L5.H2=scale(0.5)"


def test_short_lists_are_whole_and_long_ones_cut():
    assert shortened("L0.H1=zero, L1.H0=zero") == "L0.H1=zero, L1.H0=zero"
    assert shortened("identity") == "identity"
    assert shortened(LONG) == "L0.H1=zero, L1.H0=zero, L2.H3=zero and 4 more"


def test_a_long_list_is_its_difference_from_the_one_above():
    other = LONG.replace("L1.H0=zero, ", "").replace("scale(0.5)", "scale(0.75)") + ", L5.H5=zero"
    assert against(other, LONG) == "the chosen, + L5.H2=scale(0.75), + L5.H5=zero, − L1.H0"
    assert against(other, LONG, "the first").startswith("the first, + ")


def test_what_has_nothing_in_common_or_is_short_stays_as_it_is():
    assert against(LONG, LONG) == shortened(LONG)
    assert against("L0.H1=zero", LONG) == "L0.H1=zero"
    assert against(LONG, "identity") == shortened(LONG)
    assert against(LONG, LONG.replace("H", "H1")) == shortened(LONG)
    assert against("identity", LONG) == "identity"

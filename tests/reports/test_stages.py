"""How the search went: the stages of every operator, and the best so far."""

import copy

import pytest
from sample_results import RESULTS

from headwise.reports.page import page_html
from headwise.reports.stages import stages

BASE = 0.2975


def results(*strategies: tuple[str, str, str, float], operators: tuple[str, ...] = ("uniform", "zero")) -> dict:
    made = copy.deepcopy(RESULTS)
    made["sweep"] = [one for one in made["sweep"] if one["operator"] in operators]
    made["strategies"] = [dict(zip(("operator", "name", "best", "ffe"), one, strict=True)) for one in strategies]
    return made


def test_each_operator_begins_with_its_sweep_and_the_best_so_far_never_falls():
    made = results(
        ("zero", "greedy", "L0.H0=zero, L1.H2=zero", 12.0),
        ("zero", "ga", "identity", 20.0),
        ("uniform", "greedy", "L3.H5=uniform", 9.0),
    )
    rows = stages(made, {"L0.H0=zero, L1.H2=zero": BASE + 0.02, "L3.H5=uniform": BASE + 0.0092}, BASE)
    assert [(row["operator"], row["name"]) for row in rows] == [
        ("zero", "sweep"), ("zero", "greedy"), ("zero", "ga"), ("uniform", "sweep"), ("uniform", "greedy"),
    ]  # fmt: skip
    assert [row["delta"] for row in rows] == pytest.approx([0.0131, 0.02, 0.0, 0.0131, 0.0092])
    assert [row["so_far"] for row in rows] == pytest.approx([0.0131, 0.02, 0.02, 0.02, 0.02])
    assert [row["ffe"] for row in rows] == [None, 12.0, 20.0, None, 9.0]  # of sweeps only the sum is known
    assert rows[0]["mask"] == "L1.H2=zero"


def test_the_cost_of_a_single_sweep_is_known():
    (row,) = stages(results(operators=("zero",)), {}, BASE)
    assert row["ffe"] == RESULTS["ffe"]["sweep"]


def test_a_mask_that_the_study_does_not_hold_any_more_is_left_out():
    made = results(("zero", "greedy", "L0.H0=zero", 12.0), ("zero", "bp", "L0.H0=scale(0.5)", 3.0), operators=("zero",))
    assert [row["name"] for row in stages(made, {"L0.H0=scale(0.5)": None}, BASE)] == ["sweep"]


def test_a_search_that_only_lost_leaves_the_unchanged_model_best():
    made = results(("zero", "greedy", "L0.H0=zero", 12.0), operators=())
    (row,) = stages(made, {"L0.H0=zero": BASE - 0.01}, BASE)
    assert row["delta"] == pytest.approx(-0.01)
    assert row["so_far"] == 0.0


def test_a_page_without_stages_has_no_such_part():
    assert 'id="search"' not in page_html(results(operators=()))

"""How the search went: the stages of every operator, and the best so far."""

import copy
import math
import re

import pytest
from sample_results import RESULTS

from headwise.evaluation.evaluator import Reached
from headwise.jobs.steps.results import turns
from headwise.reports import figures
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


def test_learned_edits_that_share_a_name_have_their_own_fitness():
    made = results(("spectral", "spectral", "L0.H0=spectral", 21.0), operators=())
    made["strategies"][0]["fitness"] = BASE + 0.03
    (row,) = stages(made, {"L0.H0=spectral": None}, BASE)
    assert row["delta"] == pytest.approx(0.03)


def test_a_search_that_only_lost_leaves_the_unchanged_model_best():
    made = results(("zero", "greedy", "L0.H0=zero", 12.0), operators=())
    (row,) = stages(made, {"L0.H0=zero": BASE - 0.01}, BASE)
    assert row["delta"] == pytest.approx(-0.01)
    assert row["so_far"] == 0.0


def test_a_page_without_stages_has_no_such_part():
    assert 'id="search"' not in page_html(results(operators=()))


def test_of_a_course_every_rise_and_the_end_of_every_stage_is_kept():
    course = [
        Reached("sweep", 5.0, -math.inf),  # no score was a number
        Reached("sweep", 18.0, 0.31),
        Reached("greedy", 20.0, 0.31),
        Reached("greedy", 22.0, 0.33),
        Reached("greedy", 24.0, 0.33),
        Reached("greedy", 26.0, 0.33),
        Reached("scale", 40.0, 0.33),
    ]
    assert [one.ffe for one in turns(course)] == [18.0, 22.0, 26.0, 40.0]
    assert turns([]) == []


def test_the_curve_of_a_search_steps_up_where_the_best_grew():
    points = [("sweep", 10.0, 0.31), ("greedy", 15.0, 0.33), ("greedy", 20.0, 0.33)]
    svg = figures.course(points, 0.30, "the <course>")
    path = re.search(r'd="M(\S+) (\S+)H(\S+)V(\S+)H(\S+)V(\S+)H(\S+)V(\S+)"', svg)
    assert path
    x0, y0, x1, y1, x2, y2, x3, y3 = map(float, path.groups())
    assert x1 - x0 == pytest.approx(2 * (x2 - x1), abs=0.2)
    assert x2 - x1 == pytest.approx(x3 - x2, abs=0.2)
    assert y0 - y1 == pytest.approx((y1 - y2) / 2, abs=0.2)  # down is up
    assert y2 == y3
    assert svg.count("<rect") == 1  # every second stage is shaded
    assert "the &lt;course&gt;" in svg
    assert figures.course([], 0.30, "nothing") == ""

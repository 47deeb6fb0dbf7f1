"""The plan of a run, stage by stage, against what the stages spend."""

from pathlib import Path

import pytest
from conftest import write_pairs

from headwise.jobs.refine import refine
from headwise.jobs.steps.settings import Settings

# what `headwise refine demo demo` spent (float32, AMD EPYC); the plan is the same with `--dry-run`
DEMO = {
    "sweep": 17.7328,
    "greedy": 49.7751,
    "ga": 35.2281,
    "scale": 20.8326,
    "spectral": 20.8326,
    "pick": 11.3632,
    "test": 24.5819,
}
STAGES = {
    "sweep (uniform)": "sweep",
    "greedy (uniform)": "greedy",
    "ga (uniform)": "ga",
    "learning scale": "scale",
    "learning spectral": "spectral",
    "finalists on the pick split": "pick",
    "test split (outside the budget)": "test",
}
REFIT = "learning again what was chosen"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), 48, splits=("search", "search", "pick", "test"))


def planned(pairs: object, settings: Settings) -> dict[str, dict]:
    plan = refine("demo", pairs, settings=settings, dry_run=True).results
    stages = {stage["stage"]: stage for stage in plan["stages"]}
    names = list(STAGES)
    if REFIT in stages:
        names.insert(-1, REFIT)
    assert list(stages) == names
    assert [stage["stage"] for stage in plan["stages"] if not stage["bounded"]] == ["test split (outside the budget)"]
    assert sum(stage["ffe"] for stage in plan["stages"] if stage["bounded"]) <= plan["budget"]
    return {STAGES.get(name, "refit"): stage for name, stage in stages.items()}


def test_the_plan_of_the_demo_is_what_its_stages_spend(pairs):
    """FFE follow from model and settings alone, so that few images tell what the demo's plan is."""
    plan = planned(pairs, Settings())
    assert plan["refit"]["ffe"] == pytest.approx(1.5 * (8 * 2 + 1))  # search and pick images, and the moments
    for name, spent in DEMO.items():
        assert 0.7 * spent <= plan[name]["ffe"] <= 1.3 * spent, name
        assert spent <= plan[name]["most"], name


@pytest.mark.parametrize("budget", [90.0, 120.0])
def test_a_budget_that_ends_the_searches_is_planned_as_it_is_spent(pairs, budget):
    settings = Settings(budget=budget)
    plan, spent = planned(pairs, settings), refine("demo", pairs, settings=settings).results["ffe"]
    assert "refit" not in plan  # it would leave too little for masks
    for name, stage in plan.items():
        assert 0.7 * spent[name] <= stage["ffe"] <= 1.3 * spent[name], name
        assert spent[name] <= stage["most"] + 0.5, name  # a search gets what the one before left of its part

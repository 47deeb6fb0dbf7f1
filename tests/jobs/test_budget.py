"""A budget bounds everything before the test split, in FFE and in minutes; a run that goes on decides the same."""

import json
import sqlite3
import time
from pathlib import Path

import pytest
from conftest import write_pairs

from headwise.checked import checksum
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import ffe
from headwise.evaluation.study import Study
from headwise.jobs.refine import refine
from headwise.jobs.steps.budget import Budget, Clock, divided, parts
from headwise.jobs.steps.settings import STRATEGIES, Settings
from headwise.search.genome import GeneticSettings
from headwise.towers import load

SMALL = {"controls": 2, "genetic": GeneticSettings(population=12)}
MASKS = {**SMALL, "rungs": ("mask",)}


@pytest.fixture(scope="module")
def pairs(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("pairs"), 40, splits=("search", "search", "pick", "test"))


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("other"), 24, start=100, splits=("search", "pick", "test"))


def alone(folder: Path, split: str) -> float:
    """FFE of a study's evaluations of one split if all of them shared their work: no run can have spent less."""
    with sqlite3.connect(folder / "study.sqlite") as db:
        rows = db.execute("SELECT mask FROM evaluations WHERE split = ?", (split,)).fetchall()
    tower = load("demo").tower
    return ffe(tower, [Mask.parse(tower.grid, text) for (text,) in rows])


@pytest.mark.parametrize(
    ("budget", "options", "swept"),
    [
        (8.0, {}, False),
        (13.0, {"strategies": ("bp",)}, False),
        (30.0, {"strategies": ("ga",), "rungs": ("mask",)}, True),
        (80.0, {"strategies": STRATEGIES, "operators": ("zero", "mean"), "rungs": ("mask",)}, True),
        (70.0, {"exact": True, "finalists": 3, "rungs": ("mask",)}, True),
        (90.0, {"strategies": ("greedy",)}, True),
    ],
)
def test_everything_before_the_test_split_is_within_the_budget(pairs, tmp_path, budget, options, swept):
    results = refine("demo", pairs, tmp_path / "o", settings=Settings(budget=budget, **SMALL, **options)).results
    spent = results["ffe"]
    assert spent["search"] + spent["pick"] == pytest.approx(spent["before_test"])
    assert spent["before_test"] <= budget + 1e-6
    assert spent["search"] >= alone(tmp_path / "o", "search") - 1e-6
    assert spent["pick"] >= alone(tmp_path / "o", "pick") - 1e-6
    assert len(results["finalists"]) > 1
    assert bool(results["sweep"]) == swept
    assert ("first_order" in spent) != swept


def test_kept_domains_are_in_the_budget(pairs, other, tmp_path):
    settings = Settings(budget=40.0, **SMALL)
    results = refine("demo", pairs, tmp_path / "o", settings=settings, keep=[other]).results
    spent = results["ffe"]
    assert spent["kept"] > 0
    assert spent["before_test"] == pytest.approx(spent["search"] + spent["pick"] + spent["kept"])
    assert spent["before_test"] <= 40 + 1e-6


def test_the_least_that_is_named_is_enough_and_less_is_refused(pairs, tmp_path):
    with pytest.raises(HeadwiseError, match="Give at least --budget 7") as refused:
        refine("demo", pairs, tmp_path / "o", settings=Settings(budget=6.9, **SMALL))
    assert "6.9 FFE" in str(refused.value)
    results = refine("demo", pairs, tmp_path / "p", settings=Settings(budget=7.0, **SMALL)).results
    assert results["ffe"]["before_test"] <= 7.0 + 1e-6
    assert results["finalists"][0]["size"] == 0
    assert len(results["finalists"]) == 2


def test_minutes_bound_a_run_and_the_same_command_decides_the_same(pairs, tmp_path):
    """What the clock said is in the study, so that a run that goes on stops where the first would have stopped."""
    settings = Settings(max_minutes=1000.0, budget=60.0, exact=True, **MASKS)
    free = refine("demo", pairs, tmp_path / "o", settings=settings).results["ffe"]
    assert free["before_test"] > 40
    with sqlite3.connect(tmp_path / "o" / "study.sqlite") as db:  # as if a second were left for each of 30 FFE
        ((text,),) = db.execute("SELECT value FROM study WHERE key = 'notes'")
        notes = json.loads(text)
        clock = {key: 1000.0 * 60 - 30 for key in notes if key.startswith("clock ")}
        text = json.dumps({**notes, **clock, "speed": [1.0, 0.0]}, sort_keys=True)
        db.execute("INSERT OR REPLACE INTO study VALUES (?, ?, ?)", ("notes", text, checksum(["notes", text])))
    assert len(clock) > 5
    bounded = refine("demo", pairs, tmp_path / "o", settings=settings).results["ffe"]
    assert 17 < bounded["before_test"] <= 30
    first = (tmp_path / "o" / "results.json").read_bytes()
    refine("demo", pairs, tmp_path / "o", settings=settings)
    assert (tmp_path / "o" / "results.json").read_bytes() == first
    with pytest.raises(HeadwiseError, match="minutes are too few"):
        refine("demo", pairs, tmp_path / "p", settings=Settings(max_minutes=1e-6, **SMALL))


def test_a_clock_goes_on_where_it_stopped(tmp_path):
    with Study(tmp_path / "s.sqlite", {"a": 1}) as study:
        first = Clock(study, time.monotonic() - 100.0)
        said = [first(), first()]
        again = Clock(study, time.monotonic())  # another process, just begun
        assert [again(), again()] == said
        assert again() == pytest.approx(said[-1], abs=5.0)
        assert said[0] == pytest.approx(100.0, abs=5.0)
        other = Clock(study, time.monotonic(), "other settings")  # another run in the same study has answers of its own
        assert other() == pytest.approx(0.0, abs=5.0)


def test_parts_of_a_budget():
    class Spender:
        spent = 0.0

    spender = Spender()
    budget = Budget(100.0, None, float("nan"), lambda: 0.0, reserved=10.0)
    budget.watch(spender)  # type: ignore[arg-type]
    part = budget.share(3)
    assert part() == pytest.approx(30.0)
    spender.spent = 12.0
    assert part() == pytest.approx(18.0)
    assert divided(part, lambda: spender.spent, 2)() == pytest.approx(9.0)
    assert budget.share(2)() == pytest.approx(39.0)
    spender.spent = 95.0
    assert part() == budget.share(1)() == 0.0
    assert budget.left() == pytest.approx(5.0)
    timed = Budget(100.0, 1.0, 3.0, lambda: 30.0)
    assert timed.left() == pytest.approx(10.0)  # 30 of 60 seconds are left, at 3 seconds each


def test_learned_rungs_get_what_their_epochs_take_as_long_as_masks_keep_an_even_part():
    settings = Settings()  # masks of one edit, two learned rungs of 22 FFE each

    def part(left, done, settings=settings):
        return left / parts(settings, done, left)

    assert [part(144.0, 0), part(44.0, 1), part(22.0, 2)] == [100.0, 22.0, 22.0]
    assert part(90.0, 0) == 46.0
    assert part(60.0, 0) == 20.0  # a third, as the others
    assert part(0.0, 0) == 0.0
    many = Settings(operators=("zero", "mean"))  # each alone, then both together
    assert part(344.0, 0, many) == part(244.0, 1, many) == part(144.0, 2, many) == 100.0
    assert part(100.0, 0, Settings(rungs=("mask",))) == 100.0


def test_a_dry_run_says_what_the_sweep_costs_and_writes_nothing(run, pairs, tmp_path):
    code, out, _ = run("refine", "demo", pairs, "-o", tmp_path / "o", "--dry-run", "--budget", "90", "--json")
    assert code == 0
    assert not (tmp_path / "o").exists()
    plan = json.loads(out)
    results = refine("demo", pairs, settings=Settings(budget=90.0, **SMALL)).results
    stages = {stage["stage"]: stage for stage in plan["stages"]}
    assert plan["budget"] == 90
    assert stages["sweep (uniform)"]["ffe"] == pytest.approx(results["ffe"]["sweep"])
    assert all(stage["ffe"] <= stage["most"] + 1e-9 and stage["minutes"] > 0 for stage in plan["stages"])
    assert sum(stage["ffe"] for stage in plan["stages"][:-1]) <= 90
    for name in ("greedy", "ga"):
        assert results["ffe"][name] <= 90 - results["ffe"]["sweep"]
    code, out, _ = run("refine", "demo", pairs, "-o", tmp_path / "o", "--dry-run")
    assert code == 0
    assert "all before the test split" in out


def test_the_plan_is_said_at_the_start_of_a_run(run, pairs, tmp_path):
    _, _, err = run("refine", "demo", pairs, "-o", tmp_path / "o", "--budget", "9", "--controls", "1")
    assert "Plan: 9.0 FFE before the test split" in err
    assert "first-order scores start the search" in " ".join(err.split())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--max-heads", "99"], "the model has 36 heads"),
        (["--max-heads", "0"], "at least 1"),
        (["--budget", "0"], "above 0"),
        (["--budget", "nan"], "above 0"),
        (["--budget", "inf"], "above 0"),
        (["--max-minutes", "-1"], "above 0"),
        (["--finalists", "0"], "between 1 and 1000"),
        (["--controls", "-3"], "between 1 and"),
        (["--width", "0"], "between 1 and"),
        (["--seed", "-1"], "a whole number from 0"),
        (["--population", "1"], "population is 1; it must be at least 2"),
        (["--flip", "2"], "between 0 and 1"),
        (["--strategy", "genetic"], "Write ga"),
        (["--strategy", "screened,greedy"], "Write ga"),
        (["--strategy", "taylor"], "--no-sweep"),
        (["--strategy", "bp", "--epochs", "0"], "epochs"),
        (["--strategy", "bp", "--operator", "keys"], "'keys' has none. Use one of: zero, mean, "),
        (["--strategy", "greedy,bp", "--operator", "zero,scale(1.5)"], "'scale(1.5)' has none"),
        (["--strategy", "bp", "--operator", "uniform(0.5)"], "'uniform(0.5)' has none"),
        (["--strategy", "greedy", "--exact"], "add ga"),
        (["--race"], "no option --race"),
    ],
)
def test_options_are_checked_before_data_are_read(run, tmp_path, options, said):
    code, _, err = run("refine", "demo", tmp_path / "there-are-no-such-pairs.csv", "-o", tmp_path / "o", *options)
    assert code == 1
    assert said in " ".join(err.split())
    assert not (tmp_path / "o").exists()

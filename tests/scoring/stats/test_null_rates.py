"""Under the null: how often is a mask chosen, how often claimed? A reduced run of benchmarks/null_rates.py."""

import importlib.util
from pathlib import Path

import pytest
from scipy.stats import binomtest

PATH = Path(__file__).parents[3] / "benchmarks" / "null_rates.py"


@pytest.fixture(scope="module")
def simulate():
    spec = importlib.util.spec_from_file_location("null_rates", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.simulate


@pytest.mark.parametrize(("finalists", "captions"), [(1, 1), (12, 1), (12, None)])
def test_a_mask_is_chosen_and_claimed_no_more_often_than_the_levels(simulate, finalists, captions):
    runs = 200
    found = simulate(runs, finalists, (50, 80), captions=captions, draws=400)
    assert binomtest(round(found["chosen"] * runs), runs, 0.05, alternative="greater").pvalue > 0.01
    assert binomtest(round(found["best claimed"] * runs), runs, 0.025, alternative="greater").pvalue > 0.01
    assert found["claimed"] <= found["chosen"]
    assert found["one-standard-error"] > 0.09  # what the choice was before: the simulation can tell


def test_a_real_gain_is_chosen_and_claimed(simulate):
    found = simulate(40, 12, (150, 300), gain=0.05, draws=400)
    assert found["chosen"] > 0.8
    assert found["claimed"] > 0.8

"""Paired statistics against brute force, exact enumeration and simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from headwise.errors import HeadwiseError
from headwise.scoring.stats import choose, max_t, mcnemar, paired_bootstrap, paired_error, sign_flip

few = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=9)


@given(d=few, alternative=st.sampled_from(["two-sided", "greater"]))
@settings(max_examples=60, deadline=None)
def test_sign_flip_equals_enumerating_every_flip(d, alternative):
    d = np.array(d)
    turn = np.abs if alternative == "two-sided" else (lambda x: x)
    totals = np.array([turn(np.dot(s, d)) for s in itertools.product([1, -1], repeat=len(d))])
    exact = (totals >= turn(d.sum()) - 1e-12).mean()
    assert sign_flip(d, flips=4000, alternative=alternative) == pytest.approx(exact, abs=0.05)


@given(d=st.lists(few.filter(lambda x: len(x) > 4), min_size=1, max_size=4))
@settings(max_examples=40, deadline=None)
def test_max_t_equals_enumerating_every_shared_flip(d):
    n = min(map(len, d))
    d = np.array([row[:n] for row in d])
    norm = np.sqrt((d**2).sum(1))
    scaled = d / np.where(norm > 0, norm, 1)[:, None]
    largest = np.array([np.abs(scaled @ s).max() for s in itertools.product([1, -1], repeat=n)])
    exact = [(largest >= abs(t.sum()) - 1e-9).mean() for t in scaled]
    assert max_t(d, flips=4000) == pytest.approx(exact, abs=0.05)


def test_max_t_of_one_head_is_its_own_sign_flip():
    d = np.random.default_rng(0).normal(0.2, 1, 50)
    for alternative in ("two-sided", "greater"):
        alone = sign_flip(d, alternative=alternative)
        assert max_t(d[None], alternative=alternative)[0] == pytest.approx(alone, abs=0.015)


def test_max_t_finds_the_real_head_and_no_other():
    d = np.random.default_rng(1).normal(0, 1, (40, 300))
    d[17] += 0.4
    p = max_t(d)
    assert p[17] < 0.01
    assert np.delete(p, 17).min() > 0.05
    assert max_t(np.vstack([d, np.zeros(300)]))[-1] == 1  # a head that changed nothing


def test_max_t_is_not_anti_conservative_under_the_null():
    # correlated heads, discrete differences: at level 5 % the family is falsely alarmed in about 5 % of sweeps
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(400):
        shared = rng.integers(-1, 2, (1, 60))
        d = (shared * rng.integers(0, 2, (12, 60)) + rng.integers(-1, 2, (12, 60))) / 6
        alarms += max_t(d, flips=499).min() <= 0.05
    assert reference.binomtest(alarms, 400, 0.05, alternative="greater").pvalue > 0.01
    assert alarms > 4  # nor uselessly cautious


def test_p_values_never_reach_0():
    assert sign_flip(np.ones(200), flips=999) == 1 / 1000
    assert max_t(np.ones((1, 200)), flips=999)[0] == 1 / 1000
    assert sign_flip(-np.ones(200), flips=999, alternative="greater") == 1


def test_bootstrap_equals_resampling_the_images():
    d = np.random.default_rng(3).integers(-3, 4, 200) / 6
    found = paired_bootstrap(d)
    rng = np.random.default_rng(4)
    means = d[rng.integers(0, 200, (20_000, 200))].mean(1)
    assert found.mean == pytest.approx(d.mean())
    assert (found.low, found.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.004)


def test_bootstrap_intervals_cover_the_truth():
    rng = np.random.default_rng(5)
    covered = 0
    for seed in range(300):
        found = paired_bootstrap(rng.choice([-1, 0, 0, 1, 1], 100), draws=500, seed=seed)
        covered += found.low <= 0.2 <= found.high
    assert 0.91 <= covered / 300 <= 0.985


def test_the_same_seed_gives_the_same_numbers_however_it_is_chunked(monkeypatch):
    d = np.random.default_rng(6).normal(size=(5, 40))
    first = paired_bootstrap(d[0], seed=7), sign_flip(d[0], seed=7), max_t(d, seed=7).tolist()
    monkeypatch.setattr("headwise.scoring.stats.CELLS", 1000)
    assert first == (paired_bootstrap(d[0], seed=7), sign_flip(d[0], seed=7), max_t(d, seed=7).tolist())
    assert first[0] != paired_bootstrap(d[0], seed=8)


def test_mcnemar_counts_and_is_exact():
    before, after = np.array([0, 0, 3, 5, 1, 0]), np.array([0, 2, 0, 0, 0, 9])
    found = mcnemar(before, after)
    assert (found.gained, found.lost) == (3, 2)
    assert found.p == pytest.approx(1.0)
    assert mcnemar(np.full(6, 1), np.zeros(6)).p == pytest.approx(2 / 2**6)
    assert mcnemar(before, before).p == 1
    assert mcnemar(np.array([4]), np.array([7]), k=5) == mcnemar(np.array([0]), np.array([1]))


def test_paired_error_is_the_standard_error_of_the_mean():
    d = np.random.default_rng(8).normal(size=77)
    assert paired_error(d) == pytest.approx(reference.sem(d))
    assert paired_error(np.ones(1)) == float("inf")


def test_choose_takes_the_fewest_heads_within_one_standard_error():
    rng = np.random.default_rng(9)
    identity = rng.normal(0.5, 0.1, 400)
    clear = identity + rng.normal(0.1, 0.05, 400)  # 1 head: a clear gain
    best = clear + rng.normal(0.001, 0.05, 400)  # 5 heads: a gain within one standard error of it
    best += 0.001 - (best - clear).mean()
    found = choose([identity, best, clear], [0, 5, 1])
    assert (found.index, found.best) == (2, 1)
    assert found.eligible == (False, True, True)
    assert found.delta[2] == pytest.approx((clear - identity).mean())
    assert found.error[2] == pytest.approx(paired_error(clear - identity))
    assert found.gap[1] == found.gap_error[1] == 0


def test_choose_answers_identity_when_nothing_beats_it():
    rng = np.random.default_rng(10)
    identity = rng.normal(0.5, 0.1, 100)
    noise = [identity + rng.normal(0, 0.05, 100) - 0.004 for _ in range(3)]
    assert choose([*noise, identity], [1, 2, 3, 0]).index == 3
    assert choose([identity, identity], [0, 4], [0.2, 0.1]).index == 0  # equal recall, lower loss: still no reason


def test_choose_breaks_ties_by_mean_then_loss():
    units = [np.zeros(50), np.ones(50), np.ones(50)]
    assert choose(units, [0, 2, 2], [1.0, 0.5, 0.4]).index == 2
    assert choose(units, [0, 2, 2]).index == 1
    assert choose([*units, units[0]], [0, 2, 2, 0]).index == 1  # identity, found again by a search


@pytest.mark.parametrize(
    "call",
    [
        lambda: paired_bootstrap(np.array([])),
        lambda: sign_flip(np.array([1.0, np.nan])),
        lambda: sign_flip(np.ones(3), alternative="less"),
        lambda: max_t(np.ones(3)),
        lambda: mcnemar(np.ones(3), np.ones(4)),
        lambda: choose([np.ones(3)], [1]),
        lambda: choose([np.ones(3), np.ones(4)], [0, 1]),
    ],
)
def test_bad_input_is_a_clear_error(call):
    with pytest.raises(HeadwiseError):
        call()

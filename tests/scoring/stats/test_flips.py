"""Sign-flip and max-T against the enumeration of every flip, scipy and simulation."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from headwise.errors import HeadwiseError
from headwise.scoring.stats import flips, max_t, sign_flip

few = st.lists(st.integers(-6, 6), min_size=1, max_size=9)
alternatives = st.sampled_from(["two-sided", "greater"])


def turned(values, alternative):
    return np.abs(values) if alternative == "two-sided" else values


def every_flip(images):
    return np.array(list(itertools.product([1, -1], repeat=images)))  # (2^N, N)


@given(d=few, alternative=alternatives)
@settings(max_examples=150, deadline=None)
def test_sign_flip_is_the_share_of_all_flips(d, alternative):
    totals = turned(every_flip(len(d)) @ np.array(d), alternative)
    assert sign_flip(np.array(d), alternative=alternative).p == (totals >= turned(sum(d), alternative)).mean()


def test_four_gained_and_none_lost_has_a_p_of_an_eighth():
    assert sign_flip(np.array([1, 1, 1, 1, 0, 0])).p == 0.125
    thirds = np.array([1, 1, 1, 1]) / 6  # sums of these floats differ in their last bits
    assert sign_flip(thirds).p == 0.125


@given(gained=st.integers(0, 40), lost=st.integers(0, 40))
@settings(max_examples=60, deadline=None)
def test_of_single_hits_it_is_the_binomial_test(gained, lost):
    d = np.array([1] * gained + [-1] * lost + [0, 0])
    expected = reference.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
    assert sign_flip(d).p == pytest.approx(expected, rel=1e-9)


@given(d=st.lists(few.filter(lambda x: len(x) > 3), min_size=1, max_size=4), alternative=alternatives)
@settings(max_examples=80, deadline=None)
def test_max_t_is_the_share_of_all_shared_flips(d, alternative):
    n = min(map(len, d))
    d = np.array([row[:n] for row in d])
    norm = np.sqrt((d**2).sum(1))
    scaled = d / np.where(norm > 0, norm, 1)[:, None]
    largest = turned(every_flip(n) @ scaled.T, alternative).max(1)
    exact = [(largest >= turned(t.sum(), alternative) - 1e-9).mean() if t.any() else 1.0 for t in scaled]
    assert [found.p for found in max_t(d, alternative=alternative)] == pytest.approx(exact)


@given(
    d=st.lists(few.filter(lambda x: len(x) > 3), min_size=1, max_size=4),
    share=st.sampled_from([0.5, 1 / 3, 0.1, 1 / 240]),
    alternative=alternatives,
)
@settings(max_examples=80, deadline=None)
def test_fractions_have_the_p_of_the_whole_numbers_that_they_are_shares_of(d, share, alternative):
    """Whatever common factor they have on the grid that they are put on."""
    n = min(map(len, d))
    d = np.array([row[:n] for row in d])
    whole = [found.p for found in max_t(d, alternative=alternative)]
    assert [found.p for found in max_t(d * share, alternative=alternative)] == pytest.approx(whole)
    assert sign_flip(d[0] * share, alternative=alternative).p == pytest.approx(
        sign_flip(d[0], alternative=alternative).p
    )


def test_a_few_changes_of_any_size_have_an_exact_p():
    found = sign_flip(np.array([0.1, 0.2, 0.35, 0.0]))  # too fine for a convolution
    assert (found.p, found.error) == (0.25, 0.0)


@given(d=few.filter(any), alternative=alternatives)
@settings(max_examples=30, deadline=None)
def test_drawn_flips_agree_with_the_exact_share_within_their_error(d, alternative):
    d = np.array(d)
    exact = sign_flip(d, alternative=alternative).p
    both = np.stack([d, d])  # two masks, so that max-T does not fall back on sign_flip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flips, "WORK", 0)
        patch.setattr(flips, "ENUMERATED", 0)
        drawn = sign_flip(d, alternative=alternative)
        shared = max_t(both, alternative=alternative, draws=20_000)[0]
    assert drawn.p == pytest.approx(exact, abs=5 * drawn.error + 2e-5)
    assert shared.p == pytest.approx(exact, abs=5 * shared.error + 1e-4)


def test_large_differences_are_drawn_and_their_error_is_said():
    d = np.random.default_rng(0).integers(-(10**9), 10**9, 300)
    found = sign_flip(d)
    assert 0 < found.error < 0.002
    assert sign_flip(d // 10**9 * 10**9).error == 0  # a common factor is taken out: again exact


def test_one_sign_an_image_is_shared_by_all_masks():
    d = np.random.default_rng(1).integers(-3, 4, (1, 200)) * (np.arange(200) < 60)
    copies = np.repeat(d, 12, axis=0)
    # copies of one mask need no correction; independent masks do
    assert max_t(copies)[0].p == pytest.approx(sign_flip(d[0]).p, abs=0.01)
    other = np.random.default_rng(2).integers(-3, 4, (11, 200))
    assert max_t(np.vstack([d, other]))[0].p >= sign_flip(d[0]).p


def test_max_t_finds_the_real_head_and_no_other():
    d = np.random.default_rng(1).normal(0, 1, (40, 300))
    d[17] += 0.4
    p = [found.p for found in max_t(np.vstack([d, np.zeros(300)]))]
    assert p[17] < 0.01
    assert min(p[:17] + p[18:]) > 0.05
    assert p[-1] == 1  # a head that changed nothing


def test_max_t_holds_its_level_under_the_null():
    # correlated heads, discrete differences: at level 5 % the family is falsely alarmed in about 5 % of sweeps
    rng = np.random.default_rng(2)
    alarms = 0
    for _ in range(400):
        shared = rng.integers(-1, 2, (1, 60))
        d = shared * rng.integers(0, 2, (12, 60)) + rng.integers(-1, 2, (12, 60))
        alarms += min(found.p for found in max_t(d, draws=499)) <= 0.05
    assert reference.binomtest(alarms, 400, 0.05, alternative="greater").pvalue > 0.01
    assert alarms > 4  # nor uselessly cautious


def test_the_same_seed_gives_the_same_numbers_however_it_is_chunked(monkeypatch):
    d = np.random.default_rng(6).normal(size=(5, 40))
    monkeypatch.setattr(flips, "WORK", 0)
    first = sign_flip(d[0], seed=7), max_t(d, seed=7, draws=5000)
    monkeypatch.setattr(flips, "CELLS", 1000)
    assert first == (sign_flip(d[0], seed=7), max_t(d, seed=7, draws=5000))


@pytest.mark.parametrize(
    "call",
    [
        lambda: sign_flip(np.array([])),
        lambda: sign_flip(np.array([1.0, np.nan])),
        lambda: sign_flip(np.ones(3), alternative="less"),
        lambda: max_t(np.ones(3)),
    ],
)
def test_bad_input_is_a_clear_error(call):
    with pytest.raises(HeadwiseError):
        call()

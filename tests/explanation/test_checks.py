"""Statistics on held-out images: known values, both sanity checks of NeuronEval, rates under the null."""

import numpy as np
import pytest
from scipy import stats

from headwise.explanation.checks import auprc, benjamini_hochberg, cause, concept, correlation, fits, held_out


@pytest.fixture
def rng():
    return np.random.default_rng(1)


def noisy_neuron(rng, images: int = 2000, share: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    """Scores and a concept that they follow well but not perfectly."""
    truth = rng.random(images) < share
    return truth * 2.0 + rng.normal(size=images), truth


def by_hand(scores: np.ndarray, truth: np.ndarray) -> float:
    """Average precision from every threshold."""
    total, before = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        chosen = scores >= threshold
        recall = truth[chosen].sum() / truth.sum()
        total += truth[chosen].mean() * (recall - before)
        before = recall
    return total


def test_auprc_is_average_precision(rng):
    scores, truth = noisy_neuron(rng, 300)
    assert auprc(scores, truth) == pytest.approx(by_hand(scores, truth))
    ties = np.round(scores)
    assert auprc(ties, truth) == pytest.approx(by_hand(ties, truth))
    assert auprc(np.zeros(300), truth) == pytest.approx(truth.mean())
    assert auprc(truth.astype(float), truth) == 1.0
    assert np.isnan(auprc(scores, np.zeros(300, bool)))


def test_correlation_is_pearsons(rng):
    a, b = rng.normal(size=(2, 50))
    assert correlation(a, b) == pytest.approx(stats.pearsonr(a, b)[0])
    assert correlation(a, np.ones(50)) == 0


@pytest.mark.parametrize("measure", [correlation, auprc])
def test_missing_labels_lower_the_measure(rng, measure):
    """NeuronEval's first check: half of the concept's labels are taken away."""
    drops = []
    for _ in range(20):
        scores, truth = noisy_neuron(rng)
        fewer = truth & (rng.random(len(truth)) < 0.5)
        drops.append(measure(scores, truth) - measure(scores, fewer))
    assert min(drops) > 0


@pytest.mark.parametrize("measure", [correlation, auprc])
def test_extra_labels_lower_the_measure(rng, measure):
    """NeuronEval's second check: as many labels again on images without the concept."""
    drops = []
    for _ in range(20):
        scores, truth = noisy_neuron(rng)
        more = truth | (rng.random(len(truth)) < 0.1)
        drops.append(measure(scores, truth) - measure(scores, more))
    assert min(drops) > 0


def test_a_true_association_is_found_and_its_p_corrected(rng):
    truths = rng.normal(size=(4, 200))
    predictions = rng.normal(size=(6, 200))
    predictions[2] += truths[1]
    found = held_out(predictions, truths)
    assert found.r[2, 1] == pytest.approx(np.corrcoef(predictions[2], truths[1])[0, 1])
    assert found.p[2, 1] < 0.01
    others = np.delete(found.p.ravel(), 2 * 4 + 1)
    assert (others > 0.05).all()


def test_paired_predictions_meet_their_own_truth_alone(rng):
    truths = rng.normal(size=(3, 150))
    own = np.stack([truths + rng.normal(size=truths.shape), rng.normal(size=truths.shape)])  # (2, 3, 150)
    found = held_out(own, truths, paired=True)
    expected = [[np.corrcoef(own[h, a], truths[a])[0, 1] for a in range(3)] for h in range(2)]
    assert np.allclose(found.r, expected)
    assert (found.p[0] < 0.01).all()
    assert (found.p[1] > 0.01).all()


def test_images_without_a_value_are_left_out(rng):
    truths = rng.normal(size=(2, 100))
    predictions = truths[:1] + 0.1 * rng.normal(size=(1, 100))
    truths[0, 3] = np.nan
    keep = np.arange(100) != 3
    assert held_out(predictions, truths).r[0, 1] == pytest.approx(
        np.corrcoef(predictions[0][keep], truths[1][keep])[0, 1]
    )


def test_without_images_nothing_is_found():
    found = held_out(np.ones((2, 5)), np.full((3, 5), np.nan))
    assert not found.r.any()
    assert (found.p == 1).all()


def test_under_the_null_the_smallest_p_is_small_as_often_as_it_says(rng):
    hits = sum(
        held_out(rng.normal(size=(3, 40)), rng.normal(size=(3, 40)), seed=seed).p.min() < 0.2 for seed in range(60)
    )
    assert 3 <= hits <= 24  # 12 expected


def test_a_fitting_text_outranks_others_of_like_frequency(rng):
    images, width, many = 400, 16, 300
    directions = rng.normal(size=(many, width))
    has = rng.random((many, images)) < 0.1
    effects = rng.normal(size=(images, width)) + 3 * has[5][:, None] * directions[5] / np.linalg.norm(directions[5])
    likes = fits(effects, directions, has)
    counts = has.sum(1)
    right = concept(effects @ directions[5], has[5], False, likes, counts, 5)
    wrong = concept(effects @ directions[6], has[6], False, likes, counts, 6)
    assert right is not None
    assert wrong is not None
    assert right.r > 0.4
    assert right.p == pytest.approx(1 / 300)
    assert right.auprc > 2 * right.chance
    assert wrong.p > 0.05
    down = concept(-effects @ directions[5], has[5], True, likes, counts, 5)
    assert down is not None
    assert down.r == pytest.approx(-right.r)
    assert down.auprc == pytest.approx(right.auprc)


def test_rare_texts_and_few_others_give_no_verdict(rng):
    has = np.zeros(50, bool)
    has[:3] = True
    assert concept(rng.normal(size=50), has, False, np.array([]), np.array([]), None) is None
    has[:10] = True
    found = concept(rng.normal(size=50), has, False, np.full(5, 0.1), np.full(5, 10), None)
    assert found is not None
    assert found.p is None


def test_a_cause_is_a_change_that_images_with_the_concept_have_more_of(rng):
    has = rng.random(500) < 0.2
    change = rng.choice([-1, 0, 0, 0, 1], size=500) / 6
    nothing = cause(change, has)
    moved = cause(change + has * 0.3, has)
    assert nothing is not None
    assert moved is not None
    assert nothing.p > 0.05
    assert moved.p < 0.01
    assert moved.difference == pytest.approx((change[has].mean() + 0.3) - change[~has].mean())
    assert cause(change, np.zeros(500, bool)) is None


def test_cause_p_is_that_of_permuting_images(rng):
    has = np.arange(60) < 20
    change = rng.choice([-2, -1, 0, 1, 2], size=60) / 6 + has * 0.1
    by_scipy = stats.permutation_test(
        (change[has], change[~has]), lambda a, b, axis: a.mean(axis) - b.mean(axis), n_resamples=5000, vectorized=True,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    found = cause(change, has)
    assert found is not None
    assert found.p == pytest.approx(by_scipy.pvalue, abs=0.04)


def test_q_is_benjamini_and_hochbergs(rng):
    p = {("a", i): float(value) for i, value in enumerate(rng.random(30) ** 3)}
    expected = stats.false_discovery_control(list(p.values()))
    assert np.allclose([benjamini_hochberg(p)[key] for key in p], expected)
    assert benjamini_hochberg({}) == {}

"""One estimand: change, interval, standard error, p and choice are about the printed metric."""

import numpy as np
import pytest
import torch
from scipy import stats as reference

from headwise.errors import HeadwiseError
from headwise.scoring.design import Design
from headwise.scoring.objectives import Classification, Combined, Part, Score
from headwise.scoring.recall import per_image_hits, recalls, retrieval_design
from headwise.scoring.stats import bootstrap, choose, compared, mcnemar, standard_error


def scored(ranks, owner):
    """A score as `Retrieval` makes it from ranks."""
    hits, images = per_image_hits(ranks, owner), len(ranks["text_retrieval"])
    metrics = recalls(ranks)
    return Score(metrics["mean_recall"], 0.0, metrics, hits, ranks, retrieval_design(owner, None, images))


def plain(hits, loss=0.0):
    hits = np.asarray(hits)
    return Score(float(hits.mean()), loss, {}, hits, {})


def drawn(rng, owner, images):
    return {"image_retrieval": rng.integers(0, 15, len(owner)), "text_retrieval": rng.integers(0, 15, images)}


def test_forty_one_captions_on_one_of_eight_images():
    # one image with 34 captions gains them all; the other seven lose what they have
    owner = np.array([0] * 34 + list(range(1, 8)))
    before = {"image_retrieval": np.array([20] * 34 + [0] * 7), "text_retrieval": np.zeros(8, int)}
    after = {"image_retrieval": np.array([0] * 34 + [20] * 7), "text_retrieval": np.zeros(8, int)}
    found = compared(scored(after, owner), scored(before, owner))
    assert found.delta == pytest.approx((34 - 7) / 41 / 2)  # caption-weighted, as the printed metric
    assert found.delta == pytest.approx(recalls(after)["mean_recall"] - recalls(before)["mean_recall"])
    assert found.interval.low <= found.delta <= found.interval.high
    assert found.claim == "too few changed images"


@pytest.mark.parametrize("seed", range(20))  # fixed: both sides are drawn, and one seed in 300 differs by more
def test_the_interval_is_the_bootstrap_of_the_printed_metric_over_images(seed):
    rng = np.random.default_rng(seed)
    images = 12
    owner = np.concatenate([np.arange(images), rng.integers(0, 3, 30)])
    before, after = drawn(rng, owner, images), drawn(rng, owner, images)
    found = compared(scored(after, owner), scored(before, owner))
    assert found.delta == pytest.approx(recalls(after)["mean_recall"] - recalls(before)["mean_recall"], abs=1e-12)
    values = []
    for _ in range(1500):  # draw images with their captions, print the metric of each draw
        chosen = rng.integers(0, images, images)
        captions = np.concatenate([np.flatnonzero(owner == i) for i in chosen])
        both = [
            recalls({"image_retrieval": r["image_retrieval"][captions], "text_retrieval": r["text_retrieval"][chosen]})
            for r in (after, before)
        ]
        values.append(both[0]["mean_recall"] - both[1]["mean_recall"])
    low, high = np.quantile(values, [0.025, 0.975])
    spread = np.std(values)
    assert (found.interval.low, found.interval.high) == pytest.approx((low, high), abs=0.25 * spread)
    assert found.error == pytest.approx(spread, rel=0.35)


def test_with_equal_captions_it_is_the_mean_over_images():
    rng = np.random.default_rng(3)
    owner = np.repeat(np.arange(60), 5)
    before, after = scored(drawn(rng, owner, 60), owner), scored(drawn(rng, owner, 60), owner)
    d = after.units - before.units
    found = compared(after, before)
    assert found.delta == pytest.approx(d.mean(), abs=1e-14)
    assert found.error == pytest.approx(reference.sem(d))
    means = d[rng.integers(0, 60, (20_000, 60))].mean(1)
    assert (found.interval.low, found.interval.high) == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.01)


def test_intervals_cover_the_truth_where_captions_per_image_vary():
    rng = np.random.default_rng(5)
    covered, truth = 0, 0.2
    for seed in range(300):
        counts = rng.integers(1, 8, 120)
        right = rng.binomial(counts, 0.4) - rng.binomial(counts, 0.2)  # the more captions, the more hits
        design = Design(np.stack([counts], 1), Design.mean(1).shares)
        found = bootstrap(right, design, draws=500, seed=seed)
        covered += found.low <= truth <= found.high
    assert 0.91 <= covered / 300 <= 0.985


def test_a_mixture_is_resampled_part_by_part():
    rng = np.random.default_rng(7)
    eye = np.eye(2)
    parts = [(40, 0.3), (400, 0.7)]
    objectives = [Classification(torch.tensor(eye), rng.integers(0, 2, n)) for n, _ in parts]
    starts = [0, 40]
    mix = Combined(
        tuple(Part(f"p{k}", o, s, w) for k, (o, s, (_, w)) in enumerate(zip(objectives, starts, parts, strict=True)))
    )
    ranks = [{f"p{k}/classification": rng.integers(0, 2, n) for k, (n, _) in enumerate(parts)} for _ in range(2)]
    after, before = (mix.score_from_ranks(r, 0.0) for r in ranks)
    found = compared(after, before)
    d = [(ranks[0][f"p{k}/classification"] == 0).astype(int) - (ranks[1][f"p{k}/classification"] == 0) for k in (0, 1)]
    assert found.delta == pytest.approx(0.3 * d[0].mean() + 0.7 * d[1].mean())
    error = np.hypot(0.3 * reference.sem(d[0]), 0.7 * reference.sem(d[1]))
    assert found.error == pytest.approx(error)
    assert found.interval.high - found.interval.low == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_several_masks_are_their_mean():
    rng = np.random.default_rng(8)
    base, *masks = (plain(rng.integers(0, 2, 50)) for _ in range(4))
    found = compared(masks, base)
    assert found.delta == pytest.approx(np.mean([m.fitness for m in masks]) - base.fitness)
    d = np.mean([m.hits for m in masks], axis=0) - base.hits
    assert found.error == pytest.approx(reference.sem(d))
    assert compared([masks[0]], base) == compared(masks[0], base)


def test_equal_hits_are_equal_fitness_to_the_last_bit():
    rng = np.random.default_rng(9)
    for _ in range(200):
        owner = np.concatenate([np.arange(30), rng.integers(0, 30, 47)])
        ranks = drawn(rng, owner, 30)
        moved = {name: rng.permutation(rank) for name, rank in ranks.items()}  # the same hits at other images
        assert scored(ranks, owner).fitness == scored(moved, owner).fitness


@pytest.mark.parametrize(("gained", "lost", "claim"), [
    (4, 0, "too few changed images"), (9, 0, "too few changed images"), (10, 0, "better"), (0, 12, "worse"),
    (8, 8, "not shown"), (12, 4, "not shown"), (40, 10, "better"),
])  # fmt: skip
def test_a_claim_needs_images_interval_and_p(gained, lost, claim):
    before = np.array([0] * gained + [1] * lost + [1] * 100)
    after = np.array([1] * gained + [0] * lost + [1] * 100)
    found = compared(plain(after), plain(before))
    assert (found.claim, found.changed) == (claim, gained + lost)
    assert found.p.p == pytest.approx(reference.binomtest(gained, gained + lost).pvalue)


def test_standard_error_of_one_image_is_unknown():
    assert standard_error(np.ones(1, int), Design.mean(1)) == float("inf")


def test_mcnemar_counts_and_is_exact():
    before, after = np.array([0, 0, 3, 5, 1, 0]), np.array([0, 2, 0, 0, 0, 9])
    found = mcnemar(before, after)
    assert (found.gained, found.lost) == (3, 2)
    assert found.p == pytest.approx(1.0)
    assert mcnemar(np.full(6, 1), np.zeros(6)).p == pytest.approx(2 / 2**6)
    assert mcnemar(before, before).p == 1
    assert mcnemar(np.array([4]), np.array([7]), k=5) == mcnemar(np.array([0]), np.array([1]))


# ---- the choice


def gains(rng, images, share):
    """Hits of the unchanged model, and of a mask that gains that share of the images."""
    base = rng.integers(0, 2, images)
    better = base.copy()
    wrong = np.flatnonzero(base == 0)
    better[wrong[: int(share * images)]] = 1
    return base, better


def test_choose_takes_the_fewest_heads_within_one_standard_error_of_a_best_that_beats_identity():
    base, clear = gains(np.random.default_rng(9), 400, 0.1)
    best = clear.copy()
    best[np.flatnonzero(clear == 0)[:2]] = 1
    best[np.flatnonzero(clear == 1)[-1]] = 0  # 5 heads: one image more than 1 head gains
    found = choose([plain(base), plain(best), plain(clear)], [0, 5, 1])
    assert (found.index, found.best) == (2, 1)
    assert found.eligible == (False, True, True)
    assert found.delta[2] == pytest.approx((clear - base).mean())
    assert found.p[0] is None
    assert found.p[1].p < 1e-3


def test_identity_stays_where_the_best_does_not_beat_it():
    base = np.array([0] * 8 + [1] * 92)
    four = np.array([1] * 4 + [0] * 4 + [1] * 92)  # 4 gained, none lost: one standard error from identity and more
    found = choose([plain(base), plain(four)], [0, 1])
    assert found.index == 0
    assert found.p[1].p == 0.0625  # one-sided
    assert found.delta[1] > found.error[1]
    assert choose([plain(base), plain(four)], [0, 1], level=0.1).index == 1
    assert choose([plain(base), plain(base, 0.1)], [0, 4]).index == 0  # equal hits, lower loss: still no reason


def test_what_is_chosen_is_shown_itself():
    base = np.array([0] * 60 + [1] * 240)
    steady = base.copy()
    steady[:10] = 1  # 10 gained, none lost
    wild = base.copy()
    wild[20:60], wild[60:88] = 1, 0  # 40 gained, 28 lost: more, and not sure
    slight = base.copy()
    slight[:4] = 1  # 4 gained, none lost: within one standard error of the steady one or not, it is not shown
    scores, sizes = [plain(each) for each in (base, wild, steady, slight)], [0, 9, 3, 1]
    for rule in ("safe", "best"):
        found = choose(scores, sizes, rule=rule)
        assert [p is not None and p.p <= 0.05 for p in found.p] == [False, False, True, False]
        assert (found.index, found.best) == (2, 2)
        assert found.gap[1] == pytest.approx(-2 / 300)
        assert found.eligible == (False, False, True, False)
    assert choose(scores[:2], sizes[:2]).index == 0


def test_more_finalists_ask_for_more():
    rng = np.random.default_rng(11)
    base = rng.integers(0, 2, 200)
    one = base.copy()
    one[np.flatnonzero(base == 0)[:6]] = 1
    noise = [np.where(rng.random(200) < 0.2, 1 - base, base) for _ in range(11)]
    assert choose([plain(base), plain(one)], [0, 1]).index == 1  # p = 1/64
    assert choose([plain(base), plain(one), *map(plain, noise)], [0, 1, *[2] * 11], level=0.016).index == 0


def test_choose_breaks_ties_by_loss_and_never_by_float_noise():
    base, better = np.zeros(50, int), np.ones(50, int)
    assert choose([plain(base), plain(better, 0.5), plain(better, 0.4)], [0, 2, 2]).index == 2
    assert choose([plain(base), plain(better, 0.5), plain(better, 0.5)], [0, 2, 2]).index == 1
    assert choose([plain(base), plain(better), plain(base)], [0, 2, 0]).index == 1  # identity, found again by a search
    owner = np.concatenate([np.arange(30), np.zeros(41, int)])
    rng = np.random.default_rng(12)
    far = {"image_retrieval": np.full(71, 20), "text_retrieval": np.full(30, 20)}
    for _ in range(100):
        ranks = drawn(rng, owner, 30)
        moved = {name: rng.permutation(rank) for name, rank in ranks.items()}
        one, two = (scored(r, owner) for r in (ranks, moved))
        two = Score(two.fitness, -1.0, two.metrics, two.hits, two.ranks, two.design)
        assert choose([scored(far, owner), one, two], [0, 1, 1]).best == 2


@pytest.mark.parametrize(
    "call",
    [
        lambda: choose([plain(np.ones(3, int))], [1]),
        lambda: choose([plain(np.ones(3, int)), plain(np.ones(4, int))], [0, 1]),
        lambda: compared(plain(np.ones(3, int)), plain(np.ones(4, int))),
        lambda: plain(np.array([0.5])).units,
        lambda: mcnemar(np.ones(3), np.ones(4)),
    ],
)
def test_bad_input_is_a_clear_error(call):
    with pytest.raises(HeadwiseError):
        call()

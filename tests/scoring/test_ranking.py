"""Ranks, recall and loss against brute force over the whole similarity matrix."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from headwise.errors import HeadwiseError
from headwise.scoring.ranking import retrieve, unit
from headwise.scoring.recall import clip_benchmark_json, per_image_hits, recalls, retrieval_design

problems = st.tuples(st.integers(2, 12), st.integers(0, 15), st.integers(1, 9), st.integers(0, 10_000))


def problem(size, coarse=False):
    """Embeddings and owners; `coarse` ones collide often, so that there are many exact ties."""
    images, extra, width, seed = size
    rng = np.random.default_rng(seed)
    owner = rng.permutation(np.concatenate([np.arange(images), rng.integers(0, images, extra)]))
    draw = (lambda n: rng.integers(-1, 2, (n, width))) if coarse else (lambda n: rng.normal(size=(n, width)))
    return torch.tensor(draw(images)).float(), torch.tensor(draw(len(owner))).float(), owner


def brute(images, texts, owner):
    """The definition, one query at a time."""
    s = (unit(images) @ unit(texts).T).numpy()
    t2i = [sum(s[j, t] >= s[i, t] for j in range(len(s)) if j != i) for t, i in enumerate(owner)]
    i2t = [
        min(
            sum(s[i, other] >= s[i, t] for other in range(len(owner)) if owner[other] != i)
            for t in range(len(owner))
            if owner[t] == i
        )
        for i in range(len(s))
    ]
    return t2i, i2t


@given(size=problems, coarse=st.booleans(), tile=st.integers(1, 200))
@settings(max_examples=150, deadline=None)
def test_ranks_equal_the_definition_whatever_the_tile(size, coarse, tile):
    images, texts, owner = problem(size, coarse)
    found = retrieve(images, texts, owner, tile=tile)
    t2i, i2t = brute(images, texts, owner)
    assert found.image_retrieval.tolist() == t2i
    assert found.text_retrieval.tolist() == i2t
    assert found.image_retrieval.dtype == found.text_retrieval.dtype == np.int32


@given(size=problems, tile=st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_loss_does_not_depend_on_the_tile(size, tile):
    images, texts, owner = problem(size)
    for loss in ("softmax", "sigmoid"):
        whole = retrieve(images, texts, owner, loss=loss, scale=50, bias=-5).loss
        assert retrieve(images, texts, owner, loss=loss, scale=50, bias=-5, tile=tile).loss == pytest.approx(
            whole, rel=1e-12, abs=1e-15
        )


def test_softmax_loss_is_clips_with_one_caption_per_image():
    g = torch.Generator().manual_seed(0)
    images, texts = torch.randn(40, 16, generator=g), torch.randn(40, 16, generator=g)
    logits = 100 * unit(images) @ unit(texts).T
    same = torch.arange(40)
    clip = (torch.nn.functional.cross_entropy(logits, same) + torch.nn.functional.cross_entropy(logits.T, same)) / 2
    assert retrieve(images, texts, np.arange(40)).loss == pytest.approx(float(clip), rel=1e-12)


def test_sigmoid_loss_is_siglips_with_one_caption_per_image():
    g = torch.Generator().manual_seed(0)
    images, texts = torch.randn(40, 16, generator=g), torch.randn(40, 16, generator=g)
    logits = 117 * unit(images) @ unit(texts).T - 12.9
    siglip = -torch.nn.functional.logsigmoid(logits * (2 * torch.eye(40) - 1)).sum() / 40
    found = retrieve(images, texts, np.arange(40), loss="sigmoid", scale=117, bias=-12.9)
    assert found.loss == pytest.approx(float(siglip), rel=1e-12)


def test_captions_of_one_image_are_not_each_others_negatives():
    # both captions of image 0 match it equally well; the second must not push the first down or cost loss
    images = torch.eye(3)
    texts = torch.eye(3)[[0, 0, 1, 2]]
    found = retrieve(images, texts, np.array([0, 0, 1, 2]), scale=300)
    assert found.text_retrieval.tolist() == [0, 0, 0]
    assert found.loss == pytest.approx(0, abs=1e-100)


def test_a_collapsed_embedding_scores_0():
    same = torch.randn(1, 24, generator=torch.Generator().manual_seed(1))
    texts = torch.randn(100, 24, generator=torch.Generator().manual_seed(2))
    for images, captions in ((same.expand(20, -1), texts), (same.expand(20, -1), same.expand(100, -1))):
        found = retrieve(images, captions, np.repeat(np.arange(20), 5))
        assert recalls(found.ranks)["image_retrieval_mean_recall"] == 0
    assert recalls(found.ranks)["mean_recall"] == 0  # images and texts alike
    zeros = retrieve(torch.zeros(20, 24), texts, np.repeat(np.arange(20), 5))
    assert recalls(zeros.ranks)["mean_recall"] == 0


def test_duplicate_images_tie_exactly_in_every_tile():
    # float32 products of different shapes round differently and would break some of these ties
    g = torch.Generator().manual_seed(3)
    half = torch.randn(150, 193, generator=g)
    images = torch.cat([half, half])
    texts = half + 0.1 * torch.randn(150, 193, generator=g)
    texts = torch.cat([texts, texts])
    for tile in (193, 999, 4_000, 10**9):
        found = retrieve(images, texts, np.arange(300), tile=tile)
        assert found.image_retrieval.tolist() == [1] * 300


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_float_types_and_lengths_are_taken(dtype):
    images, texts, owner = problem((9, 9, 32, 5))
    found = retrieve(images.to(dtype) * 3, texts.to(dtype) * 0.1, owner)
    assert found.ranks.keys() == {"image_retrieval", "text_retrieval"}
    assert found.gallery == {"images": 9, "captions": 18}
    assert np.array_equal(found.image_retrieval, retrieve(images.to(dtype), texts.to(dtype), owner).image_retrieval)


def test_recalls_and_units_of_known_ranks():
    ranks = {
        "image_retrieval": np.array([0, 4, 5, 9, 10, 0], np.int32),
        "text_retrieval": np.array([0, 1, 30], np.int32),
    }
    metrics = recalls(ranks)
    assert metrics["image_retrieval_recall@1"] == pytest.approx(2 / 6)
    assert metrics["image_retrieval_recall@5"] == pytest.approx(3 / 6)
    assert metrics["image_retrieval_recall@10"] == pytest.approx(5 / 6)
    assert metrics["text_retrieval_recall@1"] == pytest.approx(1 / 3)
    assert metrics["text_retrieval_recall@5"] == pytest.approx(2 / 3)
    both = (metrics["image_retrieval_mean_recall"] + metrics["text_retrieval_mean_recall"]) / 2
    assert metrics["mean_recall"] == pytest.approx(both)
    owner = np.array([0, 0, 1, 1, 2, 2])
    hits = per_image_hits(ranks, owner)
    assert hits.tolist() == [[3 + 2, 3], [1 + 1, 2], [0 + 3, 0]]  # of captions and of the image, over three k
    design = retrieval_design(owner, None, 3)
    assert design.value(hits) == metrics["mean_recall"] == pytest.approx(design.units(hits).mean())
    # image 0: captions hit 3/3 and 2/3, itself 3/3
    assert design.units(hits)[0] == pytest.approx(((1 + 2 / 3) / 2 + 1) / 2)


def test_with_unequal_captions_the_metric_is_still_over_captions_and_over_images():
    rng = np.random.default_rng(0)
    for _ in range(50):
        owner = np.concatenate([np.arange(5), rng.integers(0, 5, rng.integers(0, 40))])
        ranks = {"image_retrieval": rng.integers(0, 12, len(owner)), "text_retrieval": rng.integers(0, 12, 5)}
        by_hand = [(ranks[name] < k).mean() for name in ranks for k in (1, 5, 10)]
        found = retrieval_design(owner, None, 5).value(per_image_hits(ranks, owner))
        assert found == recalls(ranks)["mean_recall"]
        assert found == pytest.approx(np.mean(by_hand), abs=1e-14)


def test_json_is_clip_benchmarks_with_the_gallery():
    metrics = {"image_retrieval_recall@1": 0.5}
    out = clip_benchmark_json(metrics, dataset="mine", model="m", gallery={"images": 3, "captions": 9})
    assert list(json.loads(json.dumps(out))) == ["dataset", "model", "pretrained", "task", "metrics", "language"]
    assert out["metrics"] == {"image_retrieval_recall@1": 0.5, "gallery_images": 3, "gallery_captions": 9}


@pytest.mark.parametrize(
    ("images", "texts", "owner", "says"),
    [
        (torch.tensor([[1.0, 2], [3, float("nan")]]), torch.ones(2, 2), [0, 1], "image 1 .* not finite"),
        (torch.ones(2, 2), torch.tensor([[1.0, 2], [3, 4], [float("inf"), 0]]), [0, 1, 1], "text 2 .* not finite"),
        (torch.ones(2, 3), torch.ones(2, 2), [0, 1], "one E"),
        (torch.ones(2, 2), torch.ones(2, 2), [0, 2], "Text 1 belongs to image 2"),
        (torch.ones(3, 2), torch.ones(2, 2), [0, 2], "image 1; every image needs"),
        (torch.ones(2, 2), torch.ones(2, 2), [0], "2 texts need an owner"),
        (torch.ones(1, 2), torch.ones(2, 2), [0, 0], "at least 2 images"),
    ],
)
def test_bad_input_is_a_clear_error(images, texts, owner, says):
    with pytest.raises(HeadwiseError, match=says):
        retrieve(images, texts, np.array(owner))


def test_a_scale_that_no_model_has_is_an_error():
    with pytest.raises(HeadwiseError, match="logit scale is 20000"):
        retrieve(torch.eye(2), torch.eye(2), np.arange(2), scale=20_000)
    with pytest.raises(HeadwiseError, match="softmax, sigmoid"):
        retrieve(torch.eye(2), torch.eye(2), np.arange(2), loss="hinge")


# ---- texts of several images, as Chinese-CLIP evaluates them

AXES = torch.eye(4)
# four images on the axes; text 0 belongs to images 0 and 1, text 1 to image 1, text 2 to images 2 and 3, text 3 to 0
TEXTS = torch.tensor(
    [
        [0.1, 0.5, 0.3, 0.0],  # best: image 1, its own
        [0.6, 0.4, 0.1, 0.2],  # image 1 comes second, behind image 0
        [0.9, 0.8, 0.2, 0.3],  # images 3 and 2 come third and fourth: the better of them has two before it
        [0.1, 0.3, 0.2, 0.4],  # image 0 is last
    ]
)
IMAGE_OF = np.array([0, 0, 1, 1, 2, 3])
TEXT_OF = np.array([0, 3, 0, 1, 2, 2])


def test_a_text_of_several_images_is_one_query_and_right_with_any_of_them():
    found = retrieve(AXES, TEXTS, IMAGE_OF, of=TEXT_OF)
    assert found.image_retrieval.tolist() == [0, 1, 2, 3]
    # by columns of TEXTS with rows at length 1: image 0 has 0.17 0.79 0.72 0.18 and its texts 0 and 3, behind two;
    # image 1 has 0.85 0.53 0.64 0.55 and text 0 in front; image 2 has 0.51 0.13 0.16 0.37 and text 2, behind two;
    # image 3 has 0.00 0.26 0.24 0.73 and text 2, behind two
    assert found.text_retrieval.tolist() == [2, 0, 2, 2]
    assert found.gallery == {"images": 4, "captions": 4}
    metrics = recalls(found.ranks)
    assert metrics["image_retrieval_recall@1"] == metrics["text_retrieval_recall@1"] == 0.25
    assert metrics["image_retrieval_recall@5"] == 1


def test_the_official_any_of_definition_on_random_links():
    rng = np.random.default_rng(0)
    images, texts = torch.randn(30, 6), torch.randn(40, 6)
    links = sorted(
        {(t, int(i)) for t in range(40) for i in rng.integers(0, 30, rng.integers(1, 4))} | {(i, i) for i in range(30)}
    )
    of, owner = np.array(links).T
    shuffled = rng.permutation(len(of))
    found = retrieve(images, texts, owner[shuffled], of=of[shuffled], tile=50)
    s = (unit(images) @ unit(texts).T).numpy()
    for k in (1, 5, 10):
        right = [bool(set(np.argsort(-s[:, t])[:k]) & set(owner[of == t])) for t in range(40)]
        assert (found.image_retrieval < k).tolist() == right
        right = [bool(set(np.argsort(-s[i])[:k]) & set(of[owner == i])) for i in range(30)]
        # an image's own other texts are no negatives here, which "any of its texts among the first k" agrees with
        assert (found.text_retrieval < k).tolist() == right
    hits = per_image_hits(found.ranks, owner, of)
    # every text is one query, counted once, at the first of its images
    assert hits[:, 0].sum() == sum((found.image_retrieval < k).sum() for k in (1, 5, 10))
    mine = [t for t in range(40) if owner[of == t][0] == 3]
    assert hits[3, 0] == sum((found.image_retrieval[mine] < k).sum() for k in (1, 5, 10))
    assert retrieval_design(owner, of, 30).value(hits) == recalls(found.ranks)["mean_recall"]


@pytest.mark.parametrize("loss", ["softmax", "sigmoid"])
def test_links_of_one_image_each_change_no_bit(loss):
    images, texts = torch.randn(50, 8), torch.randn(150, 8)
    owner = np.random.default_rng(1).permutation(np.repeat(np.arange(50), 3))
    plain = retrieve(images, texts, owner, loss=loss, scale=20)
    linked = retrieve(images, texts, owner, of=np.arange(150), loss=loss, scale=20)
    assert plain.loss == linked.loss
    assert all(np.array_equal(plain.ranks[name], linked.ranks[name]) for name in plain.ranks)


@pytest.mark.parametrize(
    ("owner", "of", "says"),
    [([0, 1, 2, 3], [0, 1, 2, 4], "there are 4 texts"), ([0, 1, 2, 3], [0, 1, 2, 2], "belongs to no image")],
)
def test_links_that_do_not_fit(owner, of, says):
    with pytest.raises(HeadwiseError, match=says):
        retrieve(AXES, TEXTS, np.array(owner), of=np.array(of))


@given(size=problems, extra=st.integers(1, 9), coarse=st.booleans(), tile=st.integers(1, 200))
@settings(max_examples=100, deadline=None)
def test_distractors_are_wrong_answers_and_no_queries(size, extra, coarse, tile):
    """Ranks counted one by one over captions and distractors; the losses from the whole matrix of logits."""
    images, texts, owner = problem(size, coarse)
    drawn = np.random.default_rng(size[3] + 1)
    foreign = torch.tensor(
        drawn.integers(-1, 2, (extra, size[2])) if coarse else drawn.normal(size=(extra, size[2]))
    ).float()
    options = {"distractors": extra, "tile": tile, "scale": 20.0, "bias": -5.0}
    found = retrieve(images, torch.cat([texts, foreign]), owner, **options)
    t2i, i2t = brute(images, texts, owner)
    s = (unit(images) @ unit(torch.cat([texts, foreign])).T).numpy()
    best = [max(s[i, t] for t in range(len(owner)) if owner[t] == i) for i in range(len(images))]
    more = [sum(s[i, len(owner) + d] >= best[i] for d in range(extra)) for i in range(len(images))]
    assert found.image_retrieval.tolist() == t2i
    assert found.text_retrieval.tolist() == [a + b for a, b in zip(i2t, more, strict=True)]

    own = np.zeros(s.shape, bool)
    own[owner, np.arange(len(owner))] = True
    odds = np.exp(20 * s)
    terms = []
    for t, i in enumerate(owner):
        others = odds[i][~own[i]].sum(), odds[:, t][~own[:, t]].sum()
        terms.append(-0.5 * sum(np.log(odds[i, t] / (odds[i, t] + other)) for other in others))
    assert found.loss == pytest.approx(np.mean(terms), rel=1e-9)
    logits = 20 * s - 5
    total = np.log1p(np.exp(logits))[~own].sum() + np.log1p(np.exp(-logits))[own].sum()
    found = retrieve(images, torch.cat([texts, foreign]), owner, loss="sigmoid", **options)
    assert found.loss == pytest.approx(total / len(owner), rel=1e-9)

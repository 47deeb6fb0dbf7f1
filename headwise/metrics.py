"""Retrieval ranks, recall and the contrastive loss of a whole split, tile by tile.

Why a rank here never depends on the tile, the device or the number of threads: a score is the cosine of
embeddings rounded to multiples of 2⁻²⁶ (finer than float32's own error in a cosine). A product of two of them is
a multiple of 2⁻⁵², no partial sum exceeds 1, and float64 holds every multiple of 2⁻⁵² up to 2: the matrix
product is exact in whatever order it is summed. Equal embeddings then score exactly equally, wherever they are.

Ties are pessimistic: a positive ranks after every negative of equal score, so that a collapsed embedding
(all images alike) scores 0. Sort-based tools, clip_benchmark among them, break such ties by position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from headwise.errors import HeadwiseError

KS = (1, 5, 10)
DIRECTIONS = ("image_retrieval", "text_retrieval")  # text → image, image → text
LOSSES = ("softmax", "sigmoid")
GRID = 2.0**26
MOST_SCALE = 300.0  # exp(scale · (cosine − 1)) stays inside float64


@dataclass(frozen=True)
class Retrieved:
    """What one pass over all images × texts finds.

    Arguments:
        image_retrieval: int32 (T,), per text the 0-based rank of its image among all images.
        text_retrieval: int32 (N,), per image the best 0-based rank of a text of its own among all other
            images' texts (its other texts are not negatives).
        loss: the symmetric contrastive loss; nan where none was asked for.
    """

    image_retrieval: np.ndarray
    text_retrieval: np.ndarray
    loss: float

    @property
    def ranks(self) -> dict[str, np.ndarray]:
        return {"image_retrieval": self.image_retrieval, "text_retrieval": self.text_retrieval}

    @property
    def gallery(self) -> dict[str, int]:
        return {"images": len(self.text_retrieval), "captions": len(self.image_retrieval)}


@dataclass(frozen=True)
class Units:
    """Rows of length 1 on the grid; the rows of one tile at a time, or all of them, prepared.

    Arguments:
        rows: (n, E); raw embeddings of any float type, or prepared float64.
        what: for messages: `image` or `text`.
        prepared: rows are already of length 1, on the grid, on the device.
    """

    rows: torch.Tensor
    what: str
    prepared: bool = False

    def __len__(self) -> int:
        return len(self.rows)

    def block(self, start: int, stop: int, device: torch.device) -> torch.Tensor:
        """Rows start:stop, ready for exact products: float64 (n, E)."""
        x = self.rows[start:stop]
        return x if self.prepared else unit(x.to(device), self.what, numbers=range(start, stop))


def unit(embeddings: torch.Tensor, what: str = "image", *, numbers: Sequence[int] | None = None) -> torch.Tensor:
    """Embeddings at length 1, rounded to multiples of 2⁻²⁶; a zero row stays zero (its cosine is 0).

    Arguments:
        embeddings: (n, E), any float type.
        what, numbers: for messages: what a row is, and the number of each row (default: 0, 1, 2, …).

    Returns:
        float64 (n, E), on the same device.

    Raises:
        HeadwiseError: not a matrix, or a row with a value that is not finite.
    """
    if embeddings.ndim != 2:
        raise HeadwiseError(f"{what.capitalize()} embeddings must be (n, E), not {tuple(embeddings.shape)}.")
    x = embeddings.double()  # (n, E)
    norm = x.norm(dim=1, keepdim=True)  # (n, 1)
    if not bool(torch.isfinite(norm).all()):
        row = int((~torch.isfinite(norm[:, 0])).nonzero()[0])
        row = row if numbers is None else int(numbers[row])
        raise HeadwiseError(
            f"The embedding of {what} {row} (counted from 0) is not finite (NaN or infinite). "
            "Check the model's weights; if it runs in bfloat16, try --dtype float32."
        )
    x = x / norm.clamp_min(1e-12)
    return (x * GRID).round_() / GRID


def checked_owner(owner: np.ndarray, images: int, texts: int) -> np.ndarray:
    """The image of every text, as int64 (T,).

    Raises:
        HeadwiseError: a wrong length, an image number out of range, an image without a text, nothing to rank.
    """
    owner = np.asarray(owner, dtype=np.int64)
    if owner.shape != (texts,):
        raise HeadwiseError(f"{texts} texts need an owner each; the owners have shape {owner.shape}.")
    if images < 2:
        raise HeadwiseError(f"Retrieval needs at least 2 images to choose from; there are {images}.")
    if texts and (owner.min() < 0 or owner.max() >= images):
        row = int(np.flatnonzero((owner < 0) | (owner >= images))[0])
        raise HeadwiseError(f"Text {row} belongs to image {owner[row]}, but there are {images} images, from 0.")
    bare = np.flatnonzero(np.bincount(owner, minlength=images) == 0)
    if len(bare):
        raise HeadwiseError(
            f"{len(bare)} images have no caption, the first is image {bare[0]}; every image needs at least one."
        )
    return owner


def retrieve(
    images: torch.Tensor | Units,
    texts: torch.Tensor | Units,
    owner: np.ndarray,
    *,
    loss: str | None = "softmax",
    scale: float = 100.0,
    bias: float = 0.0,
    device: str | torch.device = "cpu",
    tile: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Retrieved:
    """Ranks in both directions and the loss, without ever holding the similarity matrix.

    The loss is the mean over texts t with image i = owner[t] of, for `softmax`, with L = scale · cosine,

        ½ · (−log softmax of L[i, t] among i's foreign texts and t) + ½ · (−log softmax of L[i, t] among all images)

    and for `sigmoid`, with L = scale · cosine + bias, softplus(−L[i, t]) plus the sum of softplus(L) over t's
    foreign images. Texts of one image are never each other's negatives. With one text per image these are the
    usual losses of CLIP and SigLIP with the whole split as one batch.

    Arguments:
        images: embeddings (N, E), any float type, normalised or not; may be memory-mapped.
        texts: embeddings (T, E), likewise.
        owner: (T,), the image of each text; every image has at least one text.
        loss: `softmax`, `sigmoid`, or None to skip it.
        scale, bias: similarity → logit.
        device: where to multiply. Apple's `mps` has no float64: the CPU is used instead.
        tile: similarities held at once; by default 2²⁰ on a CPU (8 MB) and 2²⁶ on a GPU (0.5 GB); a few
            arrays of that size live at a time. Results do not depend on it (the loss: to about 1e-15).
        progress: called with the fraction of the work that a step did.

    Raises:
        HeadwiseError: embeddings that are not finite or do not match, owners that do not fit.
    """
    images = images if isinstance(images, Units) else Units(images, "image")
    texts = texts if isinstance(texts, Units) else Units(texts, "text")
    if images.rows.ndim != 2 or texts.rows.ndim != 2 or images.rows.shape[1] != texts.rows.shape[1]:
        shapes = f"{tuple(images.rows.shape)} and {tuple(texts.rows.shape)}"
        raise HeadwiseError(f"Image and text embeddings must be (N, E) and (T, E) with one E; they are {shapes}.")
    owner = checked_owner(owner, len(images), len(texts))
    if loss is not None:
        check_loss(loss, scale, bias)
    where = torch.device("cpu" if str(device).startswith("mps") else device)
    tile = tile or (2**20 if where.type == "cpu" else 2**26)
    wide, high = _tile_shape(len(images), len(texts), tile)
    own = torch.as_tensor(owner, device=where)  # (T)

    positive = _positive_scores(images, texts, own, max(1, tile // images.rows.shape[1]))  # (T)
    best = torch.full((len(images),), -torch.inf, dtype=torch.float64, device=where)
    best = best.scatter_reduce(0, own, positive, "amax")  # (N)
    above_image = torch.zeros(len(texts), dtype=torch.int32, device=where)  # (T)
    above_text = torch.zeros(len(images), dtype=torch.int32, device=where)  # (N)
    image_sum = torch.zeros(len(images), dtype=torch.float64, device=where)  # (N): Σ over foreign texts
    text_sum = torch.zeros(len(texts), dtype=torch.float64, device=where)  # (T): Σ over foreign images

    for t0 in range(0, len(texts), wide):
        b = texts.block(t0, t0 + wide, where)  # (w, E)
        t1 = t0 + len(b)
        for i0 in range(0, len(images), high):
            a = images.block(i0, i0 + high, where)  # (h, E)
            i1 = i0 + len(a)
            s = a @ b.T  # (h, w)
            local = own[t0:t1] - i0  # (w)
            mine = ((local >= 0) & (local < len(a))).nonzero()[:, 0]
            s[local[mine], mine] = -torch.inf  # a text is no negative of its own image
            above_image[t0:t1] += (s >= positive[t0:t1]).sum(0, dtype=torch.int32)
            above_text[i0:i1] += (s >= best[i0:i1, None]).sum(1, dtype=torch.int32)
            if loss == "softmax":
                s.sub_(1).mul_(scale).exp_()
                image_sum[i0:i1] += s.sum(1)
                text_sum[t0:t1] += s.sum(0)
            elif loss == "sigmoid":
                text_sum[t0:t1] += s.mul_(scale).add_(bias).exp_().log1p_().sum(0)
            if progress:
                progress(len(a) * len(b) / (len(images) * len(texts)))

    value = math.nan
    if loss == "softmax":
        logit = scale * (positive - 1)  # (T)
        per_text = 0.5 * (torch.log1p(image_sum[own] / logit.exp()) + torch.log1p(text_sum / logit.exp()))
        value = float(per_text.mean())
    elif loss == "sigmoid":
        value = float((text_sum + torch.log1p((-scale * positive - bias).exp())).mean())
    return Retrieved(above_image.cpu().numpy(), above_text.cpu().numpy(), value)


def check_loss(loss: str, scale: float, bias: float) -> None:
    """
    Raises:
        HeadwiseError: an unknown loss, or a scale or bias that no model of the kind has.
    """
    if loss not in LOSSES:
        raise HeadwiseError(f"{loss!r} is not a loss. Use one of: {', '.join(LOSSES)}.")
    if not (0 < scale <= MOST_SCALE and abs(bias) <= MOST_SCALE):
        raise HeadwiseError(
            f"The model's logit scale is {scale:g} and its bias {bias:g}; a scale in (0, {MOST_SCALE:g}] and a bias "
            f"of at most {MOST_SCALE:g} are needed (the scale itself, not its logarithm; CLIP learns up to 100)."
        )


def _tile_shape(images: int, texts: int, tile: int) -> tuple[int, int]:
    """(texts, images) per tile: about square, so that normalising a block again costs little."""
    side = max(1, math.isqrt(tile))
    high = min(images, max(side, tile // max(1, texts)))
    return max(1, min(texts, tile // high)), high


def _positive_scores(images: Units, texts: Units, own: torch.Tensor, step: int) -> torch.Tensor:
    """Every text's exact score with its own image, (T,)."""
    scores = []
    for t0 in range(0, len(texts), step):
        b = texts.block(t0, t0 + step, own.device)  # (w, E)
        of = own[t0 : t0 + step]  # (w)
        if images.prepared:
            a = images.rows[of]  # (w, E)
        else:
            numbers, back = of.to(images.rows.device).unique(return_inverse=True)
            a = unit(images.rows[numbers].to(own.device), images.what, numbers=numbers.tolist())  # (≤ w, E)
            a = a[back.to(own.device)]  # (w, E)
        scores.append((a * b).sum(1))
    return torch.cat(scores)


# ---- ranks → recall


def recalls(ranks: Mapping[str, np.ndarray]) -> dict[str, float]:
    """clip_benchmark's names → fractions, the mean of each direction and `mean_recall`, the mean of both.

    Arguments:
        ranks: as `Retrieved.ranks`.
    """
    metrics = {f"{name}_recall@{k}": float((ranks[name] < k).mean()) for name in DIRECTIONS for k in KS}
    means = {f"{name}_mean_recall": sum(metrics[f"{name}_recall@{k}"] for k in KS) / len(KS) for name in DIRECTIONS}
    return metrics | means | {"mean_recall": sum(means.values()) / len(means)}


def per_image_hits(ranks: Mapping[str, np.ndarray], owner: np.ndarray) -> np.ndarray:
    """Each image's own contribution to mean recall: the mean over both directions and k in {1, 5, 10} of its hits.

    Text → image hits are averaged over the image's captions, because the image is the unit that is resampled.

    Returns:
        float32 (N,). Its mean is `mean_recall` where every image has equally many captions.
    """
    by_text = np.mean([ranks["image_retrieval"] < k for k in KS], axis=0)  # (T)
    by_image = np.mean([ranks["text_retrieval"] < k for k in KS], axis=0)  # (N)
    total = np.bincount(owner, weights=by_text, minlength=len(by_image))  # (N)
    count = np.bincount(owner, minlength=len(by_image))  # (N)
    return ((total / count + by_image) / 2).astype(np.float32)


def clip_benchmark_json(
    metrics: Mapping[str, float],
    *,
    dataset: str,
    model: str,
    pretrained: str = "",
    task: str = "zeroshot_retrieval",
    language: str = "en",
    gallery: Mapping[str, int] | None = None,
) -> dict[str, object]:
    """One result as clip_benchmark writes it; the gallery's size goes in as `gallery_images`, `gallery_captions`."""
    sizes = {f"gallery_{name}": size for name, size in (gallery or {}).items()}
    return {
        "dataset": dataset,
        "model": model,
        "pretrained": pretrained,
        "task": task,
        "metrics": {**metrics, **sizes},
        "language": language,
    }

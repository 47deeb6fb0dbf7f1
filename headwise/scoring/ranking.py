"""Retrieval ranks and the contrastive loss of a whole split, tile by tile.

    rank of a query = how many foreign items score at least as high as its best own one

In: embeddings of images (N, E) and texts (T, E), and which text belongs to which image. Out: int32 ranks, (T) and
(N), and the loss.

Why a rank here never depends on the tile, the device or the number of threads: a score is the cosine of embeddings
rounded to multiples of 2⁻²⁶ (finer than float32's own error in a cosine). A product of two of them is a multiple of
2⁻⁵², no partial sum exceeds 1, and float64 holds every multiple of 2⁻⁵² up to 2: the matrix product is exact in
whatever order it is summed. Equal embeddings then score exactly equally, wherever they are.

Ties are pessimistic: a positive ranks after every negative of equal score, so that a collapsed embedding (all images
alike) scores 0. Sort-based tools, clip_benchmark among them, break such ties by position.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from headwise.errors import HeadwiseError

LOSSES = ("softmax", "sigmoid")
GRID = 2.0**26
PANEL = 8
MOST_SCALE = 300.0  # exp(scale · (cosine − 1)) stays inside float64


@dataclass(frozen=True)
class Retrieved:
    """What one pass over all images × texts finds.

    Arguments:
        image_retrieval: int32 (T,), per text the 0-based rank of its image among all images (of several images of
            its own the best; they are not each other's negatives).
        text_retrieval: int32 (N,), per image the best 0-based rank of a text of its own among all other
            images' texts (its other texts are not negatives).
        loss: the symmetric contrastive loss; nan where none was asked for.
    """

    image_retrieval: np.ndarray
    text_retrieval: np.ndarray
    loss: float

    @property
    def ranks(self) -> dict[str, np.ndarray]:
        """0-based ranks by clip_benchmark's names of the two directions."""
        return {"image_retrieval": self.image_retrieval, "text_retrieval": self.text_retrieval}

    @property
    def gallery(self) -> dict[str, int]:
        """How many images and captions there were to choose from."""
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

    def take(self, numbers: torch.Tensor) -> torch.Tensor:
        """These rows (n,), on their device, ready for exact products: float64 (n, E)."""
        if self.prepared:
            return self.rows[numbers]
        found, back = numbers.to(self.rows.device).unique(return_inverse=True)
        x = unit(self.rows[found].to(numbers.device), self.what, numbers=found.tolist())  # (≤ n, E)
        return x[back.to(numbers.device)]


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


def checked_links(owner: np.ndarray, of: np.ndarray | None, images: int, texts: int) -> tuple[np.ndarray, np.ndarray]:
    """Which text belongs to which image: (image, text) of every link, int64 (L,) each, sorted by text.

    Raises:
        HeadwiseError: as `checked_owner`; text numbers out of range, a text without an image.
    """
    if of is None:
        return checked_owner(owner, images, texts), np.arange(texts)
    of = np.asarray(of, dtype=np.int64)
    owner = checked_owner(owner, images, len(of))
    if len(of) and (of.min() < 0 or of.max() >= texts):
        raise HeadwiseError(f"Texts {of.min()} to {of.max()} have images, but there are {texts} texts, from 0.")
    if (np.bincount(of, minlength=texts) == 0).any():
        raise HeadwiseError("A text belongs to no image; every text needs at least one.")
    order = np.argsort(of, kind="stable")
    return owner[order], of[order]


def retrieve(
    images: torch.Tensor | Units,
    texts: torch.Tensor | Units,
    owner: np.ndarray,
    *,
    of: np.ndarray | None = None,
    loss: str | None = "softmax",
    scale: float = 100.0,
    bias: float = 0.0,
    distractors: int = 0,
    device: str | torch.device = "cpu",
    tile: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> Retrieved:
    """Ranks in both directions and the loss, without ever holding the similarity matrix.

    A text may belong to several images: text → image is right at k if any of them is among the first k, and the
    text is one query. (Chinese-CLIP's evaluation; its image → text counts any of an image's texts.)

    The loss is the mean over links of a text t to its image i of, for `softmax`, with L = scale · cosine,

        ½ · (−log softmax of L[i, t] among i's foreign texts and t)
        + ½ · (−log softmax of L[i, t] among t's foreign images and i)

    and for `sigmoid`, with L = scale · cosine + bias, the mean over texts of the sums of softplus(−L) over its
    images and of softplus(L) over foreign ones, those of distractors added. Texts of one image are never each other's
    negatives. With one text
    per image these are the usual losses of CLIP and SigLIP with the whole split as one batch.

    Arguments:
        images: embeddings (N, E), any float type, normalised or not; may be memory-mapped.
        texts: embeddings (T, E), likewise.
        owner: (T,), the image of each text; every image has at least one text. Where texts have several images:
            (L,), the image of each link.
        of: (L,), the text of each link; by default link t is text t.
        loss: `softmax`, `sigmoid`, or None to skip it.
        scale, bias: similarity → logit.
        distractors: so many texts, the last, belong to no image: wrong answers to every image, and no queries.
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
    queries = len(texts) - distractors
    owner, of = checked_links(owner, of, len(images), queries)
    if loss is not None:
        check_loss(loss, scale, bias)
    where = torch.device("cpu" if str(device).startswith("mps") else device)
    tile = tile or (2**20 if where.type == "cpu" else 2**26)
    wide, high = _tile_shape(len(images), len(texts), tile)
    own, text = torch.as_tensor(owner, device=where), torch.as_tensor(of, device=where)  # (L) each

    step = max(1, tile // images.rows.shape[1])
    # written in place: small results kept between large temporaries would fragment the heap, 1 GB at 500,000 links
    positive = torch.empty(len(own), dtype=torch.float64, device=where)  # (L): every link's exact score
    for start in range(0, len(own), step):
        part = slice(start, start + step)
        positive[part] = (images.take(own[part]) * texts.take(text[part])).sum(1)
    lowest = torch.full((max(len(images), len(texts)),), -torch.inf, dtype=torch.float64, device=where)
    best_of_text = lowest[: len(texts)].scatter_reduce(0, text, positive, "amax")  # (T)
    best_of_image = lowest[: len(images)].scatter_reduce(0, own, positive, "amax")  # (N)
    above_image = torch.zeros(len(texts), dtype=torch.int32, device=where)  # (T)
    above_text = torch.zeros(len(images), dtype=torch.int32, device=where)  # (N)
    image_sum = torch.zeros(len(images), dtype=torch.float64, device=where)  # (N): Σ over foreign texts
    text_sum = torch.zeros(len(texts), dtype=torch.float64, device=where)  # (T): Σ over foreign images

    panel = wide * PANEL  # texts that meet a block of images while it is at hand: making it ready costs as a product
    for p0 in range(0, len(texts), panel):
        p = texts.block(p0, p0 + panel, where)  # (≤ panel, E)
        for i0 in range(0, len(images), high):
            a = images.block(i0, i0 + high, where)  # (h, E)
            i1 = i0 + len(a)
            for t0 in range(p0, p0 + len(p), wide):
                b = p[t0 - p0 : t0 - p0 + wide]  # (w, E)
                t1 = t0 + len(b)
                s = a @ b.T  # (h, w)
                links = slice(*np.searchsorted(of, (t0, t1)).tolist())
                row, column = own[links] - i0, text[links] - t0  # (l) each
                mine = ((row >= 0) & (row < len(a))).nonzero()[:, 0]
                s[row[mine], column[mine]] = -torch.inf  # a text is no negative of its own image
                above_image[t0:t1] += (s >= best_of_text[t0:t1]).sum(0, dtype=torch.int32)
                above_text[i0:i1] += (s >= best_of_image[i0:i1, None]).sum(1, dtype=torch.int32)
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
        odds = (scale * (positive - 1)).exp()  # (L)
        per_link = 0.5 * (torch.log1p(image_sum[own] / odds) + torch.log1p(text_sum[text] / odds))
        value = float(per_link.mean())
    elif loss == "sigmoid":
        of_own = torch.log1p((-scale * positive - bias).exp())  # (L)
        value = float(text_sum.index_add_(0, text, of_own).sum() / queries)
    return Retrieved(above_image[:queries].cpu().numpy(), above_text.cpu().numpy(), value)


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

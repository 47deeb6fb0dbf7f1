"""What a processor, a tokenizer and an encoder do, told by their answers to fixed questions.

A key made of names, settings or reprs says that two functions are equal where they are not: a lambda, a tokenizer
whose files are gone, a changed limit. So every key holds the pixels of a few odd pictures, the token ids of a few
odd texts, and the embeddings of a short and a long one. They are asked at each use, never kept: a user may change
a live processor.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache

import numpy as np
import torch
from PIL import Image

from headwise.errors import HeadwiseError
from headwise.towers.base import Model, Tower, evaluating

TEXTS = (
    "a photo of a dog",
    "A Photo of THREE red BUSES, parked!",
    "",
    " \t two  spaces\nand a line ",
    "?!…—\"'()[]{}<|endoftext|></s>[SEP]@#€½",
    "naïve café, Straße, señor, İstanbul",
    "ein Wort: Donaudampfschifffahrtsgesellschaftskapitänsmütze",
    "一只狗在草地上奔跑。",
    "犬が芝生の上を走っている",
    "собака бежит по траве",
    "كلب يركض على العشب",
    "कुत्ता घास पर दौड़ रहा है",
    "🐕🏽‍🦺🚌❤️",
    "1234567890 3.14 1e-5 $5,000",
    " ".join(f"word{i} and a very long caption" for i in range(90)),  # longer than any context
)
EMBEDDED = (TEXTS[0], TEXTS[1])
SHAPES = (  # mode, width, height
    ("RGB", 48, 48),
    ("RGB", 131, 37),
    ("RGB", 29, 160),
    ("RGB", 7, 5),
    ("RGB", 1, 1),
    ("RGB", 500, 375),
    ("L", 40, 33),
    ("LA", 33, 40),
    ("RGBA", 50, 41),
    ("P", 37, 37),
    ("1", 45, 31),
    ("CMYK", 36, 52),
    ("I;16", 35, 34),
)
ANSWER = 16  # numbers of an embedding
SKETCHED = 6  # the first of them, which every processor takes
TRIES = 64  # of a preprocessing that draws random numbers: does it matter?
TOLERANCE = 0.02  # between two sketches: libraries' versions resize a little differently
Preprocess = Callable[[Image.Image], torch.Tensor]
Tokenize = Callable[[Sequence[str]], Mapping[str, torch.Tensor]]
Encode = Callable[[Sequence[str]], torch.Tensor]


@cache
def images() -> tuple[Image.Image, ...]:
    """The pictures: ramps, edges and noise, the same bytes everywhere (no random generator, no resampling)."""
    found = []
    for number, (mode, width, height) in enumerate(SHAPES):
        noise = hashlib.shake_256(f"probe {number}".encode()).digest(width * height * 3)
        x = np.frombuffer(noise, np.uint8).reshape(height, width, 3).astype(np.int64) // 4  # 0…63
        x[..., 0] += (np.arange(width) * 160 // width)[None]
        x[..., 1] += (np.arange(height) * 160 // height)[:, None]
        x[height // 3 :, : width // 3, 2] += 150
        x = x.clip(0, 255).astype(np.uint8)  # (h, w, 3)
        if mode == "I;16":
            found.append(Image.fromarray(x[..., 0].astype(np.uint16) * 257))
        elif mode == "P":
            picture = Image.fromarray(x[..., 0])
            picture.putpalette(bytes((i * 7 + c * 50) % 256 for i in range(256) for c in range(3)))
            found.append(picture)
        elif mode == "1":
            found.append(Image.fromarray(x[..., 0] > 100))
        elif mode in ("LA", "RGBA", "CMYK"):
            bands = [*np.moveaxis(x, 2, 0), x[::-1, ::-1, 0]]
            count = len(Image.new(mode, (1, 1)).getbands())
            found.append(Image.merge(mode, [Image.fromarray(np.ascontiguousarray(band)) for band in bands[-count:]]))
        else:
            found.append(Image.fromarray(x if mode == "RGB" else x[..., 0]))
    return tuple(found)


def pixels_key(preprocess: Preprocess) -> str:
    """A hash of what a preprocessing makes of the probe pictures; one that fails on a mode counts as it fails.

    Raises:
        HeadwiseError: it fails on every picture, or gives another answer each time.
    """
    digest, failed = hashlib.sha256(), []
    with _alone():
        before = _drawn()
        for (mode, *_), image in zip(SHAPES, images(), strict=True):
            try:
                first = _array(preprocess(image.copy()))
                again = _array(preprocess(image.copy())) if mode == "RGB" else first
            except Exception as error:  # a user's function raises anything
                failed.append(error)
                digest.update(type(error).__name__.encode())
                continue
            if not _equal(first, again):
                raise _random("preprocessing", "another picture")
            digest.update(f"{first.dtype.str}{first.shape}".encode() + first.tobytes())
        if len(failed) == len(SHAPES):
            raise HeadwiseError(
                f"The model's preprocessing fails on every picture: {type(failed[0]).__name__}: {failed[0]}"
            ) from failed[0]
        if _drawn() != before and _varies(preprocess):
            raise _random("preprocessing", "another picture")
    return digest.hexdigest()[:32]


def pixels_sketch(preprocess: Preprocess) -> list[float]:
    """A preprocessing in a few numbers that nearly agree between machines and versions of libraries.

    Of each picture: mean, root mean square, mean absolute step to the right, and the means weighted by the
    position (a crop or a flip moves them); rounded. [] where it does not take RGB pictures.
    """
    found: list[float] = []
    with _alone():
        for image in images()[:SKETCHED]:
            try:
                x = _array(preprocess(image.copy())).astype(np.float64)  # (3, R, R)
            except Exception:
                return []
            down, right = (np.linspace(-1, 1, side) for side in x.shape[-2:])
            steps = np.abs(np.diff(x, axis=-1))
            numbers = [x.mean(), np.sqrt((x * x).mean()), steps.mean() if steps.size else 0.0]
            numbers += [(x * down[:, None]).mean(), (x * right).mean(), float(x.shape[-1])]
            found += [round(float(number), 3) for number in numbers]
    return found


def tokens_key(tokenize: Tokenize) -> str:
    """A hash of the ids, masks and shapes that a tokenizer makes of the probe texts, one by one and together."""
    digest = hashlib.sha256()
    for texts in (TEXTS, *([text] for text in TEXTS)):
        for name, tensor in sorted(tokenize(list(texts)).items()):
            digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:32]


def embeddings_key(encode: Encode, *, whole: bool = False) -> str:
    """A hash of the embeddings of texts, as this machine rounds them.

    Arguments:
        whole: of all the probe texts, and twice: nothing else is known of the encoder.

    Raises:
        HeadwiseError: another answer each time.
    """
    texts = [text for text in TEXTS if text.strip()] if whole else list(EMBEDDED)
    first = _array(encode(texts).float())  # (T, E)
    if whole and not _equal(first, _array(encode(texts).float())):
        raise _random("text encoder", "other embeddings")
    return hashlib.sha256(str(first.shape).encode() + first.tobytes()).hexdigest()[:32]


def texts_key(model: Model) -> dict[str, str]:
    """What a model does to texts: its tokens, and the embeddings of some; empty where it takes none."""
    if model.encode_texts is None:
        return {}
    if model.tokenize is None:  # a function of the user's own
        return {"text_encoder": embeddings_key(model.encode_texts, whole=True)}
    return {"tokenizer": tokens_key(model.tokenize), "text_encoder": embeddings_key(model.encode_texts)}


@torch.inference_mode()
def image_answer(tower: Tower) -> list[float]:
    """The first numbers of the normalised embedding of one random image, by the library's own forward: what equal
    weights do with another activation or another number of heads differs here."""
    size = tower.resolution
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    with evaluating(tower.parts):
        answer = tower.encode(image.to(tower.device, tower.dtype))[0].float().cpu()  # (E)
    answer = answer / answer.norm().clamp_min(1e-12)
    return [round(float(number), 4) for number in answer[:ANSWER]]


def described(model: Model) -> dict[str, object]:
    """What a mask's folder says of the functions around the weights; `near` and equality compare it elsewhere."""
    about: dict[str, object] = {"image": image_answer(model.tower), "pixels": pixels_sketch(model.preprocess)}
    return {**about, **({"tokens": tokens_key(model.tokenize)} if model.tokenize else {})}


def changed(about: Mapping[str, object], model: Model) -> list[str]:
    """Which of the functions in `described` are others in this model, in words."""
    found = []
    if "image" in about and not near(about["image"], image_answer(model.tower), _slack(model.tower)):
        found.append("its image tower computes something else (activation, number of heads, epsilon)")
    if "pixels" in about and not near(about["pixels"], pixels_sketch(model.preprocess)):
        found.append("its preprocessing gives other pixels (size, crop, mean, std, interpolation)")
    if "tokens" in about and model.tokenize and about["tokens"] != tokens_key(model.tokenize):
        found.append("its tokenizer gives other tokens (files, context length)")
    return found


def _slack(tower: Tower) -> float:
    return 0.005 if tower.dtype in (torch.float32, torch.float64) else 0.02


def near(one: object, other: object, slack: float = TOLERANCE) -> bool:
    """Whether two sketches are of the same function."""
    if not isinstance(one, list) or not isinstance(other, list) or len(one) != len(other):
        return False
    try:
        return bool(np.allclose(np.array(one, float), np.array(other, float), rtol=0.0, atol=slack))
    except (TypeError, ValueError):
        return False


def _varies(preprocess: Preprocess) -> bool:
    """Whether a preprocessing that draws random numbers ever answers otherwise."""
    image = images()[0]
    first = _array(preprocess(image.copy()))
    return any(not _equal(first, _array(preprocess(image.copy()))) for _ in range(TRIES))


def _drawn() -> tuple:
    """The state of every global generator."""
    return torch.get_rng_state().numpy().tobytes(), random.getstate(), str(np.random.get_state())


def _array(x: object) -> np.ndarray:
    found = x.detach().cpu().contiguous().numpy() if isinstance(x, torch.Tensor) else np.asarray(x)
    if found.dtype.kind not in "fiub":
        raise TypeError(f"{type(x).__name__} is no tensor of numbers")
    return found


def _equal(one: np.ndarray, other: np.ndarray) -> bool:
    return one.shape == other.shape and one.tobytes() == other.tobytes()


def _random(what: str, answer: str) -> HeadwiseError:
    return HeadwiseError(
        f"The model's {what} is random: it gives {answer} each time, so no score could be repeated. Give the one "
        "for evaluation, without random crops, flips or dropout."
    )


@contextmanager
def _alone() -> Iterator[None]:
    """One thread, as when pictures are decoded."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)

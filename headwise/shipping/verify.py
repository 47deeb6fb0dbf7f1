"""Whether a shipped folder is its base model with its edits, and nothing else.

In: a folder, the base model, a mask. Out: checks, each passed or not, with what was found: the list of files, the
structure, every weight, embeddings of probe images and texts. Nothing is trusted that the folder says of itself, but
for the list of its files, which tells accidents and not forgery.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

import torch
from PIL import Image
from pyarrow import parquet

from headwise.applied.check import masked_embeddings, probe_batch
from headwise.applied.fold import changes
from headwise.demo import pairs_file
from headwise.edits.artefact import MASK_FILE
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.shipping.edited import folds
from headwise.sums import SUMS_FILE, check_sums
from headwise.towers import library, load
from headwise.towers.base import Model, Tower, evaluating
from headwise.towers.probes import TEXTS, changed, described
from headwise.towers.stored import stored

LEAST = {"float32": 0.9999, "float16": 0.999, "bfloat16": 0.99, "int8": 0.9}  # cosine of every probe
DRAWINGS = 16  # of the packaged ones
SHORT = [text for text in TEXTS if text.strip()][:6]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Arguments:
        name: files, edits, structure, preprocessing, weights, images, texts.
        passed: it is as the edits say.
        said: what was found.
    """

    name: str
    passed: bool
    said: str


def verify(folder: Path, base: Model, mask: Mask) -> list[Check]:
    """Compare a shipped folder with its base model under its edits.

    Arguments:
        folder: of transformers, open_clip, timm or sentence-transformers, or an ONNX export.
        base: the live base model.
        mask: for its grid.

    Raises:
        HeadwiseError: the folder cannot be opened as a model.
    """
    found = [_files(folder)]
    if not found[0].passed:
        return found  # what is damaged is not opened
    timm = base.tower.family.startswith("timm") and not (folder / "onnx.json").is_file()
    shipped = load(f"timm:local-dir:{folder}" if timm else str(folder))
    found += [_edits(folder, mask)]
    if not shipped.tower.letters:  # an export: no heads, no weights by name
        found += [_sizes(shipped, base)]
    else:
        found += [_grid(shipped, base), *_weights(shipped, base, mask)]
    found += [_functions(shipped, base), _images(shipped, base, mask), *_texts(shipped, base)]
    return found


def _files(folder: Path) -> Check:
    if not (folder / SUMS_FILE).is_file():
        return Check("files", True, f"no {SUMS_FILE} to compare with; headwise export writes one")
    try:
        return Check("files", True, f"{len(check_sums(folder))} files are those that were written")
    except HeadwiseError as error:
        return Check("files", False, str(error))


def _edits(folder: Path, mask: Mask) -> Check:
    if not (folder / MASK_FILE).is_file():
        return Check("edits", True, f"no {MASK_FILE} in the folder")
    inside = Mask.from_pretrained(folder)
    same = inside.bare() == mask.bare()
    return Check("edits", same, f"the folder says {inside}" + ("" if same else f", the edits are {mask}"))


def _grid(shipped: Model, base: Model) -> Check:
    same = shipped.tower.grid == base.tower.grid and shipped.tower.resolution == base.tower.resolution
    return Check("structure", same, f"{shipped.tower!r}" + ("" if same else f"; the base is {base.tower!r}"))


def _sizes(shipped: Model, base: Model) -> Check:
    same = shipped.tower.resolution == base.tower.resolution
    return Check("structure", same, f"{shipped.tower.family}, {shipped.tower.resolution} pixels")


def _functions(shipped: Model, base: Model) -> Check:
    about = {key: value for key, value in described(base).items() if key != "image"}
    if base.tokenize and shipped.tokenize and set(base.tokenize(["a"])) != set(shipped.tokenize(["a"])):
        about.pop("tokens", None)  # another library pads and names them otherwise: embeddings of texts tell
    others = changed(about, shipped)
    return Check(
        "preprocessing", not others, "; ".join(others) or "pictures and texts are prepared as by the base model"
    )


def _weights(shipped: Model, base: Model, mask: Mask) -> Iterator[Check]:
    """Every tensor of the shipped model is the base model's, but for those that the edits change, and these are right."""
    if not folds(base.tower, mask):
        yield Check("weights", False, f"{mask} does not fold, so no folder of weights can hold it")
        return
    ours, theirs = base.module.state_dict(), shipped.module.state_dict()
    if set(ours) != set(theirs):
        yield Check("weights", True, "named otherwise (another library's): compared by what they compute")
        return
    layout = stored(shipped.source)
    wanted: dict[str, torch.Tensor] = {}
    for change in changes(base.tower, mask, base.module):
        if change.name in wanted:
            change.put_into(wanted[change.name])
        else:
            wanted[change.name] = change.whole
    wrong = []
    for name, value in ours.items():
        dtype = value.dtype if layout is None else layout.dtypes.get(name, value.dtype)
        expected = torch.as_tensor(wanted.get(name, value)).detach().cpu().to(dtype).to(theirs[name].dtype)
        if not _close(theirs[name].detach().cpu(), expected, exact=name not in wanted):
            wrong.append(name)
    edited = f"{len(wanted)} of {len(ours)} tensors are edited"
    said = (
        f"{edited}, all others are the base model's" if not wrong else f"{len(wrong)} differ, the first is {wrong[0]}"
    )
    yield Check("weights", not wrong, said)


def _close(found: torch.Tensor, wanted: torch.Tensor, exact: bool) -> bool:
    """Unchanged tensors bit for bit; folded ones but for the order of sums."""
    if exact or not wanted.is_floating_point():
        return found.shape == wanted.shape and torch.equal(found, wanted)
    step = 1e-6 * float(wanted.float().abs().max())
    return found.shape == wanted.shape and bool(torch.allclose(found, wanted, atol=step, rtol=1e-5))


def _images(shipped: Model, base: Model, mask: Mask) -> Check:
    batch = probe_batch(base.tower, None)  # (B, 3, R, R)
    wanted, found = masked_embeddings(base, mask, batch), _embed(shipped.tower, batch)  # (B, E) twice
    return _compare("images", found, wanted, _precision(shipped), f"{len(batch)} probe images")


def _texts(shipped: Model, base: Model) -> Iterator[Check]:
    if shipped.encode_texts is None or base.encode_texts is None:
        return
    texts = SHORT
    if shipped.tower.letters and library(shipped) != library(
        base
    ):  # one reads `<|endoftext|>` in a caption, one spells it
        texts = [text for text in SHORT if "<|" not in text]
    found, wanted = shipped.encode_texts(texts), base.encode_texts(texts)  # (T, E) twice
    yield _compare("texts", found, wanted, _precision(shipped), f"{len(texts)} probe texts")


def on_drawings(shipped: Model, base: Model, mask: Mask) -> Check:
    """Some of the packaged drawings and their captions, through each model's own preprocessing and tokenizer.

    Arguments:
        shipped: as another library, or a copy, computes it.
        base: the live base model.
        mask: for its grid.
    """
    rows = parquet.read_table(pairs_file()).slice(0, DRAWINGS).to_pylist()
    pictures = [Image.open(BytesIO(row["image"]["bytes"])).convert("RGB") for row in rows]
    batches = [
        torch.stack([one.preprocess(picture) for picture in pictures]) for one in (shipped, base)
    ]  # (B, 3, R, R)
    found, wanted = _embed(shipped.tower, batches[0]), masked_embeddings(base, mask, batches[1])  # (B, E) twice
    what = f"{len(rows)} drawings"
    if shipped.encode_texts is not None and base.encode_texts is not None:
        texts = [text for row in rows for text in row["captions"]]
        found, wanted = (
            torch.cat([found, shipped.encode_texts(texts).cpu()]),
            torch.cat([wanted, base.encode_texts(texts).cpu()]),
        )
        what += " and their captions"
    return _compare("drawings", found, wanted, _precision(shipped), what)


def _compare(name: str, found: torch.Tensor, wanted: torch.Tensor, precision: str, what: str) -> Check:
    if found.shape != wanted.shape:
        return Check(name, False, f"embeddings of {found.shape[-1]} numbers, not {wanted.shape[-1]}")
    cosine = float(torch.cosine_similarity(found.double().cpu(), wanted.double().cpu(), dim=-1).min())
    least = LEAST.get(precision, LEAST["float32"])
    return Check(name, cosine >= least, f"{what}: least cosine {cosine:.6f} ({precision}: at least {least})")


def _precision(shipped: Model) -> str:
    """What the folder's numbers are kept in."""
    if not shipped.tower.letters:
        return shipped.tower.family.rpartition(" ")[2]
    layout = stored(shipped.source)
    kinds = {str(dtype).removeprefix("torch.") for dtype in layout.dtypes.values()} if layout else set()
    return min(kinds & set(LEAST), key=lambda kind: LEAST[kind], default="float32")


@torch.no_grad()
def _embed(tower: Tower, batch: torch.Tensor) -> torch.Tensor:
    with evaluating(tower.parts):
        return torch.cat([tower.encode(part.to(tower.device, tower.dtype)).float().cpu() for part in batch.split(8)])

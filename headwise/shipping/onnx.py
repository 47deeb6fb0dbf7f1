"""A model as an ONNX folder: both towers, what prepares their inputs, and what is known of them; checked before it is kept.

    image.onnx   images (B, 3, R, R), preprocessed → embeddings (B, E), not normalised
    text.onnx    token ids, masks (T, L) → embeddings (T, E)

In: a model, a mask, real images and texts. Out: files in a folder, compared in onnxruntime with the live model. A mask
that folds is folded, or pruned; one that does not is part of the graph.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from headwise.applied.check import masked_embeddings
from headwise.edits.artefact import write_into
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.shipping.doors import write_small_files
from headwise.shipping.edited import folded_copy, folds, plain_copy
from headwise.shipping.graphs import ImageGraph
from headwise.shipping.onnx_graph import PRECISIONS, describe, lower, write_graph
from headwise.shipping.prune import pruned
from headwise.towers.base import Model
from headwise.towers.onnx import BASE, FORMAT, IMAGE_FILE, MANIFEST, TEXT_BATCH, TEXT_FILE
from headwise.towers.probes import described
from headwise.towers.sessions import run, session
from headwise.towers.text_graph import text_graph
from headwise.version import __version__

COSINE = {"float32": 0.9999, "float16": 0.999}  # least, of every image and text; int8 is held to its recall
AT_ONCE = 16
UNSAID = ("functions", "seen")  # of a mask's provenance: numbers for checks, images to recognise


@dataclass(frozen=True)
class OnnxReport:
    """What was written and how close it is.

    Arguments:
        precision: `float32`, `float16` or `int8`.
        mask: how the mask came in: `none`, `pruned`, `folded` or `graph`.
        heads: what pruning did, as a sentence; empty where nothing was pruned.
        images, texts: how many were compared.
        image_cosine, text_cosine: the least cosine to the live model's embeddings; None: no text tower.
        megabytes: of the image tower.
    """

    precision: str
    mask: str
    heads: str
    images: int
    texts: int
    image_cosine: float
    text_cosine: float | None
    megabytes: float

    @property
    def sentence(self) -> str:
        """For a terminal."""
        text = "" if self.text_cosine is None else f", {self.text_cosine:.6f} of {self.texts} texts"
        return (
            f"{self.precision}, {self.megabytes:.1f} MB of image tower. Least cosine to the live model: "
            f"{self.image_cosine:.6f} of {self.images} images{text}." + (f" {self.heads}" if self.heads else "")
        )


def check_precision(precision: str) -> None:
    """
    Raises:
        HeadwiseError: no such precision.
    """
    if precision not in PRECISIONS:
        raise HeadwiseError(f"{precision!r} is not a precision of an ONNX file. Use one of: {', '.join(PRECISIONS)}.")


def write_onnx(
    model: Model,
    mask: Mask,
    folder: Path,
    *,
    precision: str = "float32",
    prune: bool = True,
    images: torch.Tensor,
    texts: Sequence[str],
    calibration: torch.Tensor | None = None,
    calibration_texts: Sequence[str] = (),
) -> OnnxReport:
    """Export a model into a folder and compare it with the live one.

    Arguments:
        model: unchanged.
        mask: that fits it; the identity exports it as it is.
        folder: exists and is empty.
        precision: `float32`, `float16` or `int8`.
        prune: cut out the heads that a mask removes, where it folds.
        images, texts: to compare on: preprocessed real pictures (B, 3, R, R), captions.
        calibration, calibration_texts: int8: to measure activations on; others than those to compare on.

    Raises:
        HeadwiseError: onnx or onnxruntime is not installed; torch cannot export the model; what was exported differs
            from the live model by more than its precision explains.
    """
    check_precision(precision)
    tower, inside, how, heads = _tower(model, mask, prune)
    resolution = model.tower.resolution
    example = {"images": torch.randn(2, 3, resolution, resolution)}
    write_graph(ImageGraph(tower, inside), example, folder / IMAGE_FILE, keywords=False)
    batches = [] if calibration is None else [{"images": part} for part in calibration.split(AT_ONCE)]
    lower(folder / IMAGE_FILE, precision, batches)
    wanted = masked_embeddings(model, mask, images)  # (B, E)
    image_cosine = _cosine(folder / IMAGE_FILE, [{"images": part} for part in images.split(AT_ONCE)], wanted)
    text_cosine = _write_text(model, folder, precision, texts, calibration_texts)
    for what, cosine in (("image", image_cosine), ("text", text_cosine)):
        if cosine is not None and not cosine >= COSINE.get(precision, -1.0):
            raise HeadwiseError(
                f"The exported {what} tower differs from the live model: the least cosine of their embeddings is "
                f"{cosine:.6f}, and {COSINE[precision]} is asked of {precision}. It was not kept."
                + (" Export it as float32." if precision != "float32" else " Please report the model's configuration.")
            )
    size = sum(path.stat().st_size for path in folder.glob(f"{IMAGE_FILE}*")) / 1e6
    count = 0 if text_cosine is None else len(texts)
    report = OnnxReport(precision, how, heads, len(images), count, image_cosine, text_cosine, size)
    _write_facts(model, mask, folder, report, wanted.shape[-1])
    return report


def _tower(model: Model, mask: Mask, prune: bool) -> tuple[Any, Mask | None, str, str]:
    """The tower to export, the mask that stays in the graph, how it came in, and what pruning did."""
    if mask.is_identity:
        return plain_copy(model.tower), None, "none", ""
    if not folds(model.tower, mask):
        return plain_copy(model.tower), mask, "graph", ""
    if not prune:
        return folded_copy(model.tower, mask), None, "folded", ""
    cut = pruned(model.tower, mask)
    return cut.tower, None, "pruned" if cut.gone else "folded", cut.sentence if cut.gone or cut.folded else ""


def _write_text(
    model: Model, folder: Path, precision: str, texts: Sequence[str], calibration: Sequence[str]
) -> float | None:
    """Write the text tower; the least cosine to the live one. None where there is none to export."""
    graph = text_graph(model)
    if graph is None or model.tokenize is None or model.encode_texts is None or not texts:
        return None

    def batches(of: Sequence[str]) -> list[Mapping[str, torch.Tensor]]:
        assert model.tokenize is not None
        return [model.tokenize(of[start : start + TEXT_BATCH]) for start in range(0, len(of), TEXT_BATCH)]

    example = model.tokenize([texts[0], f"{texts[0]} and {texts[-1]}"])
    write_graph(graph, example, folder / TEXT_FILE, keywords=True)
    lower(folder / TEXT_FILE, precision, batches(calibration))
    return _cosine(folder / TEXT_FILE, batches(texts), model.encode_texts(list(texts)).cpu())


def _cosine(path: Path, batches: Sequence[Mapping[str, torch.Tensor]], wanted: torch.Tensor) -> float:
    opened = session(path)
    found = torch.cat([run(opened, batch) for batch in batches])  # (N, E)
    cosines = torch.cosine_similarity(found.double(), wanted.double(), dim=-1)  # (N)
    return float(cosines.min())


def _write_facts(model: Model, mask: Mask, folder: Path, report: OnnxReport, width: int) -> None:
    """What stands beside the graphs: the library's own small files, the mask, the manifest."""
    write_small_files(model, folder / BASE)
    has_text = report.text_cosine is not None
    write_into(mask, folder)
    origin = {key: value for key, value in mask.provenance.items() if key not in UNSAID}
    about = described(model)
    content = {
        "format": FORMAT,
        "headwise_version": __version__,
        "base_model": model.name,
        "weights_hash": model.tower.weights_hash,
        "edits": str(mask),
        "provenance": origin,
        "precision": report.precision,
        "image": {"resolution": model.tower.resolution, "width": width},
        "text": {"context": _context(model)} if has_text else None,
        "logit_scale": model.logit_scale,
        "logit_bias": model.logit_bias,
        "loss": model.loss,
        "preprocessing": {**model.preprocess_spec, **_scaling(model)},
        "functions": {key: about[key] for key in ("pixels", *(["tokens"] if has_text else [])) if key in about},
        "check": asdict(report),
    }
    said = {key: content[key] for key in ("base_model", "edits", "preprocessing", "precision", "check", "provenance")}
    facts = {key: value if isinstance(value, str) else json.dumps(value, default=str) for key, value in said.items()}
    for file in (IMAGE_FILE, *([TEXT_FILE] if has_text else [])):
        describe(folder / file, facts)
    (folder / MANIFEST).write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")


def _scaling(model: Model) -> dict[str, list[float]]:
    """Mean and deviation of pixels in 0..1, per channel, as the preprocessing applies them: seen on black and white."""
    from PIL import Image

    size = (model.tower.resolution, model.tower.resolution)
    black, white = (model.preprocess(Image.new("RGB", size, (v, v, v))).mean((1, 2)) for v in (0, 255))  # (3) each
    std = 1 / (white - black)
    return {"mean": [round(v, 6) for v in (-black * std).tolist()], "std": [round(v, 6) for v in std.tolist()]}


def _context(model: Model) -> int:
    """Where captions are cut; as many tokens as a long text gets where that is not said."""
    if model.reading is not None:
        return model.reading.context
    assert model.tokenize is not None
    return next(iter(model.tokenize(["word " * 1000]).values())).shape[1]

"""An ONNX folder as OpenVINO's own files, which Intel's processors run fastest.

    image.xml, image.bin   images (B, 3, R, R), preprocessed → embeddings (B, E), not normalised
    text.xml, text.bin     token ids, masks (T, L) → embeddings (T, E)

In: a folder that `write_onnx` made. Out: the same folder with OpenVINO's files in place of the ONNX files, compared with them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import torch

from headwise.errors import HeadwiseError, cause
from headwise.shipping.onnx import AT_ONCE, COSINE, OnnxReport
from headwise.towers.base import Model
from headwise.towers.onnx import MANIFEST, TEXT_BATCH
from headwise.towers.sessions import openvino, run, session

PRECISIONS = tuple(COSINE)


def check_openvino(precision: str) -> None:
    """
    Raises:
        HeadwiseError: OpenVINO is not installed, or this precision is not written for it.
    """
    if precision not in PRECISIONS:
        raise HeadwiseError(
            f"OpenVINO's files are written in {' or '.join(PRECISIONS)}, not in {precision}. Use --to onnx for int8."
        )
    openvino()


def to_openvino(
    model: Model, folder: Path, report: OnnxReport, *, precision: str, images: torch.Tensor, texts: Sequence[str]
) -> OnnxReport:
    """Turn a float32 ONNX folder into OpenVINO's files.

    Arguments:
        model: whose tokenizer reads the texts.
        folder: what `write_onnx` wrote; its ONNX files go.
        report: of that.
        precision: that weights are stored in, `float32` or `float16`; computed is in float32.
        images, texts: to compare on: preprocessed pictures (B, 3, R, R), captions.

    Returns:
        The report, with what was found now.

    Raises:
        HeadwiseError: OpenVINO cannot read a file, or its network differs from the ONNX file, which was compared with the live
            model.
    """
    assert model.tokenize is not None or report.text_cosine is None
    found = {"image": _turned(folder / "image.onnx", precision, [{"images": part} for part in images.split(AT_ONCE)])}
    if report.text_cosine is not None and model.tokenize is not None:
        parts = [texts[start : start + TEXT_BATCH] for start in range(0, len(texts), TEXT_BATCH)]
        found["text"] = _turned(folder / "text.onnx", precision, [model.tokenize(part) for part in parts])
    report = replace(
        report,
        precision=precision,
        image_cosine=min(report.image_cosine, found["image"]),
        text_cosine=None if report.text_cosine is None else min(report.text_cosine, found["text"]),
        megabytes=(folder / "image.bin").stat().st_size / 1e6,
    )
    manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest |= {"runtime": "openvino", "precision": precision, "check": asdict(report)}
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    return report


def _turned(path: Path, precision: str, batches: Sequence[Mapping[str, torch.Tensor]]) -> float:
    """Write OpenVINO's files of an ONNX file, which goes; the least cosine between what both make of these inputs."""
    library, place = openvino(), path.with_suffix(".xml")
    before = session(path)
    wanted = torch.cat([run(before, batch) for batch in batches])  # (N, E)
    try:
        network = library.Core().read_model(str(path))
        library.save_model(network, str(place), compress_to_fp16=precision == "float16")
    except Exception as error:  # OpenVINO raises kinds of its own
        raise HeadwiseError(f"OpenVINO cannot read {path.name}: {cause(error)}. Use --to onnx.") from error
    after = session(place)
    found = torch.cat([run(after, batch) for batch in batches])  # (N, E)
    cosine = float(torch.cosine_similarity(found.double(), wanted.double(), dim=-1).min())
    if not cosine >= COSINE[precision]:
        raise HeadwiseError(
            f"OpenVINO's {place.name} differs from the ONNX file: the least cosine of their embeddings is {cosine:.6f}, and "
            f"{COSINE[precision]} is asked of {precision}. It was not kept. Use --to onnx."
        )
    for other in path.parent.glob(f"{path.name}*"):  # large weights lie beside the graph
        other.unlink()
    return cosine

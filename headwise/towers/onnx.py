"""An ONNX or OpenVINO folder that headwise wrote, run by its own library: a model to evaluate, without heads to edit.

    onnx.json, image.onnx, text.onnx, base/ (the library's own processor and tokenizer files, no weights)

In: a folder. Out: a `Model` whose tower is one opaque row: images go in, embeddings come out. Pictures and texts are
read by the library that the model came from, and compared with what was written down at the export.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headwise.edits.heads import Grid
from headwise.errors import HeadwiseError, cause
from headwise.sums import check_sums
from headwise.towers.base import Model, Tower
from headwise.towers.blocks import Block
from headwise.towers.configs import read_config
from headwise.towers.onnx_base import Tokens, outside
from headwise.towers.overrides import Overrides
from headwise.towers.probes import near, pixels_sketch, tokens_key
from headwise.towers.sessions import Session, run, session

MANIFEST, IMAGE_FILE, TEXT_FILE, BASE = "onnx.json", "image.onnx", "text.onnx", "base"
RUNTIMES = {"onnxruntime": ("ONNX", ".onnx"), "openvino": ("OpenVINO", ".xml")}  # what runs it → its name, its files
FORMAT = 1
TEXT_BATCH = 64


@dataclass(frozen=True)
class Manifest:
    """What `onnx.json` says.

    Arguments:
        resolution: R in pixels.
        width: E.
        functions: sketches of preprocessing and tokenizer (`towers/probes.py`).
        context: captions are cut at so many tokens; None: no text tower.
        content: all of it.
        runtime: what runs it, a key of `RUNTIMES`.
    """

    resolution: int
    width: int
    functions: Mapping[str, object]
    context: int | None
    content: Mapping[str, Any]
    runtime: str = "onnxruntime"


class OnnxRow(Block):
    """The whole network as one row: its input is the embedding already."""

    def __init__(self, module: nn.Module, width: int):
        super().__init__(module, 1, width, width, (), ())

    def project(self, x: torch.Tensor, queries: slice | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """See `Block.project`."""
        z = x[:, None]  # (B, 1, 1, E)
        return z, z, z

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """See `Block.attention`."""
        return q

    def finish(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """See `Block.finish`."""
        return z[:, 0]  # (B, 1, E)

    def cost(self, tokens: int, queries: int) -> tuple[float, float]:
        """All of it is the row's."""
        return 1.0, 0.0


def load(reference: str, *, device: str = "cpu", overrides: Overrides | None = None) -> Model:
    """A folder that `headwise export --to onnx` or `--to openvino` wrote.

    Arguments:
        reference: the folder.
        device: where the embeddings go; the network runs on the CPU.
        overrides: none; they are in the files.

    Raises:
        HeadwiseError: what runs it is not installed; files missing or damaged; the library here prepares pictures or
            texts otherwise than the one at the export.
    """
    folder, name = Path(reference), f"onnx:{reference}"
    if overrides is not None and overrides.given:
        overrides.refuse(*overrides.given, reason=f"{name} was exported as it is; give them to headwise export.")
    manifest = read_manifest(folder)
    sums = check_sums(folder)
    digest = hashlib.sha256("".join(f"{file}{one}" for file, one in sorted(sums.items())).encode()).digest()
    base = folder / BASE
    preprocess, tokens = outside(base, manifest.resolution, manifest.context, name)
    _check_functions(manifest, preprocess, tokens, name)
    files = [(folder / file).with_suffix(RUNTIMES[manifest.runtime][1]) for file in (IMAGE_FILE, TEXT_FILE)]
    image = session(files[0])
    text = session(files[1]) if manifest.context is not None and tokens is not None else None
    content, tower = manifest.content, _tower(image, manifest, digest, device)
    return Model(
        name=name,
        tower=tower,
        module=tower.parts,
        preprocess=preprocess,
        preprocess_spec={"class": "onnx", "steps": str(content.get("preprocessing", ""))},
        save=partial(_refuse_saving, name),
        encode_texts=None if text is None or tokens is None else partial(_encode_texts, text, tokens.encode),
        tokenize=None if tokens is None else tokens.encode,
        text_hash=sums.get(files[1].name, ""),
        logit_scale=float(content.get("logit_scale", 100.0)),
        logit_bias=float(content.get("logit_bias", 0.0)),
        loss=str(content.get("loss", "softmax")),
        reading=None if tokens is None else tokens.reading,
    )


def read_manifest(folder: Path) -> Manifest:
    """What the folder says of itself.

    Raises:
        HeadwiseError: no manifest, or a broken one.
    """
    path = folder / MANIFEST
    content = read_config(path)
    try:
        if content["format"] != FORMAT:
            raise HeadwiseError(f"{path} has the format {content['format']}; this headwise reads {FORMAT}. Upgrade it.")
        image, text = content["image"], content.get("text")
        return Manifest(
            int(image["resolution"]),
            int(image["width"]),
            dict(content["functions"]),
            None if text is None else int(text["context"]),
            content,
            _runtime(content, path),
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise HeadwiseError(f"{path} is not what headwise writes: {cause(error)}. Export the model again.") from error


def _runtime(content: Mapping[str, Any], path: Path) -> str:
    if (found := content.get("runtime", "onnxruntime")) not in RUNTIMES:
        raise HeadwiseError(f"{path}: nothing here runs {found!r}. Known: {', '.join(RUNTIMES)}.")
    return str(found)


def _tower(opened: Session, manifest: Manifest, digest: bytes, device: str) -> Tower:
    """The opaque tower. Its one parameter is the files' digest: other files are other weights."""
    holder = nn.Module()
    holder.digest = nn.Parameter(torch.tensor(list(digest), dtype=torch.float32, device=device), requires_grad=False)

    def build(parts: nn.ModuleList) -> Tower:
        parameter = next(parts.parameters())

        def stem(images: torch.Tensor) -> torch.Tensor:
            found = run(opened, {"images": images.float()})  # (B, E)
            return found[:, None].to(parameter.device)  # (B, 1, E) float32, whatever the plan's precision

        return Tower(
            parts=parts,
            build=build,
            blocks=(OnnxRow(parts, manifest.width),),
            grid=Grid((1,)),
            stem=stem,
            pool=lambda x: x[:, 0],
            encode=lambda images: stem(images)[:, 0],
            reads=None,
            tokens=1,
            resolution=manifest.resolution,
            pooling="inside the network",
            class_token=False,
            family=f"{RUNTIMES[manifest.runtime][0]} {manifest.content.get('precision', '')}".strip(),
        )

    return build(nn.ModuleList([holder]))


def _encode_texts(opened: Session, encode: Callable, texts: Sequence[str]) -> torch.Tensor:
    """Texts → embeddings (T, E), float32, not normalised."""
    batches = [texts[start : start + TEXT_BATCH] for start in range(0, len(texts), TEXT_BATCH)]
    return torch.cat([run(opened, encode(batch)) for batch in batches])


def _check_functions(manifest: Manifest, preprocess: Callable, tokens: Tokens | None, name: str) -> None:
    wanted = manifest.functions
    if not near(wanted.get("pixels"), pixels_sketch(preprocess)):
        raise HeadwiseError(
            f"{name}: pictures are prepared otherwise here than at the export (size, crop, mean, std, interpolation). "
            "Its base/ folder was changed, or the library that reads it; export the model again."
        )
    if tokens is not None and wanted.get("tokens") != tokens_key(tokens.encode):
        raise HeadwiseError(
            f"{name}: the tokenizer gives other tokens here than at the export. Its base/ folder was changed, or the "
            "library that reads it; export the model again."
        )


def _refuse_saving(name: str, folder: Path) -> None:
    raise HeadwiseError(f"{name} is an export; nothing can be folded into it. Give the model that it came from.")

"""What a model is made of, and which libraries and name forms there are: `headwise inspect`, `headwise models`."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata

import torch

from headwise.edits.mask import Mask
from headwise.edits.operators import OPERATORS
from headwise.towers.base import Model, evaluating


@dataclass(frozen=True)
class Library:
    """A library that models come from.

    Arguments:
        name: as on PyPI.
        version: the installed one; None where it is not installed.
        extra: what to install it with; None where it comes with headwise.
        forms: name form → what it means.
        examples: names that a user can type.
        families: what it holds.
    """

    name: str
    version: str | None
    extra: str | None
    forms: dict[str, str]
    examples: tuple[str, ...]
    families: tuple[str, ...]


def families() -> list[Library]:
    """Every library, installed or not, in the order in which a reader should see them."""
    return [
        Library(
            "headwise",
            _version("headwise"),
            None,
            {"demo": "the packaged small model"},
            ("demo",),
            ("CLIP",),
        ),
        Library(
            "transformers",
            _version("transformers"),
            None,
            {"hf:HUB_ID": "a model of the hub", "hf:FOLDER": "what save_pretrained wrote; a folder needs no hf:"},
            (
                "hf:openai/clip-vit-base-patch32",
                "hf:google/siglip-base-patch16-224",
                "hf:google/siglip2-base-patch16-224",
                "hf:OFA-Sys/chinese-clip-vit-base-patch16",
                "hf:BAAI/AltCLIP",
                "hf:facebook/metaclip-2-worldwide-huge-quickgelu",
            ),
            ("CLIP", "SigLIP", "SigLIP 2 of fixed resolution", "Chinese-CLIP", "AltCLIP", "MetaCLIP 2"),
        ),
        Library(
            "open_clip_torch",
            _version("open_clip_torch"),
            "open-clip",
            {
                "open_clip:ARCHITECTURE/TAG": "pretrained weights by their tag",
                "open_clip:ARCHITECTURE/FILE": "a checkpoint (an absolute path gives two slashes)",
                "open_clip:local-dir:DIR": "a folder with open_clip_config.json; it needs no prefix",
                "open_clip:hf-hub:ORG/REPO": "a model of the hub in open_clip's format",
            },
            (
                "open_clip:ViT-B-32/openai",
                "open_clip:ViT-B-32//path/to.safetensors",
                "open_clip:coca_ViT-B-32/laion2b_s13b_b90k",
                "open_clip:ViT-B-16-SigLIP/webli",
                "open_clip:hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
            ),
            (
                "native ViT (OpenAI, LAION, DataComp, MetaCLIP)",
                "CoCa",
                "SigLIP, SigLIP 2, EVA02-CLIP, ViTamin, MobileCLIP-B, Perception Encoder (timm trunks; also needs timm)",
                "ModifiedResNet (the heads of its attention pooling alone)",
            ),
        ),
        Library(
            "timm",
            _version("timm"),
            "timm",
            {
                "timm:NAME": "pretrained weights; images alone, for classification by prototypes",
                "timm:NAME/FILE": "a checkpoint (an absolute path gives two slashes)",
                "timm:local-dir:DIR": "a folder that timm wrote; it needs no prefix",
                "timm:hf-hub:ORG/REPO": "a model of the hub in timm's format",
                "headwise.wrap(model, (preprocess, encode_texts))": "in Python: with a text tower of yours",
            },
            ("timm:vit_base_patch16_clip_224.openai", "timm:vit_base_patch16_siglip_224.webli"),
            ("ViT", "EVA, EVA02", "ViTamin"),
        ),
        Library(
            "sentence-transformers",
            _version("sentence-transformers"),
            "sentence-transformers",
            {"headwise.wrap(model)": "in Python: a SentenceTransformer with a CLIP inside"},
            (),
            ("CLIP",),
        ),
    ]


def inspect(model: Model) -> dict:
    """Facts about a model, as plain JSON values.

    Arguments:
        model: what `headwise.load` returns.

    Returns:
        `name`, `family`, `layers` (heads per block), `pool_heads`, `heads` (of all rows), `tokens`, `resolution`,
        `pooling`, `class_token`, `embedding` (E), `parameters` of the image tower and `parameters_total`, `dtype`,
        `device`, `weights_hash`, `text` (whether it has a text tower), `loss`; `operators`: for each its meaning
        (`what`), where it `applies` (`all heads`, `blocks` for all but the pooling's, or `no`) and whether it `folds`
        exactly; `ffe`: cost in full-forward equivalents of a `sweep` over all heads and of the `hook_loop` that
        runs the tower once per head.
    """
    from headwise.evaluation.engine import (
        ffe,  # the engine builds on towers; this consumer of both is used by the CLI alone
    )

    tower = model.tower
    masks = [Mask.suppress(tower.grid, [head]) for head in tower.grid]
    blank = torch.zeros(1, 3, tower.resolution, tower.resolution, dtype=tower.dtype, device=tower.device)
    with evaluating(tower.parts), torch.inference_mode():
        embedding = tower.encode(blank).shape[-1]
    return {
        "name": model.name,
        "family": tower.family,
        "layers": list(tower.grid.layers),
        "pool_heads": tower.grid.pool,
        "heads": tower.grid.size,
        "tokens": tower.tokens,
        "resolution": tower.resolution,
        "pooling": tower.pooling,
        "class_token": tower.class_token,
        "embedding": embedding,
        "parameters": _count(tower.parts),
        "parameters_total": _count(model.module),
        "dtype": str(tower.dtype).removeprefix("torch."),
        "device": str(tower.device),
        "weights_hash": tower.weights_hash,
        "text": model.encode_texts is not None,
        "loss": model.loss,
        "operators": {
            op: {"what": what, "applies": _applies(model, op), "folds": op in tower.foldable}
            for op, what in OPERATORS.items()
        },
        "ffe": {
            "sweep": ffe(tower, [*masks, Mask.identity(tower.grid)]),
            "hook_loop": float(tower.grid.size + 1),
        },
    }


def _applies(model: Model, operator: str) -> str:
    tower = model.tower
    if operator not in tower.operators:
        return "no"
    return "all heads" if all(operator in block.operators for block in tower.blocks) else "blocks"


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

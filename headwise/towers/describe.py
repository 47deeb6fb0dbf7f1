"""Which libraries and name forms there are: `headwise models`.

In: nothing but what is installed. Out: a `Library` for each, in the order in which a reader should see them. No
library is imported for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import metadata


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
            {"FOLDER": "what save wrote (modules.json)", "headwise.wrap(model)": "in Python: a SentenceTransformer"},
            (),
            ("CLIP",),
        ),
    ]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

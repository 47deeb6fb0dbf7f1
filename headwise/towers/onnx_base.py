"""How pictures and texts reach an exported network: by the library that the model came from, from its files alone.

In: the `base/` folder of an export, which holds no weights. Out: a preprocessing and a tokenizer, the same functions
as those of the model itself. The model is built without numbers (device `meta`) where a tokenizer's rules depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from headwise.errors import HeadwiseError
from headwise.towers import hf, hf_load, hf_texts, open_clip_load, open_clip_texts
from headwise.towers.configs import check_folder, read_config
from headwise.towers.open_clip_images import transform_of
from headwise.towers.open_clip_weights import without_weights
from headwise.towers.overrides import Overrides
from headwise.towers.texts import Reading
from headwise.towers.tools import need
from headwise.towers.whole import cannot_load, no_foreign_code

WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".index.json")


@dataclass(frozen=True)
class Tokens:
    """A tokenizer.

    Arguments:
        encode: texts → what the text tower is given, (T, L) each, by name.
        reading: where texts are cut.
    """

    encode: Callable[[Sequence[str]], Mapping[str, torch.Tensor]]
    reading: Reading | None


Outside = tuple[Callable[[Any], torch.Tensor], Tokens | None]


def outside(folder: Path, resolution: int, context: int | None, name: str) -> Outside:
    """Preprocessing and tokenizer of an export.

    Arguments:
        folder: what the model's own library saved, without weights.
        resolution: R in pixels.
        context: captions are cut at so many tokens; None: there is no text tower.
        name: for messages.

    Raises:
        HeadwiseError: files missing or broken, or that ask for code of their own.
    """
    if not folder.is_dir():
        raise HeadwiseError(f"{name} lacks its folder {folder.name}/ with processor and tokenizer. Get it anew.")
    for place in {folder, *(path.parent for path in folder.rglob("*.json"))}:
        check_folder(place)
    with no_foreign_code():
        if (folder / open_clip_load.CONFIG_FILE).is_file():
            return _open_clip(folder, context, name)
        config = next(iter(sorted(folder.rglob("config.json"), key=lambda path: len(path.parts))), None)
        content = read_config(config) if config is not None else {}
        if config is None or ("architecture" in content and "model_type" not in content):
            return _timm(content, resolution, name), None
        try:
            return _transformers(folder, config.parent, context, name)
        except HeadwiseError:
            raise
        except Exception as error:  # transformers raises many kinds
            raise cannot_load(f"{name}: transformers cannot read {folder}", error) from error


def _transformers(folder: Path, place: Path, context: int | None, name: str) -> Outside:
    """The processor may lie beside the configuration, or above it (sentence-transformers)."""
    import transformers

    beside = next((path.parent for path in sorted(folder.rglob("*processor_config.json"))), place)
    processor = hf_load.read_processor(str(beside))
    preprocess = partial(_pixels, getattr(processor, "image_processor", processor))
    if context is None:
        return preprocess, None
    config: Any = transformers.AutoConfig.from_pretrained(str(place), trust_remote_code=False)
    if config.model_type not in hf_load.MODELS or not hasattr(processor, "tokenizer"):
        raise HeadwiseError(f"{name}: its base/ folder has no tokenizer, or is of no CLIP. Export the model again.")
    with torch.device("meta"):
        module = getattr(transformers, hf_load.MODELS[config.model_type])(config)
    read, _ = hf_texts.reading(module, processor.tokenizer, Overrides(context_length=context), name)
    said = processor.tokenizer.model_max_length
    return preprocess, Tokens(partial(hf.tokenize, module, processor.tokenizer, limit=context, said=said), read)


def _pixels(image_processor: Any, image: Any) -> torch.Tensor:
    return image_processor(images=[image], return_tensors="pt")["pixel_values"][0]  # (3, R, R)


def _open_clip(folder: Path, context: int | None, name: str) -> Outside:
    open_clip = need("open_clip", "open-clip")
    content = read_config(folder / open_clip_load.CONFIG_FILE)
    preprocess = transform_of(content.get("preprocess_cfg") or {})
    if context is None:
        return preprocess, None
    module = without_weights(open_clip, f"local-dir:{folder}", device="meta")
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    whole = open_clip_texts.positions(module)
    asked = Overrides(context_length=None if context == whole else context)
    read = open_clip_texts.reading(module, tokenizer, asked, name)
    ids = read.ids if read else partial(open_clip_texts.plain_ids, tokenizer)
    return preprocess, Tokens(partial(open_clip_texts.named_ids, ids), read)


def _timm(content: Mapping[str, Any], resolution: int, name: str) -> Callable[[Any], torch.Tensor]:
    timm: Any = need("timm", "timm")
    known = content.get("pretrained_cfg")
    if not isinstance(known, dict):
        raise HeadwiseError(f"{name}: its base/ folder does not say how pictures are prepared. Export the model again.")
    config = timm.data.resolve_data_config(pretrained_cfg=known) | {"input_size": (3, resolution, resolution)}
    return timm.data.create_transform(**config, is_training=False)

"""open_clip models by open_clip's own names: what a checkpoint does not say is taken from where it is known.

In: a reference and overrides. Out: `Loaded`: model, tokenizer, configuration, and what a user should know of guesses.
How weights come into the model is in `open_clip_weights.py`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from headwise.errors import HeadwiseError
from headwise.hub import offline_unless_reachable
from headwise.towers import configs
from headwise.towers.open_clip_weights import Loaded, at_size, with_weights, without_weights
from headwise.towers.overrides import Overrides
from headwise.towers.whole import cannot_load, check_count, no_foreign_code

CONFIG_FILE = "open_clip_config.json"
FOLDERS = ("local-dir:", "hf-hub:")
PREPROCESS = ("mean", "std", "interpolation", "resize_mode")  # what published tags say


def load(open_clip: ModuleType, reference: str, device: str, overrides: Overrides) -> Loaded:
    """A model by reference.

    Arguments:
        open_clip: the library.
        reference: `ARCHITECTURE/TAG`, `ARCHITECTURE/FILE`, `local-dir:DIR` or `hf-hub:ORG/REPO`.
        device: where to put it.
        overrides: what to do otherwise than its files and open_clip say.

    Raises:
        HeadwiseError: no such architecture, tag, folder or file; a broken checkpoint, or one of another model;
            preprocessing that nothing tells.
    """
    name = f"open_clip:{reference}"
    local = reference.startswith("local-dir:") or os.path.isfile(reference.partition("/")[2])
    with nullcontext() if local else offline_unless_reachable(), no_foreign_code():
        try:
            if reference.startswith(FOLDERS):
                return _folder(open_clip, name, reference, device, overrides)
            architecture, _, pretrained = reference.partition("/")
            _check_pretrained(open_clip, name, architecture, pretrained)
            if open_clip.get_pretrained_cfg(architecture, pretrained):
                return _tag(open_clip, name, architecture, pretrained, device, overrides)
            return _file(open_clip, name, architecture, Path(pretrained), device, overrides)
        except HeadwiseError:
            raise
        except Exception as error:  # open_clip raises many kinds, also for a truncated file
            raise cannot_load(f"open_clip cannot load {name}", error) from error


def _check_pretrained(open_clip: ModuleType, name: str, architecture: str, pretrained: str) -> None:
    if architecture not in open_clip.list_models():
        close = [known for known in open_clip.list_models() if architecture.lower() in known.lower()][:8]
        hint = f"Similar: {', '.join(close)}." if close else "See open_clip.list_models()."
        raise HeadwiseError(f"{name}: open_clip has no architecture {architecture!r}. {hint}")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if pretrained not in tags and not os.path.isfile(pretrained):
        raise HeadwiseError(
            f"{name}: {pretrained or 'no weights'!r} is neither a pretrained tag of {architecture} nor a file. "
            f"Write open_clip:{architecture}/TAG with one of {', '.join(tags) or '(it has none)'}, or "
            f"open_clip:{architecture}/PATH with a checkpoint."
        )


# ---- the three kinds of reference


def _tag(open_clip: ModuleType, name: str, architecture: str, tag: str, device: str, overrides: Overrides) -> Loaded:
    config = open_clip.get_model_config(architecture)
    if open_clip.get_pretrained_cfg(architecture, tag).get("quick_gelu"):
        config["quick_gelu"] = True  # open_clip only warns when a tag was trained with it
    trunk = "timm_model_name" in config["vision_cfg"]
    module = open_clip.create_model(
        architecture,
        tag,
        device=device,
        require_pretrained=True,
        force_quick_gelu=bool(config.get("quick_gelu")),
        force_image_size=None if trunk else overrides.image_size,
        force_preprocess_cfg=_asked(overrides),
    )
    if overrides.image_size is not None and not trunk:
        config["vision_cfg"]["image_size"] = overrides.image_size
    return at_size(Loaded(module, _tokenizer(open_clip, architecture, config, overrides), config, (), overrides), name)


def _folder(open_clip: ModuleType, name: str, reference: str, device: str, overrides: Overrides) -> Loaded:
    schema, _, identifier = reference.partition(":")
    if schema == "local-dir":
        if not os.path.isdir(identifier):
            raise HeadwiseError(f"{name}: the folder {identifier} was not found.")
        configs.check_folder(identifier)
        path, weights = Path(identifier) / CONFIG_FILE, _weights_in(Path(identifier))
        if weights is None:
            raise HeadwiseError(f"{name}: the folder {identifier} has a configuration but no weights (*.safetensors).")
    else:
        from open_clip.pretrained import download_pretrained_from_hf

        path = Path(download_pretrained_from_hf(identifier, filename=CONFIG_FILE))
        weights = Path(download_pretrained_from_hf(identifier))
    content = configs.read_config(path)
    config = content.get("model_cfg")
    if not isinstance(config, dict) or not all(isinstance(config.get(k), dict) for k in ("vision_cfg", "text_cfg")):
        raise HeadwiseError(f"{name}: {path} has no model_cfg with vision_cfg and text_cfg.")
    recorded = content.get("headwise")
    recorded = recorded if isinstance(recorded, dict) else {}
    if overrides.context_length is None and "context_length" in recorded:
        overrides = replace(overrides, context_length=recorded["context_length"])
    if overrides.image_size is None and "timm_model_name" in config["vision_cfg"] and "image_size" in recorded:
        overrides = replace(overrides, image_size=recorded["image_size"])
    kwargs = config["text_cfg"].get("tokenizer_kwargs") or {}
    if kwargs.get("trust_remote_code"):
        raise HeadwiseError(f"{name}: its tokenizer asks to run Python code of its own, which headwise never does.")
    preprocess = {**(content.get("preprocess_cfg") or {}), **_asked(overrides)}
    check_count(
        lambda: without_weights(open_clip, reference, device="meta"),
        [weights],
        name,
    )
    made = with_weights(open_clip, name, reference, config, preprocess, weights, device, overrides)
    return replace(made, tokenizer=_tokenizer(open_clip, reference, config, overrides))


def _tokenizer(open_clip: ModuleType, reference: str, config: Mapping, overrides: Overrides) -> Any:
    """open_clip's tokenizer, of the processor that was asked for where the model reads with one of transformers."""
    text, folder = config["text_cfg"], overrides.processor
    if folder is None or not text.get("hf_tokenizer_name") or not any(Path(folder).glob("*token*")):
        return open_clip.get_tokenizer(reference)
    return open_clip.tokenizer.HFTokenizer(
        folder,
        context_length=text.get("context_length", 77),
        tokenizer_mode=text.get("tokenizer_mode"),
        **(text.get("tokenizer_kwargs") or {}),
    )


def _weights_in(folder: Path) -> Path | None:
    from open_clip.factory import _find_checkpoint_in_dir  # the same choice as open_clip's own

    found = _find_checkpoint_in_dir(folder)
    return None if found is None else Path(found)


def _file(open_clip: ModuleType, name: str, architecture: str, file: Path, device: str, overrides: Overrides) -> Loaded:
    config = open_clip.get_model_config(architecture)
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    published = [open_clip.get_pretrained_cfg(architecture, tag) for tag in tags]
    preprocess, notes = _preprocess(name, architecture, file, config, published, overrides)
    made = with_weights(open_clip, name, architecture, config, preprocess, file, device, overrides)
    if len({bool(tag.get("quick_gelu")) for tag in published} | {bool(config.get("quick_gelu"))}) > 1:
        used = "quick-GELU" if config.get("quick_gelu") else "GELU"
        notes += (
            f"{name}: published weights of {architecture} differ in their activation, GELU or quick-GELU; this file is "
            f"read with {used}. If it was trained from weights of OpenAI, MetaCLIP or DFN, use an architecture "
            "whose name ends with -quickgelu.",
        )
    return replace(made, tokenizer=_tokenizer(open_clip, architecture, config, overrides), notes=made.notes + notes)


def _preprocess(
    name: str, architecture: str, file: Path, config: Mapping, published: list[dict], overrides: Overrides
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """How pictures for a checkpoint file are preprocessed: as asked, as the folder it lies in says, or as all of the
    architecture's published weights do.

    Raises:
        HeadwiseError: the published weights differ, so that nothing tells.
    """
    from open_clip.transform import PreprocessCfg

    asked, default = _asked(overrides), asdict(PreprocessCfg())
    beside = file.parent / CONFIG_FILE
    if beside.is_file():
        content = configs.read_config(beside)
        if _same_tower(content.get("model_cfg"), config):
            return {**(content.get("preprocess_cfg") or {}), **asked}, ()
    if not published:
        return asked, ()
    seen = {key: {_plain(tag.get(key) or default[key]) for tag in published} for key in PREPROCESS}
    if unclear := [key for key, values in seen.items() if len(values) > 1 and key not in asked]:
        options = ", ".join(f"--{key.replace('_', '-')}" for key in unclear)
        known = "; ".join(f"{key}: {' or '.join(map(str, sorted(seen[key])))}" for key in unclear)
        raise HeadwiseError(
            f"{name}: a checkpoint file does not say how pictures are preprocessed, and published weights of "
            f"{architecture} differ in it ({known}). Say it with {options}."
        )
    common = {key: next(iter(values)) for key, values in seen.items() if len(values) == 1}
    unusual = {key: value for key, value in common.items() if value != _plain(default[key]) and key not in asked}
    if not unusual:
        return asked, ()
    shown = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in unusual.items())
    return {**common, **asked}, (f"{name}: preprocessed as all published weights of {architecture} are: {shown}.",)


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) else value


def _same_tower(theirs: Any, ours: Mapping) -> bool:
    """Whether two configurations are of one image tower, whatever their image size."""
    if not isinstance(theirs, dict) or not isinstance(theirs.get("vision_cfg"), dict):
        return False
    mine, other = dict(ours["vision_cfg"]), dict(theirs["vision_cfg"])
    return {**mine, "image_size": 0} == {**other, "image_size": 0} and theirs.get("embed_dim") == ours["embed_dim"]


def _asked(overrides: Overrides) -> dict[str, Any]:
    return {key: overrides.given[key] for key in PREPROCESS if key in overrides.given}


def dump_config(config: Mapping, preprocess: Mapping, overrides: Overrides) -> str:
    """The text of `open_clip_config.json`; what open_clip has no word for is under `headwise`."""
    content = {"model_cfg": config, "preprocess_cfg": preprocess}
    if overrides.given:
        content["headwise"] = overrides.given
    return json.dumps(content, indent=2) + "\n"

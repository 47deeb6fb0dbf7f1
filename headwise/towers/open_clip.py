"""open_clip: native ViTs, timm trunks and ModifiedResNets, loaded by open_clip's own names."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headwise.errors import HeadwiseError
from headwise.towers import timm
from headwise.towers.base import Model, Tower, weights_hash
from headwise.towers.open_clip_blocks import build_native, is_native_vit
from headwise.towers.pool2d import build_resnet, build_trunk_pool
from headwise.towers.tools import need, tokenizer_as_it_was

TEXT_BATCH = 256
LOOKED_FOR = "visual.transformer.resblocks, visual.trunk or visual.attnpool (open_clip)"


def visual_of(module: Any) -> Any:
    """The image tower of an open_clip model, or the module itself where it is one."""
    for visual in (getattr(module, "visual", None), module):
        if isinstance(visual, nn.Module) and (
            is_native_vit(visual) or _is_timm_adapter(visual) or hasattr(visual, "attnpool")
        ):
            return visual
    return None


def _is_timm_adapter(visual: Any) -> bool:
    return isinstance(getattr(visual, "trunk", None), nn.Module) and hasattr(visual, "head")


def recognises(module: Any) -> bool:
    return visual_of(module) is not None


def tower_of(module: Any) -> Tower:
    """The image tower of an open_clip model (parameters are shared).

    Raises:
        HeadwiseError: a tower without attention heads, or with parts that headwise does not know.
    """
    visual = visual_of(module)
    assert visual is not None
    parts = nn.ModuleList([visual])
    if is_native_vit(visual):
        return build_native(parts)
    if hasattr(visual, "attnpool"):
        return build_resnet(parts)
    if hasattr(visual.head, "pool"):
        return build_trunk_pool(parts)
    return build_timm_adapter(parts)


def build_timm_adapter(parts: nn.ModuleList) -> Tower:
    """open_clip's `TimmModel`: a timm trunk and a projection."""
    visual: Any = parts[0]
    return timm.build_trunk(
        parts,
        visual.trunk,
        head=visual.head,
        encode=visual,
        build=build_timm_adapter,
        resolution=visual.image_size[0],
        family=f"open_clip with timm {type(visual.trunk).__name__}",
    )


# ---- loading by name


def load(reference: str, *, device: str = "cpu") -> Model:
    """A model by open_clip's own names, weights in float32.

    Arguments:
        reference: `ViT-B-32/openai` (architecture and pretrained tag), `ViT-B-32//path/to.safetensors`
            (architecture and checkpoint), `local-dir:DIR` or `hf-hub:ORG/REPO`.
        device: where to put it.

    Raises:
        HeadwiseError: open_clip is not installed; no such architecture, tag or file; a broken checkpoint.
    """
    open_clip = need("open_clip", "open-clip")
    name = f"open_clip:{reference}"
    if reference.startswith(("local-dir:", "hf-hub:")):
        architecture, pretrained = reference, None
    else:
        architecture, _, pretrained = reference.partition("/")
        _check_pretrained(open_clip, name, architecture, pretrained)
    tag = open_clip.get_pretrained_cfg(architecture, pretrained) if pretrained else {}
    quick_gelu = bool(tag.get("quick_gelu"))  # open_clip only warns when a tag was trained with it
    try:
        module = open_clip.create_model(
            architecture, pretrained, device=device, force_quick_gelu=quick_gelu, require_pretrained=True
        )
        tokenizer = open_clip.get_tokenizer(architecture)
        config = open_clip.get_model_config(architecture)
    except Exception as error:  # open_clip raises many kinds, also for a truncated file
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise HeadwiseError(f"open_clip cannot load {name}: {first_line}") from error
    config = {**config, **({"quick_gelu": True} if quick_gelu else {})}
    return _model(module, _transform(module), tokenizer, config, name)


def _check_pretrained(open_clip, name: str, architecture: str, pretrained: str) -> None:
    if architecture not in open_clip.list_models():
        close = [known for known in open_clip.list_models() if architecture.lower() in known.lower()][:8]
        hint = f"Similar: {', '.join(close)}." if close else "See open_clip.list_models()."
        raise HeadwiseError(f"{name}: open_clip has no architecture {architecture!r}. {hint}")
    tags = open_clip.list_pretrained_tags_by_model(architecture)
    if pretrained not in tags and not Path(pretrained).is_file():
        raise HeadwiseError(
            f"{name}: {pretrained or 'no weights'!r} is neither a pretrained tag of {architecture} nor a file. "
            f"Write open_clip:{architecture}/TAG with one of {', '.join(tags) or '(it has none)'}, or "
            f"open_clip:{architecture}/PATH with a checkpoint."
        )


def wrap(module: Any, processor, *, name: str = "") -> Model:
    """A headwise model from an open_clip model, in place, nothing copied.

    Arguments:
        module: what `open_clip.create_model` returns, or its `visual`.
        processor: (preprocess, tokenizer), or None: open_clip's own for this model and for `name`.
        name: `open_clip:ARCHITECTURE` lets `save` write the configuration and names the tokenizer.
    """
    open_clip = need("open_clip", "open-clip")
    reference = name.removeprefix("open_clip:")
    architecture = reference if reference.startswith(("local-dir:", "hf-hub:")) else reference.partition("/")[0]
    known = architecture in open_clip.list_models() or reference.startswith(("local-dir:", "hf-hub:"))
    preprocess, tokenizer = processor if isinstance(processor, tuple) else (processor, None)
    if tokenizer is None and known:
        tokenizer = open_clip.get_tokenizer(architecture)
    config = open_clip.get_model_config(architecture) if known else None
    return _model(module.eval(), preprocess or _transform(module), tokenizer, config, name or "open_clip model")


def _transform(module: Any) -> Callable:
    from open_clip.transform import PreprocessCfg, image_transform_v2

    visual = visual_of(module)
    config = getattr(visual, "preprocess_cfg", None)
    if config is None:
        raise HeadwiseError(
            "This open_clip model does not carry its preprocessing. Pass it: "
            "headwise.wrap(model, (preprocess, tokenizer))."
        )
    transform: Any = image_transform_v2(PreprocessCfg(**config), is_train=False)
    return transform


def _model(module: Any, preprocess: Callable, tokenizer, config: Mapping | None, name: str) -> Model:
    module.eval()
    has_text = hasattr(module, "encode_text") and tokenizer is not None
    bias = getattr(module, "logit_bias", None)
    scale = getattr(module, "logit_scale", None)
    return Model(
        name=name,
        tower=tower_of(module),
        module=module,
        preprocess=preprocess,
        # a configuration that was read from JSON has lists where open_clip has tuples
        preprocess_spec={"class": "open_clip", "steps": str(preprocess).replace("[", "(").replace("]", ")")},
        encode_texts=partial(_encode_texts, module, tokenizer) if has_text else None,
        tokenize=partial(_tokenize, tokenizer) if has_text else None,
        text_hash=weights_hash(module, skip=("visual.", "logit_")) if has_text else "",
        logit_scale=float(scale.detach().exp()) if scale is not None else 100.0,
        logit_bias=float(bias.detach()) if bias is not None else 0.0,
        loss="softmax" if bias is None else "sigmoid",
        save=partial(_save, module, tokenizer, config),
    )


def _tokenize(tokenizer, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    with tokenizer_as_it_was(getattr(tokenizer, "tokenizer", None)):  # of transformers, in some of open_clip's
        return {"text": tokenizer(list(texts))}  # (T, context)


@torch.inference_mode()
def _encode_texts(module: Any, tokenizer, texts: Sequence[str]) -> torch.Tensor:
    device = next(module.parameters()).device
    out = []
    for start in range(0, len(texts), TEXT_BATCH):
        tokens = _tokenize(tokenizer, texts[start : start + TEXT_BATCH])["text"].to(device)  # (T, context)
        out.append(module.encode_text(tokens, normalize=False).float())  # (T, E); CoCa would normalise
    return torch.cat(out)


def _save(module: Any, tokenizer, config: Mapping | None, folder: Path) -> None:
    """open_clip's local-dir: configuration, weights, and the tokenizer where it has files."""
    from safetensors.torch import save_file

    if config is None:
        raise HeadwiseError(
            "open_clip models do not carry their configuration, so this one cannot be saved. Give its architecture: "
            "headwise.wrap(model, processor, name='open_clip:ViT-B-32')."
        )
    visual = visual_of(module)
    preprocess = dict(getattr(visual, "preprocess_cfg", {}))
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in module.state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    text = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess}, indent=2)
    (folder / "open_clip_config.json").write_text(text + "\n", encoding="utf-8")
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(folder)

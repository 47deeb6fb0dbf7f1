"""open_clip: native ViTs, timm trunks and ModifiedResNets, loaded by open_clip's own names.

In: a reference, or a model with its preprocessing and tokenizer. Out: a `Model`. Loading is in `open_clip_load.py`,
the rows of heads in `open_clip_blocks.py`, `timm.py` and `pool2d.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headwise.errors import HeadwiseError
from headwise.towers import open_clip_load, timm
from headwise.towers.base import Model, Tower, weights_hash
from headwise.towers.open_clip_blocks import build_native, is_native_vit
from headwise.towers.open_clip_images import described, own_transform
from headwise.towers.open_clip_texts import encode_texts, named_ids, plain_ids, positions, reading
from headwise.towers.overrides import Overrides
from headwise.towers.pool2d import build_resnet, build_trunk_pool
from headwise.towers.stated import check_stated, stated
from headwise.towers.tools import need

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
    """Whether a module is an image tower of open_clip, or holds one."""
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
        head=lambda x: visual.head(visual.trunk.head(x)),
        encode=visual,
        build=build_timm_adapter,
        resolution=visual.image_size[0],
        family=f"open_clip with timm {type(visual.trunk).__name__}",
    )


# ---- loading by name


def load(reference: str, *, device: str = "cpu", overrides: Overrides | None = None) -> Model:
    """A model by open_clip's own names, weights in float32.

    Arguments:
        reference: `ViT-B-32/openai` (architecture and pretrained tag), `ViT-B-32//path/to.safetensors`
            (architecture and checkpoint), `local-dir:DIR` or `hf-hub:ORG/REPO`.
        device: where to put it.
        overrides: what to do otherwise than its files say.

    Raises:
        HeadwiseError: open_clip is not installed; no such architecture, tag or file; a broken checkpoint.
    """
    open_clip = need("open_clip", "open-clip")
    overrides = overrides or Overrides()
    said = stated(overrides)
    found = open_clip_load.load(open_clip, reference, device, said.overrides if said else overrides)
    model = _model(
        found.module,
        own_transform(visual_of(found.module)),
        found.tokenizer,
        found.config,
        f"open_clip:{reference}",
        found.overrides,
        own=found.own,
    )
    check_stated(model, said)
    notes = ()
    if said is not None and not found.config["text_cfg"].get("hf_tokenizer_name"):
        notes = (f"{model.name}: pictures are preprocessed as {said.folder} says; texts by open_clip's own tokenizer.",)
    return replace(model, notes=found.notes + model.notes + notes)


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
    config = _as_it_is(module, open_clip.get_model_config(architecture)) if known else None
    name, visual = name or "open_clip model", visual_of(module)
    if preprocess is None:
        return _model(module.eval(), own_transform(visual), tokenizer, config, name)
    carried = dict(getattr(visual, "preprocess_cfg", None) or {})
    said = described(preprocess, carried) if carried else None
    model = _model(module.eval(), preprocess, tokenizer, config, name, preprocess_cfg=said)
    if said is not None or config is None:
        return model
    note = f"{name}: open_clip's configuration cannot say this preprocessing, so a saved model will say its default."
    return replace(model, notes=(*model.notes, note))


def _as_it_is(module: Any, config: dict) -> dict:
    """An architecture's configuration with what a model was made otherwise: its image size, context, activation, a text tower
    in a part of its own, a bias of logits."""
    visual = visual_of(module)
    if hasattr(module, "text"):
        config["custom_text"] = True
    if getattr(module, "logit_bias", None) is not None:
        config.setdefault("init_logit_bias", -10.0)  # the weights have the value
    if is_native_vit(visual):
        config["vision_cfg"]["image_size"] = visual.image_size[0]
        activation = getattr(visual.transformer.resblocks[0].mlp, "gelu", None)
        if activation is not None:
            config["quick_gelu"] = type(activation).__name__ == "QuickGELU"
    if (tokens := positions(module)) is not None:
        config["text_cfg"]["context_length"] = tokens
    return config


def _model(
    module: Any,
    preprocess: Callable,
    tokenizer,
    config: Mapping | None,
    name: str,
    overrides: Overrides | None = None,
    preprocess_cfg: Mapping | None = None,
    own: Mapping[str, torch.Tensor] | None = None,
) -> Model:
    module.eval()
    overrides = overrides or Overrides()
    has_text = hasattr(module, "encode_text") and tokenizer is not None
    texts = reading(module, tokenizer, overrides, name) if has_text else None
    if texts is None:
        overrides.refuse("context_length", reason=f"how {name} cuts captions is not known.")
    bias = getattr(module, "logit_bias", None)
    scale = getattr(module, "logit_scale", None)
    return Model(
        name=name,
        tower=tower_of(module),
        module=module,
        preprocess=preprocess,
        # a configuration that was read from JSON has lists where open_clip has tuples
        preprocess_spec={"class": "open_clip", "steps": str(preprocess).replace("[", "(").replace("]", ")")},
        encode_texts=partial(encode_texts, module, texts.ids if texts else partial(plain_ids, tokenizer))
        if has_text
        else None,
        tokenize=partial(named_ids, texts.ids if texts else partial(plain_ids, tokenizer)) if has_text else None,
        text_hash=weights_hash(module, skip=("visual.", "logit_")) if has_text else "",
        logit_scale=float(scale.detach().exp()) if scale is not None else 100.0,
        logit_bias=float(bias.detach()) if bias is not None else 0.0,
        loss="softmax" if bias is None else "sigmoid",
        save=partial(_save, module, tokenizer, config, overrides, preprocess_cfg, own or {}),
        reading=texts,
        overrides=overrides,
    )


def _save(
    module: Any,
    tokenizer,
    config: Mapping | None,
    overrides: Overrides,
    preprocess_cfg: Mapping | None,
    own: Mapping[str, torch.Tensor],
    folder: Path,
) -> None:
    """open_clip's local-dir: configuration, weights, and the tokenizer where it has files."""
    from safetensors.torch import save_file

    if config is None:
        raise HeadwiseError(
            "open_clip models do not carry their configuration, so this one cannot be saved. Give its architecture: "
            "headwise.wrap(model, processor, name='open_clip:ViT-B-32')."
        )
    size = getattr(visual_of(module), "image_size", None)
    vision = config["vision_cfg"]
    if "timm_model_name" in vision and not own and size and size[0] != vision.get("image_size", 224):
        raise HeadwiseError(
            f"This tower of timm was resized to {size[0]} pixels after it was made, and open_clip loads such towers at their "
            f"own size alone. Give the model by its name, with --image-size {size[0]} (image_size={size[0]})."
        )
    preprocess = dict(preprocess_cfg or getattr(visual_of(module), "preprocess_cfg", {}))
    if own:
        preprocess["size"] = [vision.get("image_size", 224)] * 2
    folder.mkdir(parents=True, exist_ok=True)
    state = {**module.state_dict(), **own}
    tensors = {key: value.detach().cpu().contiguous().clone() for key, value in state.items()}
    save_file(tensors, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    text = open_clip_load.dump_config(config, preprocess, overrides)
    (folder / open_clip_load.CONFIG_FILE).write_text(text, encoding="utf-8")
    if hasattr(tokenizer, "save_pretrained"):
        tokenizer.save_pretrained(folder)

"""timm: ViT and EVA towers, alone (`timm:NAME`) or as the trunk of an open_clip model.

In: a reference, or a model. Out: a `Model` without a text tower unless the user gives one. Loading is in
`timm_load.py`, the rows of heads in `timm_blocks.py`, CNNs with attention pooling in `pool2d.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headwise.edits.heads import Grid
from headwise.errors import HeadwiseError
from headwise.towers import timm_load
from headwise.towers.base import Model, Tower
from headwise.towers.blocks import Block
from headwise.towers.overrides import Overrides
from headwise.towers.pool2d import build_trunk_head, is_pool2d
from headwise.towers.stated import check_stated, stated
from headwise.towers.timm_blocks import LatentPool, TimmBlock, reduce_tokens
from headwise.towers.tools import need

LOOKED_FOR = "blocks with attn.proj, patch_embed and forward_head (timm)"


def recognises(module: Any) -> bool:
    """Whether a module is a model of timm."""
    return all(hasattr(module, name) for name in ("forward_features", "forward_head", "reset_classifier"))


def tower_of(module: Any) -> Tower:
    """The image tower of a timm model (parameters are shared).

    Raises:
        HeadwiseError: no attention heads, or parts that headwise does not know.
    """
    if is_pool2d(getattr(module, "head", None)):
        return build_trunk_head(nn.ModuleList([module]))
    return (build_features if is_classifier(module) else build_alone)(nn.ModuleList([module]))


def is_classifier(trunk: Any) -> bool:
    """Whether a timm model's head makes class scores of the pooled features, not an embedding.

    A linear head is a classifier, except the projection of a CLIP: a head as wide as timm published it with a CLIP
    that was not fine-tuned for classes.
    """
    head = trunk.get_classifier() if hasattr(trunk, "get_classifier") else None
    if not isinstance(head, nn.Linear):
        return False
    known = getattr(trunk, "pretrained_cfg", None) or {}
    architecture, tag = known.get("architecture") or "", known.get("tag") or ""
    if "clip" not in architecture or "_ft_" in f"_{tag}_":
        return True
    published = need("timm", "timm").models.get_pretrained_cfg(f"{architecture}.{tag}" if tag else architecture)
    return published is None or head.out_features != published.num_classes


def build_alone(parts: nn.ModuleList) -> Tower:
    """The tower whose embedding is what the model itself returns."""
    trunk: Any = parts[0]
    return build_trunk(
        parts, trunk, head=trunk.head, encode=trunk, build=build_alone, family=f"timm {type(trunk).__name__}"
    )


def build_features(parts: nn.ModuleList) -> Tower:
    """The tower of a classifier, whose embedding is the pooled features that its head would read."""
    trunk: Any = parts[0]
    return build_trunk(
        parts,
        trunk,
        head=nn.Identity(),
        encode=lambda images: trunk.forward_head(trunk.forward_features(images), pre_logits=True),
        build=build_features,
        family=f"timm {type(trunk).__name__}",
    )


def build_trunk(
    parts: nn.ModuleList,
    trunk: Any,
    *,
    head: Callable[[torch.Tensor], torch.Tensor],
    encode: Callable[[torch.Tensor], torch.Tensor],
    build: Callable[[nn.ModuleList], Tower],
    family: str,
    resolution: int | None = None,
) -> Tower:
    """The tower of a timm ViT or EVA and a head on top of it.

    Arguments:
        parts: what the tower consists of, for `build`.
        trunk: the timm model.
        head: pooled features (B, D), after the trunk's last norm → embeddings (B, E).
        encode: the library's own forward.
        resolution: R in pixels, where the wrapper knows it.

    Raises:
        HeadwiseError: a CNN, a hierarchical model, or parts that headwise does not know.
    """
    _check_vit(trunk)
    mixed = getattr(trunk, "rope_mixed", False)
    for place in (
        "t_x",
        "t_y",
    ):  # timm before 1.0.31 multiplies them by float32 frequencies, whatever the tower's dtype
        positions = getattr(getattr(trunk, "rope", None), place, None)
        if positions is not None:
            positions.data = positions.data.float()
    has_rope = getattr(trunk, "rope", None) is not None
    ropes = [
        partial(_rope, trunk, index if mixed else None) if has_rope else None for index in range(len(trunk.blocks))
    ]
    blocks: list[Block] = [TimmBlock(block, rope) for block, rope in zip(trunk.blocks, ropes, strict=True)]
    class_token = getattr(trunk, "cls_token", None) is not None
    prefix = trunk.num_prefix_tokens
    keeps_prefix = getattr(trunk, "pool_include_prefix", False)
    strips = slice(prefix, None) if prefix and not keeps_prefix else None
    pooler, how = trunk.attn_pool, trunk.global_pool
    latent: LatentPool | None = None
    if hasattr(pooler, "latent"):
        eva = not hasattr(trunk, "pool_include_prefix")  # Eva's pooling sees its class token
        strips = None if eva else strips
        latent = LatentPool(
            pooler, before=lambda x: _rows(trunk.norm(x), strips), class_token=class_token and not strips
        )
        blocks.append(latent)
    elif pooler is None and not how:
        raise HeadwiseError(
            f"This timm {type(trunk).__name__} has global_pool '': it returns one vector per token, not an embedding. "
            "Create it with global_pool='token', 'avg' or 'map'."
        )

    def stem(images: torch.Tensor) -> torch.Tensor:
        x = trunk._pos_embed(trunk.patch_embed(images))
        x = x[0] if isinstance(x, tuple) else x  # Eva's comes with its rotary embeddings
        return trunk.norm_pre(x)  # (B, N, D); patch dropout acts in training alone

    def pool(x: torch.Tensor) -> torch.Tensor:
        if latent is not None:
            x = latent.after(x)  # (B, D)
        elif pooler is not None:  # parameter-free refinement: no heads to suppress
            x = pooler(_rows(trunk.norm(x), strips))  # (B, D)
        else:
            x = reduce_tokens(trunk.norm(x), how)  # (B, D)
        return head(trunk.head_drop(trunk.fc_norm(x)))  # (B, E)

    reads = (slice(0, 1) if how == "token" else strips) if pooler is None else None
    return Tower(
        parts=parts,
        build=build,
        blocks=tuple(blocks),
        grid=Grid(tuple(block.heads for block in blocks if block.tokenwise), latent.heads if latent else 0),
        stem=stem,
        pool=pool,
        encode=encode,
        reads=reads,
        tokens=trunk.patch_embed.num_patches + prefix,
        resolution=resolution or trunk.patch_embed.img_size[0],
        pooling={"token": "class token", "avg": "average", "map": "attention"}.get(how, how),
        class_token=class_token,
        family=family,
    )


def _rope(trunk: Any, index: int | None) -> torch.Tensor:
    """Rotary position embeddings at the trunk's own resolution; of one block where they differ by block."""
    if hasattr(trunk.rope, "feat_shape") and trunk.rope.feat_shape is not None:
        rope = trunk.rope.get_embed()
    else:
        rope = trunk.rope.get_embed(shape=trunk.patch_embed.grid_size)
    return rope if index is None else rope[index]


def _rows(x: torch.Tensor, kept: slice | None) -> torch.Tensor:
    return x if kept is None else x[:, kept]


def _check_vit(trunk: Any) -> None:
    names = ("blocks", "patch_embed", "_pos_embed", "attn_pool", "fc_norm", "num_prefix_tokens", "norm_pre")
    missing = [name for name in names if not hasattr(trunk, name)]
    blocks = getattr(trunk, "blocks", ())
    if not missing and len(blocks) and all(hasattr(getattr(block, "attn", None), "proj") for block in blocks):
        return
    children = ", ".join(name for name, _ in trunk.named_children())
    attending = [name for name, module in trunk.named_modules() if hasattr(module, "num_heads")]
    if not attending:
        where = f"its {children} are convolutions and have no attention heads"
    elif hasattr(trunk, "blocks"):
        where = f"it has no {', '.join(missing) or 'attn.proj in every block'}"
    else:
        where = f"its attention sits in {attending[0]} and {len(attending) - 1} more places, between other layers"
    raise HeadwiseError(
        f"{type(trunk).__name__} (timm) is not a plain vision transformer: {where}. Headwise suppresses heads of "
        f"towers that are one row of blocks with attn.proj; looked for: {', '.join(names)}."
    )


# ---- loading by name


def load(reference: str, *, device: str = "cpu", overrides: Overrides | None = None) -> Model:
    """An image-only model by timm's own names, weights in float32.

    Arguments:
        reference: `vit_base_patch16_clip_224.openai`, `hf-hub:ORG/REPO`, `local-dir:DIR`, or a name, a slash
            and a checkpoint file: `vit_base_patch16_clip_224//path/to.safetensors`.
        device: where to put it.
        overrides: what to do otherwise than its files say.

    Raises:
        HeadwiseError: timm is not installed; no such model, tag or file; a broken checkpoint.
    """
    overrides = overrides or Overrides()
    said = stated(overrides)
    overrides = said.overrides if said else overrides
    module, notes = timm_load.load(need("timm", "timm"), reference, overrides)
    model = wrap(module.to(device), None, name=f"timm:{reference}")
    check_stated(model, said)
    return replace(model, notes=notes + model.notes, overrides=overrides)


def wrap(module: Any, processor, *, name: str = "") -> Model:
    """A headwise model from a timm model, in place, nothing copied.

    Arguments:
        module: what `timm.create_model` returns. The embedding of a classifier is its pooled features, unless
            `encode_texts` makes vectors as long as its output.
        processor: (preprocess, encode_texts), preprocess alone, or None: timm's own and no text tower.
            `encode_texts` turns a list of texts into a tensor (T, E).
        name: what to call it in reports.

    Raises:
        HeadwiseError: parts that headwise does not know.
    """
    timm = need("timm", "timm")
    preprocess, encode_texts = processor if isinstance(processor, tuple) else (processor, None)
    module.eval()
    tower, notes = tower_of(module), ()
    size = (3, tower.resolution, tower.resolution)  # timm's configuration does not know a size given as img_size
    config = timm.data.resolve_model_data_config(module) | {"input_size": size}
    name = name or f"timm:{module.pretrained_cfg.get('architecture', type(module).__name__)}"
    if is_classifier(module):
        if encode_texts is not None and encode_texts(["a photo"]).shape[-1] == module.num_classes:
            tower = build_alone(nn.ModuleList([module]))
        else:
            notes = (
                f"{name} is a classifier of {module.num_classes:,} classes; its embedding is the pooled features below "
                "the class scores.",
            )
    return Model(
        name=name,
        tower=tower,
        module=module,
        preprocess=preprocess or timm.data.create_transform(**config, is_training=False),
        preprocess_spec={"class": "timm", "steps": str(preprocess) if preprocess else str(sorted(config.items()))},
        encode_texts=encode_texts,
        text_hash=getattr(encode_texts, "text_hash", ""),
        save=partial(_save, module),
        notes=notes,
    )


def _save(module: Any, folder: Path) -> None:
    """timm's own folder: config.json, with the image size where it is not the architecture's, and the state dict."""
    from timm.models import save_for_hf

    size = getattr(getattr(module, "patch_embed", None), "img_size", None)
    known = need("timm", "timm").models.get_pretrained_cfg(module.pretrained_cfg.get("architecture") or "")
    if not (size and known) or tuple(size) == tuple(known.input_size[1:]):
        save_for_hf(module, str(folder), safe_serialization=True)
        return
    former = module.pretrained_cfg
    module.pretrained_cfg = {**former, "input_size": (3, *size)}
    try:
        save_for_hf(module, str(folder), safe_serialization=True, model_args={"img_size": size[0]})
    finally:
        module.pretrained_cfg = former

"""timm: ViT and EVA towers, alone (`timm:NAME`) or as the trunk of an open_clip model."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from headwise.edits.heads import Grid
from headwise.errors import HeadwiseError
from headwise.towers.base import Model, Tower
from headwise.towers.blocks import Block
from headwise.towers.pool2d import build_trunk_head, is_pool2d
from headwise.towers.timm_blocks import LatentPool, TimmBlock, reduce_tokens
from headwise.towers.tools import need

LOOKED_FOR = "blocks with attn.proj, patch_embed and forward_head (timm)"
CLASSES = (1000, 11821, 21841, 21843)  # ImageNet's sizes: a head of that many outputs is a classifier


def recognises(module: Any) -> bool:
    return all(hasattr(module, name) for name in ("forward_features", "forward_head", "reset_classifier"))


def tower_of(module: Any) -> Tower:
    """The image tower of a timm model (parameters are shared).

    Raises:
        HeadwiseError: no attention heads, or parts that headwise does not know.
    """
    if is_pool2d(getattr(module, "head", None)):
        return build_trunk_head(nn.ModuleList([module]))
    return build_alone(nn.ModuleList([module]))


def build_alone(parts: nn.ModuleList) -> Tower:
    trunk: Any = parts[0]
    return build_trunk(
        parts, trunk, head=nn.Identity(), encode=trunk, build=build_alone, family=f"timm {type(trunk).__name__}"
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
        head: pooled features (B, D) → embeddings (B, E).
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
        return head(trunk.head(trunk.head_drop(trunk.fc_norm(x))))  # (B, E)

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


def load(reference: str, *, device: str = "cpu") -> Model:
    """An image-only model by timm's own names, weights in float32.

    Arguments:
        reference: `vit_base_patch16_clip_224.openai`, `hf-hub:ORG/REPO`, `local-dir:DIR`, or a name, a slash
            and a checkpoint file: `vit_base_patch16_clip_224//path/to.safetensors`.
        device: where to put it.

    Raises:
        HeadwiseError: timm is not installed; no such model, tag or file; a broken checkpoint.
    """
    timm = need("timm", "timm")
    name, (model_name, _, checkpoint) = f"timm:{reference}", reference.partition("/")
    if reference.startswith(("hf-hub:", "hf_hub:", "local-dir:")):
        model_name, checkpoint = reference, ""
    elif model_name.split(".")[0] not in timm.list_models():
        close = timm.list_models(f"*{model_name.split('.')[0]}*")[:8]
        raise HeadwiseError(
            f"{name}: timm has no model {model_name!r}. "
            + (f"Similar: {', '.join(close)}." if close else "See timm.list_models('*clip*').")
        )
    if checkpoint and not Path(checkpoint).is_file():
        raise HeadwiseError(f"{name}: there is no checkpoint file {checkpoint}.")
    try:
        module = timm.create_model(model_name, pretrained=not checkpoint)
        if checkpoint:
            timm.models.load_checkpoint(module, checkpoint, strict=True)
        if module.num_classes in CLASSES:
            module.reset_classifier(0)  # an embedding, not class scores
    except Exception as error:  # timm raises many kinds, also for a truncated file
        first_line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise HeadwiseError(f"timm cannot load {name}: {first_line}") from error
    return wrap(module.to(device), None, name=name)


def wrap(module: Any, processor, *, name: str = "") -> Model:
    """A headwise model from a timm model, in place, nothing copied.

    Arguments:
        module: what `timm.create_model` returns.
        processor: (preprocess, encode_texts), preprocess alone, or None: timm's own and no text tower.
            `encode_texts` turns a list of texts into a tensor (T, E).
        name: what to call it in reports.
    """
    timm = need("timm", "timm")
    preprocess, encode_texts = processor if isinstance(processor, tuple) else (processor, None)
    config = timm.data.resolve_model_data_config(module)
    module.eval()
    return Model(
        name=name or f"timm:{module.pretrained_cfg.get('architecture', type(module).__name__)}",
        tower=tower_of(module),
        module=module,
        preprocess=preprocess or timm.data.create_transform(**config, is_training=False),
        preprocess_spec={"class": "timm", "steps": str(preprocess) if preprocess else str(sorted(config.items()))},
        encode_texts=encode_texts,
        text_hash=getattr(encode_texts, "text_hash", ""),
        save=partial(_save, module),
    )


def _save(module: Any, folder: Path) -> None:
    """timm's own folder: config.json and the state dict in model.safetensors."""
    from timm.models import save_for_hf

    save_for_hf(module, str(folder), safe_serialization=True)

"""Real architectures of every family, built by the library itself with random weights and few layers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial

import pytest
import torch
from golden import randomise
from torch import nn


@dataclass(frozen=True)
class Case:
    build: Callable[[], nn.Module]
    own: Callable[[nn.Module, torch.Tensor], torch.Tensor]  # the library's own public call
    recent: bool = False  # an option that the lowest supported version of the library lacks


@cache
def built(name: str) -> nn.Module:
    """A case's model, made once; the test is skipped where an older library cannot build it."""
    case = CASES[name]
    try:
        return randomise(case.build())
    except (TypeError, AssertionError) as error:
        if case.recent:
            pytest.skip(f"this version of the library cannot build it: {error}")
        raise


def own_embedding(name: str, images: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return CASES[name].own(built(name), images)


# ---- open_clip


def open_clip_model(name: str, vision: dict | None = None, **options: object) -> nn.Module:
    import open_clip

    config = open_clip.get_model_config(name)
    few = {} if "timm_model_name" in config["vision_cfg"] or name.startswith("RN") else {"layers": 2}
    text = {key: value for key, value in config["text_cfg"].items() if not key.startswith("hf_model")}
    overrides: dict = {
        "vision_cfg": {**config["vision_cfg"], **few, **(vision or {})},
        "text_cfg": {**text, "layers": 1, "vocab_size": 100},
        **options,
    }
    if "multimodal_cfg" in config:
        overrides["multimodal_cfg"] = {**config["multimodal_cfg"], "layers": 1, "vocab_size": 100}
    model = open_clip.create_model(name, pretrained=None, **overrides)
    if hasattr(model.visual, "trunk") and hasattr(model.visual.trunk, "blocks"):
        model.visual.trunk.blocks = model.visual.trunk.blocks[:2]
    return model


def open_clip_own(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return model.encode_image(images, normalize=False)


def tokens_own(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return model.visual(images)[0]


def squeezed_own(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return model.visual(images)[:, 0]


def newer_attention(name: str) -> nn.Module:
    """open_clip's own `Attention` in the ordinary block, as its newer code has it: an out-projection that is called."""
    from open_clip.transformer import Attention

    model = open_clip_model(name)

    class Called(Attention):
        def forward(self, q_x, k_x=None, v_x=None, *, need_weights=False, attn_mask=None):
            return (super().forward(q_x, attn_mask),)

    for block in model.visual.transformer.resblocks:
        block.attn = Called(block.attn.embed_dim, block.attn.num_heads)
    return model


def oc(name: str, vision: dict | None = None, own: Callable = open_clip_own, **options: object) -> Case:
    return Case(partial(open_clip_model, name, vision, **options), own)


CUSTOM = {"qk_norm": True, "scale_heads": True, "scale_attn": True, "scale_fc": True}
# attentional pooling "parallel" norms at the output's width before it pools, so both widths have to be equal
SQUARE = {"width": 512, "head_width": 64}


def timm_model(name: str, **options: object) -> nn.Module:
    import timm

    return timm.create_model(name, pretrained=False, **options)


def timm_own(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    if model.num_classes == 1000:  # made as an ImageNet classifier: its scores are no embedding
        return model.forward_head(model.forward_features(images), pre_logits=True)
    return model(images)


def tm(name: str, recent: bool = False, **options: object) -> Case:
    return Case(partial(timm_model, name, **options), timm_own, recent)


def gated_vit() -> nn.Module:
    from timm.layers import Attention

    class Gated(Attention):
        def __init__(self, *args, **options):
            super().__init__(*args, **options, gated=True)

    return timm_model("vit_base_patch16_224", **CLIP_B, attn_layer=Gated)


def short_resnet() -> nn.Module:
    model = timm_model("resnet50_clip")
    for stage in model.stages:
        del stage[1:]
    return model


def res_post(*args: object, **options: object) -> nn.Module:
    from timm.models.vision_transformer import ResPostBlock

    return ResPostBlock(*args, **options)


CLIP_B = {"depth": 2, "img_size": 96}

# ---- transformers: the base sizes with two layers; text towers as small as they get


VISION = {"num_hidden_layers": 2, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
TEXT = {"num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 64}


def hf_model(name: str, text: dict, vision: dict | None = None) -> nn.Module:
    import transformers

    config = getattr(transformers, f"{name}Config")(
        vision_config={**VISION, "patch_size": 32, **(vision or {})}, text_config={**TEXT, **text}
    )
    return getattr(transformers, f"{name}Model")(config)


def hf_own(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    out = model.get_image_features(pixel_values=images)
    return getattr(out, "pooler_output", out)


def hf_vision(attention: str) -> nn.Module:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    config = CLIPVisionConfig(**VISION, patch_size=32)
    config._attn_implementation = attention
    return CLIPVisionModelWithProjection(config)


def siglip_vision() -> nn.Module:
    from transformers import SiglipVisionConfig, SiglipVisionModel

    return SiglipVisionModel(SiglipVisionConfig(**VISION, patch_size=32))


def projected(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=images).image_embeds


def pooled(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=images).pooler_output


def hf(name: str, text: dict, vision: dict | None = None) -> Case:
    return Case(partial(hf_model, name, text, vision), hf_own)


SIGLIP_TEXT = {"vocab_size": 200, "max_position_embeddings": 64, "projection_size": 768}

CASES: dict[str, Case] = {
    "hf CLIP": hf("CLIP", {"vocab_size": 100}),
    "hf CLIP vision": Case(partial(hf_vision, "eager"), projected),
    "hf SigLIP": hf("Siglip", SIGLIP_TEXT),
    "hf SigLIP vision": Case(siglip_vision, pooled),
    "hf Chinese-CLIP": hf("ChineseCLIP", {"vocab_size": 100}),
    "hf AltCLIP": hf("AltCLIP", {"vocab_size": 100, "project_dim": 64}),
    "hf MetaCLIP 2": hf("MetaClip2", {"vocab_size": 100, "eos_token_id": 2}),
    "open_clip ViT-B-32": oc("ViT-B-32"),
    "open_clip quick-GELU": oc("ViT-B-32-quickgelu"),
    "open_clip layer scale, patch dropout": oc("ViT-B-32", {"ls_init_value": 0.1, "patch_dropout": 0.5}),
    "open_clip average pooling": oc("ViT-B-32", {"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}),
    "open_clip output_tokens": oc("ViT-B-32", {"output_tokens": True}, tokens_own),
    "open_clip own Attention": Case(partial(newer_attention, "ViT-B-32"), open_clip_own),
    "open_clip custom block": oc("ViT-B-32", CUSTOM),
    "open_clip custom block, inner norm": oc("ViT-B-32", {"scale_attn_inner": True}),
    "open_clip CoCa": oc("coca_ViT-B-32"),
    "open_clip CoCa average": oc("coca_ViT-B-32", {"pool_type": "avg", "attn_pooler_queries": 7}),
    "open_clip parallel poolers": oc("ViT-B-32", {"attentional_pool": "parallel", **SQUARE}, squeezed_own),
    "open_clip cascaded poolers": oc("ViT-B-32", {"attentional_pool": "cascade", **SQUARE}, squeezed_own),
    "open_clip SigLIP": oc("ViT-B-16-SigLIP"),
    "open_clip SigLIP 2": oc("ViT-B-32-SigLIP2-256"),
    "open_clip EVA02-CLIP": oc("EVA02-B-16"),
    "open_clip ViTamin": oc("ViTamin-S"),
    "open_clip MobileCLIP-B": oc("MobileCLIP-B"),
    "open_clip Perception Encoder": oc("PE-Core-T-16-384"),
    "timm CLIP": tm("vit_base_patch32_clip_224", depth=2),
    "timm average pooling, registers": tm("vit_base_patch16_224", **CLIP_B, global_pool="avg", reg_tokens=2),
    "timm average pooling over all": tm("vit_base_patch16_224", **CLIP_B, global_pool="avg", pool_include_prefix=True),
    "timm maximum pooling": tm("vit_base_patch16_224", **CLIP_B, global_pool="avgmax", init_values=0.1),
    "timm SigLIP, registers": tm("vit_base_patch16_siglip_224", **CLIP_B, class_token=True, reg_tokens=1),
    "timm refined pooling": tm("vit_base_patch16_224", True, **CLIP_B, global_pool="prr"),
    "timm qk-norm": tm("vit_base_patch16_224", **CLIP_B, qk_norm=True),
    "timm norm before the projection": tm("vit_base_patch16_224", **CLIP_B, scale_attn_norm=True),
    "timm gate before the projection": Case(gated_vit, timm_own, recent=True),
    "timm post-norm": tm("vit_base_patch16_224", **CLIP_B, block_fn=res_post),
    "timm dynamic size": tm("vit_base_patch16_224", **CLIP_B, dynamic_img_size=True),
    "timm EVA02, average": tm("eva02_base_patch16_clip_224", depth=2, img_size=96, global_pool="avg"),
    "timm EVA02 post-norm": tm("eva02_base_patch16_clip_224", True, depth=2, img_size=96, use_post_norm=True),
    "timm EVA, mixed rotary": tm("vit_small_patch16_rope_mixed_224", depth=2, img_size=96),
    "timm RN50": Case(short_resnet, timm_own),
    "open_clip RN50": oc("RN50", {"layers": [1, 1, 1, 1]}),
}

"""A CLIP of open_clip as a CLIP of transformers, where transformers has the same parts.

In: an open_clip model (folded), its tokenizer and preprocessing. Out: a folder of `CLIPModel` with its processor, or a
refusal that says what transformers' CLIP has no place for. Whether it computes the same is found out by whoever asks.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from headwise.errors import HeadwiseError
from headwise.shipping.convert import RESAMPLE, table
from headwise.towers.hf_load import quiet
from headwise.towers.open_clip_weights import Loaded

ACTIVATIONS = {"QuickGELU": "quick_gelu", "GELU": "gelu"}  # open_clip's class → transformers' name
ENDS = ("<|startoftext|>", "<|endoftext|>")


def write_hf(model: Loaded, folder: Path, name: str) -> None:
    """Write an open_clip CLIP as a folder of transformers.

    Arguments:
        model: of open_clip, with its tokenizer.
        folder: exists.
        name: of the model, for messages.

    Raises:
        HeadwiseError: a model that has parts which transformers' `CLIPModel` lacks, or preprocessing that its processor has no
            words for.
    """
    from transformers import CLIPConfig, CLIPModel, CLIPProcessor

    parts = _Parts(model.module, name)
    words = _tokenizer(model.tokenizer, parts)
    words.model_max_length = model.overrides.context_length or parts.text.positional_embedding.shape[0]
    config = CLIPConfig(
        text_config=parts.text_config(words), vision_config=parts.vision_config(), projection_dim=parts.width
    )
    images = _images(model.module.visual.preprocess_cfg, parts)
    with torch.device("meta"):
        shapes = CLIPModel(config).state_dict()
    with quiet():
        made = CLIPModel.from_pretrained(None, config=config, state_dict=parts.renamed(shapes), dtype=torch.float32)
        made.save_pretrained(folder)
    CLIPProcessor(images, words).save_pretrained(folder)


def check_parts(module: Any, name: str) -> None:
    """
    Raises:
        HeadwiseError: an open_clip model with parts that transformers' `CLIPModel` lacks; asked before anything is written.
    """
    _Parts(module, name)


class _Parts:
    """An open_clip model, looked at as a transformers CLIP.

    Arguments:
        module: the open_clip model.
        name: of it, for messages.

    Raises:
        HeadwiseError: it is none.
    """

    def __init__(self, module: Any, name: str) -> None:
        self.name, self.module, self.visual = name, module, module.visual
        self.text = getattr(module, "text", module)
        if type(module).__name__ not in ("CLIP", "CustomTextCLIP"):
            raise self.refusal(f"it is a {type(module).__name__}, which has more than two towers")
        if not hasattr(self.visual, "conv1") or not hasattr(getattr(self.visual, "transformer", None), "resblocks"):
            raise self.refusal(
                f"its image tower is a {type(self.visual).__name__} around other parts than CLIP's blocks"
            )
        if not hasattr(getattr(self.text, "transformer", None), "resblocks"):
            raise self.refusal(f"its text tower is a {type(self.text).__name__}")
        pooled = (
            getattr(self.visual, "pool_type", "tok"),
            getattr(module, "text_pool_type", getattr(self.text, "pool_type", "argmax")),
        )
        if pooled[0] != "tok" or pooled[1] not in ("argmax", "eos"):
            raise self.refusal(f"it pools by {pooled[0]} and {pooled[1]}, not by class token and end of text")
        if self.text.attn_mask is None:
            raise self.refusal("its text tower looks ahead")
        if len({*self.visual.image_size}) > 1 or len({*self.visual.patch_size}) > 1:
            raise self.refusal("its pictures or patches are not square")
        self.table = list(table(len(self.visual.transformer.resblocks), len(self.text.transformer.resblocks)))
        self.own = {key.removeprefix("text.") if self.text is not module else key: key for key in module.state_dict()}
        wanted = {own for own, *_ in self.table}
        if extra := sorted(self.own.keys() - wanted):
            raise self.refusal(f"there is no place for its {extra[0]}")
        if missing := sorted(wanted - self.own.keys()):
            raise self.refusal(f"it has no {missing[0]}")
        self.width = self.visual.proj.shape[1]

    def refusal(self, reason: str) -> HeadwiseError:
        return HeadwiseError(
            f"{self.name} cannot be written for transformers' CLIPModel: {reason}. Use --to open_clip, --to onnx or --to torch."
        )

    def vision_config(self) -> dict[str, Any]:
        return {
            "image_size": self.visual.image_size[0],
            "patch_size": self.visual.patch_size[0],
            **self._blocks(self.visual.transformer, self.visual.ln_pre),
        }

    def text_config(self, words: Any) -> dict[str, Any]:
        return {
            "vocab_size": self.text.token_embedding.num_embeddings,
            "max_position_embeddings": self.text.positional_embedding.shape[0],
            "bos_token_id": words.bos_token_id,
            "eos_token_id": words.eos_token_id,
            "pad_token_id": words.pad_token_id,
            **self._blocks(self.text.transformer, self.text.ln_final),
        }

    def _blocks(self, transformer: Any, norm: Any) -> dict[str, Any]:
        block = transformer.resblocks[0]
        activation = type(getattr(block.mlp, "gelu", None)).__name__
        if activation not in ACTIVATIONS or getattr(block.mlp.gelu, "approximate", "none") != "none":
            raise self.refusal(f"its activation is {activation}")
        if not hasattr(norm, "eps") or not hasattr(block.attn, "num_heads"):
            raise self.refusal("it has other norms or other attention")
        return {
            "hidden_size": block.ln_1.normalized_shape[0],
            "intermediate_size": block.mlp.c_fc.out_features,
            "num_hidden_layers": len(transformer.resblocks),
            "num_attention_heads": block.attn.num_heads,
            "hidden_act": ACTIVATIONS[activation],
            "layer_norm_eps": norm.eps,
            "projection_dim": self.width,
        }

    def renamed(self, wanted: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The weights by transformers' names.

        Arguments:
            wanted: transformers' own parameters; their shapes count.

        Raises:
            HeadwiseError: a weight of another shape.
        """
        state, found = self.module.state_dict(), dict[str, torch.Tensor]()
        for own, theirs, turned in self.table:
            tensor = state[self.own[own]].detach().float().cpu()
            parts = tensor.chunk(len(theirs)) if theirs[1:] else [tensor.T if turned else tensor]
            for key, part in zip(theirs, parts, strict=True):
                if part.numel() != wanted[key].numel():
                    raise self.refusal(f"its {own} has the shape {tuple(tensor.shape)}")
                found[key] = part.reshape(wanted[key].shape).contiguous().clone()
        return found


def _images(preprocess: dict[str, Any], parts: _Parts) -> Any:
    """transformers' image processor that does what open_clip's configuration says."""
    from transformers import CLIPImageProcessor

    numbers = {name: number for number, name in RESAMPLE.items()}
    side, mode = parts.visual.image_size[0], preprocess.get("resize_mode") or "shortest"
    interpolation = preprocess.get("interpolation") or "bicubic"
    if mode not in ("shortest", "squash") or interpolation not in numbers or (preprocess.get("mode") or "RGB") != "RGB":
        raise parts.refusal(f"its pictures are prepared by {mode}, {interpolation}, {preprocess.get('mode')}")
    return CLIPImageProcessor(
        size={"shortest_edge": side} if mode == "shortest" else {"height": side, "width": side},
        do_center_crop=mode == "shortest",
        crop_size={"height": side, "width": side},
        resample=numbers[interpolation],
        image_mean=list(preprocess["mean"]),
        image_std=list(preprocess["std"]),
    )


def _tokenizer(tokenizer: Any, parts: _Parts) -> Any:
    """transformers' tokenizer with the same vocabulary: the one that open_clip's holds, or CLIP's of open_clip's own words."""
    from transformers import CLIPTokenizer

    if (inner := getattr(tokenizer, "tokenizer", None)) is not None:
        if getattr(tokenizer, "tokenizer_mode", "") or inner.eos_token_id is None:
            raise parts.refusal("its tokenizer ends texts in a way of its own")
        return inner
    if not hasattr(tokenizer, "bpe_ranks") or getattr(tokenizer, "reduction_fn", None) is not None:
        raise parts.refusal(f"its tokenizer is a {type(tokenizer).__name__}")
    first = len(tokenizer.encoder) - len(ENDS)  # the two marks are the last of the vocabulary, under other names here
    vocabulary = {word: number for word, number in tokenizer.encoder.items() if number < first}
    vocabulary |= {word: first + number for number, word in enumerate(ENDS)}
    return CLIPTokenizer(vocab=vocabulary, merges=list(tokenizer.bpe_ranks))

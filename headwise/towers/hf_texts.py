"""Texts of transformers models: tokens as each family was trained, and whether the tokenizer is the model's own.

In: the library's model and tokenizer. Out: texts → tokens → embeddings (T, E), and where texts are cut. Pictures are
not looked at.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F

from headwise.errors import HeadwiseError
from headwise.towers.overrides import Overrides
from headwise.towers.texts import UNCUT, Reading, as_it_was, check_end, check_tokenizer

TEXT_BATCH = 256
PADDED_BY_ID = ("chinese_clip", "altclip")  # of BERT's kind; CLIP's configurations say a padding that was never used
CHINESE_CONTEXT = 52  # what Chinese-CLIP was trained with; its BERT configuration says 512


def own_context(module: Any) -> int:
    """The most tokens that the text tower was trained to read.

    Chinese-CLIP was trained with fewer than its configuration says. RoBERTa's positions (AltCLIP) start after the
    padding index.
    """
    config = module.config.text_config
    if module.config.model_type == "chinese_clip":
        return min(CHINESE_CONTEXT, config.max_position_embeddings)
    if module.config.model_type == "altclip":
        return config.max_position_embeddings - config.pad_token_id - 1
    return config.max_position_embeddings


def tokenize(
    module: Any, tokenizer, texts: Sequence[str], limit: int | None = None, said: int | None = None
) -> dict[str, torch.Tensor]:
    """Texts → the text tower's inputs, (T, context) each, as the family was trained.

    SigLIP reads the last position, padding included, so its texts are padded to its full context, and lower-cased
    as in its training (SigLIP 2's checkpoints come with a tokenizer that does not do it).

    Arguments:
        limit: cut at so many tokens; None: at the model's context.
        said: the tokenizer's own limit when `limit` was chosen; one that was set on it since then counts.
    """
    whole = own_context(module)
    limit, last = limit or whole, module.config.model_type == "siglip"
    if said is not None and tokenizer.model_max_length != said:
        limit = min(whole, tokenizer.model_max_length)
    with as_it_was(tokenizer):
        tokens = tokenizer(
            [text.lower() for text in texts] if last else list(texts),
            padding="max_length" if last else True,
            truncation=True,
            max_length=limit,
            return_tensors="pt",
        )
    if last and limit < whole:
        fill = {"input_ids": tokenizer.pad_token_id}
        tokens = {key: F.pad(value, (0, whole - limit), value=fill.get(key, 0)) for key, value in tokens.items()}
    accepted = inspect.signature(module.get_text_features).parameters
    return {key: value for key, value in tokens.items() if key in accepted}


def reading(module: Any, tokenizer, overrides: Overrides, name: str) -> tuple[Reading, tuple[str, ...]]:
    """How the model reads texts, after checking that the tokenizer is whole; and what there is to say about it.

    Raises:
        HeadwiseError: a tokenizer without its files or of another model; a context that the model does not have.
    """
    whole, asked = own_context(module), overrides.context_length
    most = module.config.text_config.max_position_embeddings
    most = most if module.config.model_type == "chinese_clip" else whole
    if asked is not None and asked > most:
        raise HeadwiseError(f"{name} has positions for {most} tokens; a context length of {asked} is more.")
    limit, said = asked or whole, tokenizer.model_max_length

    def ids(texts: Sequence[str]) -> torch.Tensor:
        return tokenize(module, tokenizer, texts, limit, said)["input_ids"]  # (T, L)

    def lengths(texts: Sequence[str]) -> list[int]:
        own = [text.lower() for text in texts] if module.config.model_type == "siglip" else list(texts)
        with as_it_was(tokenizer):
            rows = tokenizer(own, truncation=False, padding=False, max_length=UNCUT)["input_ids"]
        return [len(row) for row in rows]

    rows = _table(module.text_model).num_embeddings
    check_tokenizer(tokenizer, ids, rows, name)
    padding, own = tokenizer.pad_token_id, module.config.text_config.pad_token_id
    if module.config.model_type in PADDED_BY_ID and own is not None and padding != own:
        raise HeadwiseError(
            f"{name}: the tokenizer pads with token {padding}, the model was trained with {own} for padding: their "
            "vocabularies are shifted against each other, or another model's. Give the model's own with --processor DIR "
            "(processor=)."
        )
    notes = check_end(module, ids(["a cat", "a dog on a red table"]), rows, name)
    if asked is None and tokenizer.model_max_length < whole:
        notes = (
            *notes,
            f"{name}: its tokenizer says at most {tokenizer.model_max_length} tokens, the model reads {whole}; texts "
            f"are cut at {whole}. (--context-length {tokenizer.model_max_length} cuts as the tokenizer says.)",
        )
    return Reading(limit, ids, lengths), notes


def _table(text_model: Any) -> torch.nn.Embedding:
    """The embeddings that token ids look up: the largest table of the text tower."""
    tables = [part for part in text_model.modules() if isinstance(part, torch.nn.Embedding)]
    named = [part for name, part in text_model.named_modules() if name.endswith(("token_embedding", "word_embeddings"))]
    return (named or sorted(tables, key=lambda table: -table.num_embeddings))[0]


def encoder(module: Any, tokens: Callable) -> Callable[[Sequence[str]], torch.Tensor]:
    """Texts → embeddings (T, E), float32, not normalised, of what `tokens` makes of them."""
    return partial(_encode_texts, module, tokens)


@torch.inference_mode()
def _encode_texts(module: Any, tokens: Callable, texts: Sequence[str]) -> torch.Tensor:
    device = module.logit_scale.device
    out = []
    for start in range(0, len(texts), TEXT_BATCH):
        inputs = tokens(texts[start : start + TEXT_BATCH])
        features = module.get_text_features(**{key: value.to(device) for key, value in inputs.items()})
        out.append(getattr(features, "pooler_output", features).float())  # (T, E)
    return torch.cat(out)

"""Texts of open_clip models: open_clip's own tokenizers, and where they cut.

In: the library's model and tokenizer. Out: texts → tokens → embeddings (T, E). Pictures are not looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from headwise.errors import HeadwiseError
from headwise.towers.overrides import Overrides
from headwise.towers.texts import PROBE, UNCUT, Reading, as_it_was, check_tokenizer

TEXT_BATCH = 256


def reading(module: Any, tokenizer: Any, overrides: Overrides, name: str) -> Reading | None:
    """How an open_clip model reads texts; None for a tokenizer that is not open_clip's.

    With a context length of its own, a text is cut there and padded to the model's context: the position table is
    used as it is, where open_clip's `force_context_length` would interpolate it.

    Raises:
        HeadwiseError: a tokenizer that is not whole or of another model; a context that the model does not have.
    """
    inner = getattr(tokenizer, "tokenizer", None)  # HFTokenizer and SigLipTokenizer hold one of transformers
    context = getattr(tokenizer, "context_length", None)
    own_class = type(tokenizer).__module__.startswith("open_clip.")
    if not own_class or not isinstance(context, int):
        return None
    whole = positions(module) or context
    asked = overrides.context_length
    if asked is not None and asked > whole:
        raise HeadwiseError(f"{name} has positions for {whole} tokens; a context length of {asked} is more.")
    if asked is not None and getattr(tokenizer, "tokenizer_mode", ""):
        overrides.refuse("context_length", reason=f"{name} puts a token of its own at the end of every text.")
    limit = asked or whole
    padding = 0 if inner is None else inner.pad_token_id or 0

    def ids(texts: Sequence[str]) -> torch.Tensor:
        with as_it_was(inner):
            found = tokenizer(list(texts), context_length=limit)  # (T, limit)
        return F.pad(found, (0, whole - limit), value=padding)  # (T, context)

    def lengths(texts: Sequence[str]) -> list[int]:
        if inner is None:
            return [len(tokenizer.encode(text)) + 2 for text in texts]
        clean = getattr(tokenizer, "clean_fn", None) or _canonical
        with as_it_was(inner):
            rows = inner([clean(text) for text in texts], truncation=False, padding=False, max_length=UNCUT)[
                "input_ids"
            ]
        return [len(row) for row in rows]

    if (rows := _rows(module)) is not None:
        if inner is not None:
            check_tokenizer(inner, ids, rows, name)
        elif (largest := int(ids([PROBE]).max())) >= rows:
            raise HeadwiseError(
                f"{name}: open_clip's tokenizer gives the id {largest:,}, the model has embeddings of {rows:,}. The "
                "tokenizer is not the model's; give its own: headwise.wrap(model, (preprocess, tokenizer))."
            )
    return Reading(limit, ids, lengths)


def _canonical(text: str) -> str:
    from open_clip.tokenizer import basic_clean, canonicalize_text

    return canonicalize_text(basic_clean(text))


def positions(module: Any) -> int | None:
    """Positions of an open_clip model's text tower for tokens, where they are a table."""
    for owner in (module, getattr(module, "text", None)):
        table = getattr(owner, "positional_embedding", None)
        if isinstance(table, torch.Tensor) and table.dim() == 2:
            extra = 1 if getattr(owner, "cls_emb", None) is not None else 0  # CoCa's class token has a position, too
            return table.shape[0] - extra
    return None


def _rows(module: Any) -> int | None:
    """Rows of the table of text embeddings."""
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.Embedding) and not name.startswith("visual") and "position" not in name:
            return part.num_embeddings
    return None


def named_ids(tokenize: Callable, texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Texts → what the text tower is given, by name."""
    return {"text": tokenize(list(texts))}


def plain_ids(tokenizer: Any, texts: Sequence[str]) -> torch.Tensor:
    """Texts → token ids (T, L) of a tokenizer of which nothing is known."""
    with as_it_was(getattr(tokenizer, "tokenizer", None)):
        return tokenizer(list(texts))


@torch.inference_mode()
def encode_texts(module: Any, tokenize: Callable, texts: Sequence[str]) -> torch.Tensor:
    """Texts → embeddings (T, E), float32, not normalised."""
    device = next(module.parameters()).device
    out = []
    for start in range(0, len(texts), TEXT_BATCH):
        tokens = tokenize(list(texts[start : start + TEXT_BATCH])).to(device)  # (T, context)
        out.append(module.encode_text(tokens, normalize=False).float())  # (T, E); CoCa would normalise
    return torch.cat(out)

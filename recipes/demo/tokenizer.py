"""A small CLIP tokenizer learned from the training captions."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers, trainers
from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"
CONTEXT = 32


def train_tokenizer(counts: Counter[str], vocab_size: int) -> CLIPTokenizer:
    """Learn byte-level BPE merges with CLIP's own normaliser and word splitter.

    Every byte is in the vocabulary with and without the end-of-word mark, as in the original CLIP
    vocabulary, so that no text maps to the unknown token (which is the end token: it would end the
    sentence early).

    Arguments:
        counts: training texts and how often each is seen.
        vocab_size: entries including the 512 bytes and the two marks.
    Returns:
        A tokenizer that pads with the end token.
    """
    backend = CLIPTokenizer().backend_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[START, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        end_of_word_suffix="</w>",
        show_progress=False,
    )
    texts = (text for text, n in counts.items() for _ in range(n))
    backend.train_from_iterator(texts, trainer)
    merges = _merges(backend.to_str())

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokens = alphabet + [c + "</w>" for c in alphabet]
    merges = merges[: vocab_size - len(tokens) - 2]
    tokens += list(dict.fromkeys("".join(pair) for pair in merges))
    tokens += [START, END]
    vocab = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    known: Any = merges  # annotated as strings, takes pairs
    return CLIPTokenizer(vocab=vocab, merges=known, model_max_length=CONTEXT)


def _merges(tokenizer_json: str) -> list[tuple[str, str]]:
    pairs = json.loads(tokenizer_json)["model"]["merges"]
    return [(a, b) for a, b in (p.split(" ") if isinstance(p, str) else p for p in pairs)]


def save_tokenizer(tokenizer: CLIPTokenizer, folder: Path) -> None:
    """Write tokenizer.json and the classic vocab.json and merges.txt (older readers want these two)."""
    # The last call's padding and cut would be saved as defaults, and then warn when a reader sets its own.
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.save_pretrained(folder)
    tokenizer.backend_tokenizer.model.save(str(folder))


def encode(tokenizer: CLIPTokenizer, texts: Iterable[str]) -> torch.Tensor:
    """Token ids (n, longest), padded with the end token and cut to the context length."""
    out = tokenizer(list(texts), padding=True, truncation=True, max_length=CONTEXT, return_tensors="pt")
    return out["input_ids"]

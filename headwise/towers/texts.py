"""How a model reads texts: the tokens it sees, where it cuts, and whether its tokenizer is whole.

In: a tokenizer and the table that its ids look up. Out: `Reading`; how many texts are cut; a refusal of a tokenizer
that is not the model's own. It knows no library's model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from headwise.errors import HeadwiseError

AT_ONCE = 4096
UNCUT = 10**6  # as a limit without truncation: transformers does not warn of long texts, which are meant
PROBE = "the quick brown fox jumps over the lazy dog 0123456789"
# A tokenizer without its files knows a handful of tokens. A table is padded by a few hundred rows at most.
LEAST_SHARE, MOST_SHARE_ABSENT, ROWS_ABSENT = 0.25, 0.1, 1024
WORDPIECE_ABSENT = 256  # BERT's tables are as long as their vocab.txt, or padded to a multiple of at most this
WORDS = 200  # of the vocabulary that are looked up
FEWEST_WORDS = 20  # fewer say nothing
LEAST_WHOLE = 0.75  # of them that the tokenizer makes one token of; OpenAI's makes all


@dataclass(frozen=True)
class Reading:
    """How a text tower reads texts.

    Arguments:
        context: most tokens of a text, special ones included; longer texts are cut.
        ids: texts → token ids as the tower gets them, (T, L), padded.
        lengths: texts → tokens of each whole text, uncut, special ones included.
    """

    context: int
    ids: Callable[[Sequence[str]], torch.Tensor]
    lengths: Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class Cut:
    """What cutting did to a set of texts.

    Arguments:
        tokens: where texts are cut.
        texts: how many were.
        equal: how many different texts became equal to another by it.
    """

    tokens: int
    texts: int
    equal: int

    @property
    def sentence(self) -> str:
        """For people."""
        became = f"; {self.equal:,} of them became equal to another" if self.equal else ""
        which = "caption is" if self.texts == 1 else "captions are"
        return (
            f"{self.texts:,} {which} longer than the {self.tokens} tokens that the model reads and cut there{became}."
        )


def cut(reading: Reading, texts: Sequence[str]) -> Cut:
    """How many of these texts (each counted once) are longer than the context, and how many are the same afterwards."""
    unique = list(dict.fromkeys(texts))
    long: list[str] = []
    for start in range(0, len(unique), AT_ONCE):
        part = unique[start : start + AT_ONCE]
        long += [text for text, length in zip(part, reading.lengths(part), strict=True) if length > reading.context]
    same: dict[bytes, int] = defaultdict(int)
    for start in range(0, len(long), AT_ONCE):
        for row in reading.ids(long[start : start + AT_ONCE]).cpu():
            same[row.numpy().tobytes()] += 1
    return Cut(reading.context, len(long), sum(count for count in same.values() if count > 1))


# ---- is the tokenizer whole


def check_tokenizer(tokenizer: Any, ids: Callable[[Sequence[str]], torch.Tensor], rows: int, name: str) -> None:
    """Compare a transformers tokenizer with the table of text embeddings that its ids look up.

    Arguments:
        tokenizer: of transformers.
        ids: texts → what the text tower gets, (T, L).
        rows: of the table.
        name: the model, for messages.

    Raises:
        HeadwiseError: files of the tokenizer are missing, or it is another model's.
    """
    way_out = (
        "Its files (tokenizer.json, or vocab.json with merges.txt, vocab.txt, spiece.model; tokenizer_config.json) are "
        "missing, incomplete or another model's. Copy them from the original model, or give a folder that has them "
        "with --processor DIR (processor= in Python)."
    )
    size, backend = len(tokenizer), getattr(tokenizer, "backend_tokenizer", None)
    wordpiece = type(getattr(backend, "model", None)).__name__ == "WordPiece"
    most = WORDPIECE_ABSENT if wordpiece else max(MOST_SHARE_ABSENT * rows, ROWS_ABSENT)
    if size < LEAST_SHARE * rows or rows - size > most:
        raise HeadwiseError(
            f"{name}: the tokenizer knows {size:,} tokens, the model has embeddings of {rows:,}. {way_out}"
        )
    largest = int(ids([PROBE, "", *(chr(n) for n in range(33, 127))]).max())
    if largest >= rows:
        raise HeadwiseError(
            f"{name}: the tokenizer gives the id {largest:,}, the model has embeddings of {rows:,}. {way_out}"
        )
    plain = _pieces(tokenizer, [PROBE])[0]
    unknown = sum(token == tokenizer.unk_token_id for token in plain) if tokenizer.unk_token_id is not None else 0
    if not plain or unknown * 4 > len(plain):
        raise HeadwiseError(
            f"{name}: the tokenizer does not know {unknown} of {len(plain)} pieces of {PROBE!r}. {way_out}"
        )
    words, whole = _whole_words(tokenizer)
    if words >= FEWEST_WORDS and whole < LEAST_WHOLE * words:
        raise HeadwiseError(
            f"{name}: of {words} words in the tokenizer's own vocabulary it takes {words - whole} apart, so its merges "
            f"are missing. {way_out}"
        )


def check_end(module: Any, ids: torch.Tensor, rows: int, name: str) -> tuple[str, ...]:
    """What there is to say about a text tower that pools at an end token.

    Arguments:
        module: of transformers.
        ids: of some texts, (T, L).
        rows: of the table of text embeddings.
        name: the model, for messages.

    Raises:
        HeadwiseError: the tokenizer does not write the model's end token.
    """
    end = getattr(module.config.text_config, "eos_token_id", None)
    kind = module.config.model_type
    if kind not in ("clip", "metaclip_2") or end is None or (kind == "clip" and end == 2):
        return ()  # others pool at a place; CLIP's old configurations say 2 and mean the largest id
    if bool((ids == end).any(dim=1).all()):
        return ()
    if end >= rows:
        return (
            f"{name}: config.json says that texts end with token {end}, which is not among the {rows:,} of the model, "
            "so transformers reads every text at its first token. Correct eos_token_id of its text_config.",
        )
    raise HeadwiseError(
        f"{name}: the model reads a text at its end token, {end}, and the tokenizer writes none. It is another "
        "model's, or its special tokens are missing; give the right one with --processor DIR (processor=)."
    )


def _whole_words(tokenizer: Any) -> tuple[int, int]:
    """How many of some plain words of the vocabulary there are, and how many the tokenizer makes one token of."""
    marked = sorted(
        (token, piece) for piece, token in tokenizer.get_vocab().items() if (word := _word(piece)) and len(word) > 2
    )
    chosen = marked[:: max(1, len(marked) // WORDS)]
    if not chosen:
        return 0, 0
    whole: set[int] = set()
    for before in ("", " "):  # some tokenizers know words by the space before them
        found = _pieces(tokenizer, [before + _word(piece) for _, piece in chosen])
        whole |= {token for (token, _), got in zip(chosen, found, strict=True) if token in got}
    return len(chosen), len(whole)


def _pieces(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The ids of whole texts, without special tokens."""
    with as_it_was(tokenizer):
        return tokenizer(list(texts), add_special_tokens=False, truncation=False, max_length=UNCUT)["input_ids"]


def _word(piece: str) -> str:
    """The word that a piece stands for by itself, '' for the inside of a word or anything but lower-case letters."""
    for start in ("▁", "Ġ"):
        if piece.startswith(start):
            piece = piece[1:]
            break
    else:
        if not piece.endswith("</w>"):
            return ""
        piece = piece.removesuffix("</w>")
    return piece if piece.isascii() and piece.isalpha() and piece.islower() else ""


@contextmanager
def as_it_was(tokenizer: Any) -> Iterator[None]:
    """A call's truncation and padding stay in a fast tokenizer and would be saved with it; here they are put back."""
    backend = getattr(tokenizer, "backend_tokenizer", None) or getattr(tokenizer, "_tokenizer", None)
    if backend is None or not hasattr(backend, "enable_truncation"):
        yield
        return
    truncation, padding = backend.truncation, backend.padding
    try:
        yield
    finally:
        _put_back(backend.enable_truncation, backend.no_truncation, truncation)
        _put_back(backend.enable_padding, backend.no_padding, padding)


def _put_back(enable: Callable, disable: Callable, former: Mapping | None) -> None:
    if former is None:
        disable()
    else:
        enable(**former)

"""The contract that every image tower fulfils; nothing outside `towers/` knows which library it wraps.

    stem(images (B, 3, R, R)) → x (B, N, D);   blocks: x → x;   pool(x) → e (B, E)

In: a library's model. Out: `Tower` (the image side, cut into rows of heads) and `Model` (a tower with its preprocessing
and text encoder).
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from headwise.edits.edit import KINDS, Edit
from headwise.edits.heads import Grid, Head
from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.towers.blocks import Block
from headwise.towers.overrides import Overrides
from headwise.towers.texts import Reading

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True, repr=False)
class Tower:
    """An image encoder as stem → blocks → pool.

    Arguments:
        parts: the library's modules that the tower consists of (shared, not copied).
        build: makes a tower of the same kind from such parts.
        blocks: one per row of the grid.
        grid: heads per row.
        stem: images (B, 3, R, R) → residual stream before the first block (B, N, D).
        pool: the rows of the last residual stream that pooling reads (B, Q, D) → embeddings (B, E).
        encode: the library's own forward, images (B, 3, R, R) → embeddings (B, E), not normalised.
        reads: the rows that pooling reads (None: all).
        tokens: N.
        resolution: R in pixels.
        pooling: what the library calls its pooling, for printing.
        class_token: row 0 is a class token.
        family: the library and architecture, for printing.
    """

    parts: nn.ModuleList
    build: Callable[[nn.ModuleList], Tower]
    blocks: tuple[Block, ...]
    grid: Grid
    stem: Callable[[torch.Tensor], torch.Tensor]
    pool: Callable[[torch.Tensor], torch.Tensor]
    encode: Callable[[torch.Tensor], torch.Tensor]
    reads: slice | None
    tokens: int
    resolution: int
    pooling: str
    class_token: bool
    family: str

    def __repr__(self) -> str:
        return (
            f"Tower({self.family}: {self.grid}, {self.pooling} pooling, {self.resolution} pixels, {self.tokens} tokens)"
        )

    @property
    def parameter(self) -> torch.Tensor:
        """The first parameter, which says where the tower is."""
        return next(self.parts.parameters())

    @property
    def device(self) -> torch.device:
        """Where its parameters are."""
        return self.parameter.device

    @property
    def dtype(self) -> torch.dtype:
        """The precision that images enter in: of the first convolution (norms may stay in float32)."""
        return next((p for p in self.parts.parameters() if p.dim() == 4), self.parameter).dtype

    @cached_property
    def weights_hash(self) -> str:
        """Hash of the image tower's parameters, read as float32."""
        return weights_hash(self.parts)

    def queries(self, row: int) -> slice | None:
        """The rows of the residual stream that row `row` of the grid has to compute."""
        return self.reads if row == len(self.blocks) - 1 and self.blocks[row].tokenwise else None

    def query_count(self, row: int) -> int:
        """How many query rows a row of heads computes: all tokens, or those that pooling reads."""
        if not self.blocks[row].tokenwise:
            return self.blocks[row].latents
        queries = self.queries(row)
        return self.tokens if queries is None else len(range(self.tokens)[queries])

    def cast(self, device: torch.device | str, dtype: torch.dtype) -> Tower:
        """This tower on another device or in another precision; a copy only where something changes.

        A device without a number, `cuda`, is any of its kind: a tower on `cuda:0` is there.
        """
        wanted = torch.device(device)
        there = self.device.type == wanted.type and wanted.index in (None, self.device.index)
        if there and self.dtype == dtype:
            return self
        return self.build(copy.deepcopy(self.parts).to(device=device, dtype=dtype))

    def check_edit(self, edit: Edit | str) -> None:
        """
        Raises:
            HeadwiseError: no edit, or one that the heads of this tower cannot have.
        """
        edit = Edit.parse(edit) if isinstance(edit, str) else edit
        if not self.letters and edit.letters:
            raise HeadwiseError(
                f"{self.family} is an export: its heads can no longer be edited. Give the model that it was made from."
            )
        for letter in edit.letters:
            if letter.name not in self.letters:
                reason = (
                    f"needs a class token; {self.family} has none"
                    if letter.kind.class_token and not self.class_token
                    else f"is not defined for the attention pooling of {self.family}, whose queries are not tokens"
                )
                raise HeadwiseError(f"'{letter.name}' {reason}. Use one of: {', '.join(self.letters)}.")

    def check_mask(self, mask: Mask) -> None:
        """
        Raises:
            HeadwiseError: an edit that its head cannot have, or arrays of another width than the head's.
        """
        for head, edit in mask.edits.items():
            self.check_edit(edit)
            block = self.blocks[mask.grid.row_of(head)]
            for letter in edit.letters:
                if letter.name not in block.letters:
                    raise HeadwiseError(
                        f"'{letter.name}' is not defined for {head}, a head of the attention pooling, whose queries are "
                        f"not tokens. Use one of: {', '.join(name for name in KINDS if name in block.letters)}."
                    )
                if letter.width not in (None, block.head_dim):
                    raise HeadwiseError(
                        f"The edit '{letter.name}' of {head} has arrays for {letter.width} values; this model's head has "
                        f"{block.head_dim}. It was found on another model."
                    )

    def able(self, edit: Edit | str) -> tuple[Head, ...]:
        """The heads that can have an edit: those of pooling cannot have every one."""
        edit = Edit.parse(edit) if isinstance(edit, str) else edit
        names = {letter.name for letter in edit.letters}
        return tuple(head for head in self.grid if names <= self.blocks[self.grid.row_of(head)].letters)

    @property
    def letters(self) -> tuple[str, ...]:
        """The letters that are defined for every block of this tower (the pooling row may have fewer)."""
        rows = [block for block in self.blocks if block.tokenwise] or list(self.blocks)
        return tuple(
            name
            for name, kind in KINDS.items()
            if (self.class_token or not kind.class_token) and all(name in block.letters for block in rows)
        )

    @property
    def foldable(self) -> tuple[str, ...]:
        """The letters that fold exactly into every block of this tower that can have them."""
        able = [name for name in self.letters if any(name in block.folds for block in self.blocks)]
        return tuple(n for n in able if all(n in b.folds for b in self.blocks if n in b.letters))


@dataclass(frozen=True, repr=False)
class Model:
    """An image tower with its library's own preprocessing and text encoder.

    Arguments:
        name: as the user typed it.
        tower: the image tower.
        module: the library's model.
        preprocess: a picture → pixels (3, R, R), float32.
        preprocess_spec: what the library says of its preprocessing, for reading; no key relies on it.
        encode_texts: texts → embeddings (T, E), float32, not normalised; None where there is no text tower.
        tokenize: texts → what the text tower is given (token ids, masks), by name; None where that is not known.
        text_hash: hash of the text tower's parameters.
        logit_scale, logit_bias: similarity → logit.
        loss: `softmax` (CLIP) or `sigmoid` (SigLIP).
        save: writes the model, weights as they are now, into a folder in the library's own format.
        reading: how the text tower reads texts; None where that is not known.
        notes: what a user should know of how the model was read; `load` and `wrap` say it.
        overrides: what was done otherwise than its files say.
        source: what it was loaded by, `LIBRARY:REFERENCE`, so that what is saved is stored as it was there; empty for
            a model object that was given.
    """

    name: str
    tower: Tower
    module: nn.Module
    preprocess: Callable[[Image], torch.Tensor]
    preprocess_spec: Mapping[str, object]
    save: Callable[[Path], None]
    encode_texts: Callable[[Sequence[str]], torch.Tensor] | None = None
    tokenize: Callable[[Sequence[str]], Mapping[str, torch.Tensor]] | None = None
    text_hash: str = ""
    logit_scale: float = 100.0
    logit_bias: float = 0.0
    loss: str = "softmax"
    reading: Reading | None = None
    notes: tuple[str, ...] = ()
    overrides: Overrides = field(default_factory=Overrides)
    source: str = ""

    def __repr__(self) -> str:
        return f"Model({self.name!r}: {self.tower!r}{'' if self.encode_texts else ', no text tower'})"


def weights_hash(module: nn.Module, *, skip: tuple[str, ...] = ()) -> str:
    """Hash of a module's parameters and persistent buffers by name, shape and float32 value.

    Arguments:
        skip: name prefixes to leave out.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        if name.startswith(skip):
            continue
        value = tensor.detach().to("cpu", torch.float32).contiguous()
        digest.update(f"{name}{tuple(value.shape)}".encode())
        digest.update(value.numpy().data)
    return digest.hexdigest()[:32]


def rows(x: torch.Tensor, queries: slice | None) -> torch.Tensor:
    """The query rows of a residual stream, (B, N, D) → (B, Q, D)."""
    return x if queries is None else x[:, queries]


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Eval mode inside (dropout and patch dropout off), each submodule's own mode restored after."""
    modes = {m: m.training for m in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for m, mode in modes.items():
            m.training = mode

"""The contract that every row of heads fulfils: attention cut open before and after it.

    project(x (B, N, D)) → q (B, H, Q, d), k, v (B, H, N, d);   attention(q, k, v) → z (B, H, Q, d)
    settle(z) → z, scales and norms of the block's own;         finish(x, z) → (B, Q, D)

In: the library's own modules; nothing is copied. A block does not know which edits are run: how its heads attend is
changed before `settle`, what they emit after it (`edited`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import nn

from headwise.edits.edit import KINDS, Edit
from headwise.edits.operators import FOLDABLE, RECOMPUTED, Row
from headwise.errors import HeadwiseError


@dataclass(frozen=True)
class HeadWeights:
    """The library's own parameters that folding writes to, as views (H heads of d values, width D)."""

    out: torch.Tensor  # (D, H·d) out-projection
    out_bias: torch.Tensor | None  # (D)
    query: torch.Tensor | None = None  # (H·d, D) query projection
    query_bias: torch.Tensor | None = None  # (H·d)
    key: torch.Tensor | None = None  # (H·d, D) key projection
    key_bias: torch.Tensor | None = None  # (H·d)


class Block:
    """One row of heads: attention cut open before and after it.

    A library's file in `towers/` subclasses this and uses the library's own modules and parameters.

    Arguments:
        module: the library's block. Its parameters are looked up when they are used: a DataParallel replica or a deep
            copy has others (see `on`).
        heads, head_dim, width: H, d and D.
        folds: the letters that fold exactly into this block's weights.
        letters: the letters that are defined for this block.
        latents: how many queries attention pooling has (0: the queries are the tokens themselves).
    """

    def __init__(
        self,
        module: nn.Module,
        heads: int,
        head_dim: int,
        width: int,
        folds: Collection[str] = FOLDABLE,
        letters: Collection[str] = tuple(KINDS),
        latents: int = 0,
    ):
        self.module: Any = module  # its attributes are its library's own
        self.heads = heads
        self.head_dim = head_dim
        self.width = width
        self.letters = frozenset(letters)
        self.folds = frozenset(folds) & self.letters
        self.latents = latents

    @property
    def tokenwise(self) -> bool:
        """Queries are tokens (False for attention pooling)."""
        return not self.latents

    def project(self, x: torch.Tensor, queries: slice | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Norm and projections, with what the block does to queries and keys before they meet.

        Arguments:
            x: residual stream, (B, N, D).
            queries: the rows of x to compute outputs for (None: all).

        Returns:
            q (B, H, Q, d), k and v (B, H, N, d).
        """
        raise NotImplementedError

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """A·v as the block computes it, (…, H, Q, d), of all heads or of some."""
        raise NotImplementedError

    def settle(self, z: torch.Tensor) -> torch.Tensor:
        """Scales and norms of the block's own between attention and out-projection: (B, H, Q, d), the same shape."""
        return z

    def attend(self, x: torch.Tensor, queries: slice | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Unedited head outputs just before the out-projection, z (B, H, Q, d), and values v (B, H, N, d)."""
        q, k, v = self.project(x, queries)
        return self.settle(self.attention(q, k, v)), v

    def edited(
        self,
        row: Row | None,
        z: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        queries: slice | None = None,
        all_queries: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Head outputs under edits, just before the out-projection.

        Arguments:
            row: the edits; None: none.
            z: A·v, unedited and not settled, (B, H, Q, d).
            q, k, v: from `project`.
            queries: the rows of x that q and z hold.
            all_queries: q of every row of x, for edits that need it (`Row.needs_all_queries`).

        Returns:
            (B, H, Q, d).
        """
        if row is None:
            return self.settle(z)
        z = row.attend(z, q, k, v, self.attention, queries=queries, all_queries=all_queries)
        return row.emit(self.settle(z), queries)

    def run(self, x: torch.Tensor, row: Row | None, queries: slice | None = None) -> torch.Tensor:
        """The block under edits: residual stream (B, N, D) → its query rows after the block (B, Q, D)."""
        q, k, v = self.project(x, queries)
        every = self.project(x)[0] if row is not None and row.needs_all_queries and queries is not None else None
        z = self.edited(row, self.attention(q, k, v), q, k, v, queries, every)  # (B, H, Q, d)
        return self.finish(x if queries is None else x[:, queries], z)

    def finish(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """Out-projection, residual, MLP.

        Arguments:
            x: the query rows of the residual stream, (B, Q, D).
            z: head outputs, (B, H, Q, d).

        Returns:
            The residual stream after the block, (B, Q, D).
        """
        raise NotImplementedError

    def branch(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """What the head outputs alone add to the residual stream: out-projection and what follows it there.

        Affine in z, but for norms. Of attention pooling: its vectors before the MLP.

        Arguments:
            x: as for `finish`.
            z: as for `finish`.

        Returns:
            (B, Q, D).
        """
        raise NotImplementedError

    def weights(self) -> HeadWeights:
        """The parameters that folding edits writes to."""
        raise NotImplementedError

    def on(self, module: nn.Module) -> Self:
        """The same row of heads in another copy of its module."""
        if module is self.module:
            return self
        other = copy.copy(self)
        other.module = module
        return other

    @property
    def site(self) -> nn.Module:
        """The module whose forward live edits replace: the attention itself, so that everything around it, the
        block's outputs, its hooks and what the library records, stays the library's own."""
        return self.module

    def live(self, row: Row) -> Callable:
        """A `forward` for the site's class with edited heads.

        It takes and returns what the library's own forward does, calls the submodules that the library calls, and
        computes with the module that it is called on: DataParallel calls replicas on other devices.
        """
        raise NotImplementedError

    @cached_property
    def _finish_parameters(self) -> int:
        inner = self.heads * self.head_dim
        return max(sum(p.numel() for p in self.module.parameters()) - 3 * self.width * inner, 0)

    def cost(self, tokens: int, queries: int) -> tuple[float, float]:
        """Multiply-adds of (attend, finish) for one image, counted from the block's parameters."""
        inner = self.heads * self.head_dim
        attend = inner * self.width * (2 * tokens + queries) + 2 * queries * tokens * inner
        return float(attend), float(queries * self._finish_parameters)

    def extra_cost(self, edits: Sequence[Edit], tokens: int, queries: int) -> float:
        """Multiply-adds that these edits of the row add to `cost`: attention that is computed again."""
        letters = [edit.attention.name for edit in edits if edit.attention is not None]
        again = sum(name in RECOMPUTED for name in letters)
        every = self.heads * self.head_dim * self.width * 3 * tokens if queries < tokens and "queries" in letters else 0
        return float(2 * queries * tokens * self.head_dim * again + every)


class PoolBlock(Block):
    """Attention pooling: Q learned queries look at the tokens. Its heads are the grid's last row.

    Arguments:
        before: residual stream (B, N, D) → what the library's pooling module receives.
        read: the queries that the embedding is made from (None: all).
    """

    def __init__(
        self,
        module: nn.Module,
        heads: int,
        head_dim: int,
        width: int,
        *,
        before: Callable[[torch.Tensor], torch.Tensor],
        latents: int,
        read: slice | None = None,
        folds: Collection[str] = FOLDABLE,
        class_token: bool = False,
    ):
        count = len(range(latents)[read]) if read else latents
        able = [n for n, kind in KINDS.items() if not kind.tokens and (class_token or not kind.class_token)]
        super().__init__(module, heads, head_dim, width, folds, able, latents=count)
        self.before = before
        self.read = read

    def look(self, h: torch.Tensor, read: slice | None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """The module's input (B, N, D) → q (B, H, Q, d) of the queries `read`, k and v (B, H, N, d)."""
        raise NotImplementedError

    def attention(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        """See `Block.attention`."""
        return nn.functional.scaled_dot_product_attention(q, k, v)

    def read_out(self, z: torch.Tensor) -> torch.Tensor:
        """Head outputs (B, H, Q, d) → pooled vectors (B, Q, D): out-projection, and an MLP where there is one."""
        raise NotImplementedError

    def after(self, y: torch.Tensor) -> torch.Tensor:
        """Pooled vectors (B, Q, D) → what the library's pooling module returns."""
        return y

    def project(self, x: torch.Tensor, queries: slice | None = None) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """q, k and v of the pooling heads; see `Block.project`."""
        return self.look(self.before(x), self.read)

    def finish(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """From the pooling heads' outputs to the embedding; see `Block.finish`."""
        return self.read_out(z)

    def live(self, row: Row) -> Callable:
        """See `Block.live`."""

        def forward(module: nn.Module, h: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
            refuse_masks(module, (*args, *kwargs.values()))
            block = self.on(module)
            q, k, v = block.look(h, None)  # (B, H, Q, d), (B, H, N, d) twice
            return block.after(block.read_out(block.edited(row, block.attention(q, k, v), q, k, v)))

        return forward


def split_heads(x: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, N, H·d) → (B, H, N, d)."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def join_heads(z: torch.Tensor) -> torch.Tensor:
    """(B, H, Q, d) → (B, Q, H·d)."""
    return z.transpose(1, 2).flatten(2)


def refuse_masks(module: nn.Module, extra: Sequence[object]) -> None:
    """
    Raises:
        HeadwiseError: attention is called with a mask, or as causal, which edits of heads would drop.
    """
    if any(isinstance(value, torch.Tensor) or value is True for value in extra):
        raise HeadwiseError(
            f"{type(module).__name__} was called with an attention mask while edits of heads are applied; image towers "
            "attend to all tokens. Call the model without one."
        )

"""The contract that every row of heads fulfils: attention cut open just before its out-projection.

    attend(x (B, N, D)) → z (B, H, Q, d), v (B, H, N, d);   finish(x, z') → (B, Q, D)

In: the library's own modules; nothing is copied. A row does not know which mask is run: whoever calls it changes z
between the two halves.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import torch
from torch import nn

from headwise.edits.operators import FOLDABLE, OPERATORS
from headwise.errors import HeadwiseError

Transform = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]  # (z, v) → z'


@dataclass(frozen=True)
class Edit:
    """What a live mask does to one row of heads.

    z' = A'·v, plus a constant where heads emit one.

    Arguments:
        values: head outputs z (B, H, Q, d) and values v (B, H, N, d) → z'.
        weights: attention A (B, H, Q, N) → A'.
        constant: what the heads emit beside A'·v, (H, 1, d); None: nothing.
    """

    values: Transform
    weights: Callable[[torch.Tensor], torch.Tensor]
    constant: torch.Tensor | None = None


UNEDITED = Edit(lambda z, v: z, lambda a: a)


@dataclass(frozen=True)
class HeadWeights:
    """The library's own parameters that folding writes to, as views (H heads of d values, width D)."""

    out: torch.Tensor  # (D, H·d) out-projection
    out_bias: torch.Tensor | None  # (D)
    query: torch.Tensor | None = None  # (H·d, D) query projection
    query_bias: torch.Tensor | None = None  # (H·d)


class Block:
    """One row of heads: attention cut open just before its out-projection.

    A library's file in `towers/` subclasses this and uses the library's own modules and parameters.

    Arguments:
        module: the library's block. Its parameters are looked up when they are used: a DataParallel replica or a deep
            copy has others (see `on`).
        heads, head_dim, width: H, d and D.
        folds: the operators that fold exactly into this block's weights.
        operators: the operators that are defined for this block.
        latents: how many queries attention pooling has (0: the queries are the tokens themselves).
    """

    def __init__(
        self,
        module: nn.Module,
        heads: int,
        head_dim: int,
        width: int,
        folds: Collection[str] = FOLDABLE,
        operators: Collection[str] = tuple(OPERATORS),
        latents: int = 0,
    ):
        self.module: Any = module  # its attributes are its library's own
        self.heads = heads
        self.head_dim = head_dim
        self.width = width
        self.operators = frozenset(operators)
        self.folds = frozenset(folds) & self.operators
        self.latents = latents

    @property
    def tokenwise(self) -> bool:
        """Queries are tokens (False for attention pooling)."""
        return not self.latents

    def attend(self, x: torch.Tensor, queries: slice | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """Everything up to the out-projection.

        Arguments:
            x: residual stream, (B, N, D).
            queries: the rows of x to compute outputs for (None: all).

        Returns:
            z: head outputs, (B, H, Q, d), and v: values, (B, H, N, d).
        """
        raise NotImplementedError

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
        """The parameters that folding a mask writes to."""
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
        """The module whose forward a live mask replaces: the attention itself, so that everything around it, the
        block's outputs, its hooks and what the library records, stays the library's own."""
        return self.module

    def live(self, edit: Edit) -> Callable:
        """A `forward` for the site's class with edited head outputs.

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
        operators = ("zero", "mean", "uniform", "cls") if class_token else ("zero", "mean", "uniform")
        super().__init__(module, heads, head_dim, width, folds, operators, latents=count)
        self.before = before
        self.read = read

    def look(self, h: torch.Tensor, read: slice | None) -> tuple[torch.Tensor, torch.Tensor]:
        """The module's input (B, N, D) → z (B, H, Q, d) of the queries `read`, and v (B, H, N, d)."""
        raise NotImplementedError

    def project(self, z: torch.Tensor) -> torch.Tensor:
        """Head outputs (B, H, Q, d) → pooled vectors (B, Q, D): out-projection, and an MLP where there is one."""
        raise NotImplementedError

    def after(self, y: torch.Tensor) -> torch.Tensor:
        """Pooled vectors (B, Q, D) → what the library's pooling module returns."""
        return y

    def attend(self, x: torch.Tensor, queries: slice | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        """z and v of the pooling heads; see `Block.attend`."""
        return self.look(self.before(x), self.read)

    def finish(self, x: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
        """From the pooling heads' outputs to the embedding; see `Block.finish`."""
        return self.project(z)

    def live(self, edit: Edit) -> Callable:
        """See `Block.live`."""

        def forward(module: nn.Module, h: torch.Tensor, *args: object, **kwargs: object) -> torch.Tensor:
            refuse_masks(module, (*args, *kwargs.values()))
            block = self.on(module)
            z, v = block.look(h, None)  # (B, H, Q, d), (B, H, N, d)
            return block.after(block.project(edit.values(z, v)))

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
        HeadwiseError: attention is called with a mask, or as causal, which a head mask would drop.
    """
    if any(isinstance(value, torch.Tensor) or value is True for value in extra):
        raise HeadwiseError(
            f"{type(module).__name__} was called with an attention mask while a head mask is applied; image towers "
            "attend to all tokens. Call the model without one."
        )

"""What a suppressed head emits: z' = g·z + (1−g)·A0·v for six choices of the attention A0.

    zero     A0·v = 0                    mean     a constant (d) in place of A0·v
    uniform  A0·v = mean over n of v_n   cls      A0·v = v_0
    self     A0·v = v                    cls_row  as zero, for row 0 alone

z (B, H, Q, d), v (B, H, N, d), g (H). A head's output z = A·v is linear in its attention A, so replacing A by g·A +
(1−g)·A0 never needs an attention matrix: only A0·v, which is cheap for every A0 here. With g = 0 `zero` is the
ablation of Michel et al. (arXiv 1905.10650); the others are what else an attention can be made to do. It knows
neither a model nor where a gate comes from.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headwise.errors import HeadwiseError

if TYPE_CHECKING:
    import torch

OPERATORS = {
    "zero": "emits nothing; a soft gate scales the head",
    "mean": "emits its mean output over the search split, a constant",
    "uniform": "attends to all tokens equally",
    "cls": "every token attends to the class token",
    "self": "every token attends to itself",
    "cls_row": "as zero, for the class token alone",
}
NEEDS_CLASS_TOKEN = frozenset({"cls", "cls_row"})
FOLDABLE = ("zero", "mean", "uniform")  # where the architecture allows it: see towers.base.Block.folds


def canonical_operator(name: str) -> str:
    """The operator's one name (`scale` is `zero` with soft gates).

    Raises:
        HeadwiseError: no such operator.
    """
    name = {"scale": "zero"}.get(name, name)
    if name not in OPERATORS:
        raise HeadwiseError(f"{name!r} is not an operator. There are: {', '.join(OPERATORS)}.")
    return name


def suppress(
    operator: str,
    z: torch.Tensor,
    v: torch.Tensor,
    gates: torch.Tensor,
    *,
    queries: slice | None = None,
    mean: torch.Tensor | None = None,
) -> torch.Tensor:
    """Head outputs with each head's attention mixed towards the operator's A0.

    Arguments:
        operator: one of `OPERATORS`.
        z: head outputs before the out-projection, (..., H, Q, d).
        v: values, (..., H, N, d).
        gates: g, broadcastable to (..., H); gradients flow through it.
        queries: the query rows that z holds (None: all N of them).
        mean: operator `mean` alone: the constant outputs, (H, d).

    Returns:
        z', the shape of z.

    Raises:
        HeadwiseError: `mean` without its constants; `self` where queries are not tokens.
    """
    g = gates.to(z)[..., None, None]  # (..., H, 1, 1), where z is: it may be on a replica's device
    if operator == "zero":
        return g * z
    if operator == "cls_row":
        if queries is not None and queries.start:
            return z
        return _first_row(g, z)
    if operator == "uniform":
        a0v = v.mean(-2, keepdim=True)  # (..., H, 1, d)
    elif operator == "cls":
        a0v = v[..., :1, :]  # (..., H, 1, d)
    elif operator == "self":
        a0v = v if queries is None else v[..., queries, :]  # (..., H, Q, d)
        if a0v.shape[-2] != z.shape[-2]:
            raise HeadwiseError(
                f"Operator 'self' needs a token for every query; here are {z.shape[-2]} queries and "
                f"{a0v.shape[-2]} tokens (attention pooling has none). Use zero, mean or uniform."
            )
    elif operator == "mean":
        if mean is None:
            raise HeadwiseError("Operator 'mean' needs the heads' mean outputs; compute them with engine.head_means.")
        a0v = mean.to(z)[:, None, :]  # (H, 1, d)
    else:
        raise HeadwiseError(f"{operator!r} is not an operator. There are: {', '.join(OPERATORS)}.")
    return g * z + (1 - g) * a0v


def _first_row(g: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    import torch

    first = g * z[..., :1, :]  # (..., H, 1, d)
    if z.shape[-2] == 1:
        return first
    return torch.cat([first, z[..., 1:, :].expand(*first.shape[:-2], -1, -1)], dim=-2)

"""How edits are computed: z' = M·(A'v) + c for one row of heads, without an attention matrix.

    attention side   temperature  A' = softmax(τ·q kᵀ/√d)     keys  softmax(k kᵀ/√d)     queries  softmax(q qᵀ/√d)
                     uniform, cls, self   A'v = g·z + (1−g)·A0·v,   A0·v = mean of v_n, v_0, v
    value side       scale, zero   g·z        mean  g·z + (1−g)·c        shift  g·z + c        cls_row  g·z for row 0 alone
                     spectral      U diag(s) Uᵀ (z − μ) + μ

z (…, H, Q, d), q (…, H, Q, d), k, v (…, H, N, d). A·v is linear in A, so a mix needs A0·v alone; other attentions are
computed by the block's own fused attention, for their own heads. With g = 0 `zero` is the ablation of Michel et al.
(arXiv 1905.10650). In: edits of a row, as numbers. Out: a `Row` of tensors, which has gradients where they have.
It knows neither a model nor where the numbers come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headwise.edits.edit import Edit
from headwise.errors import HeadwiseError

if TYPE_CHECKING:
    import torch

    Attention = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]  # (q, k, v) → z

RECOMPUTED = ("temperature", "keys", "queries")  # their attention is another one, not a mix
BY_SCORES = ("uniform", "temperature", "keys", "queries")  # fold into the projections of queries and keys
BY_BIAS = ("mean", "shift", "spectral")  # fold into the bias of the out-projection, too
FOLDABLE = ("zero", "scale", *BY_BIAS, *BY_SCORES)  # where the architecture allows it: see towers.blocks.Block.folds


@dataclass(frozen=True, eq=False)
class Look:
    """Heads of a row that attend in the same other way.

    Arguments:
        name: a letter of the attention side.
        heads: which, (n) int64; None: all of them.
        numbers: τ or g of each, (n); None for letters without.
    """

    name: str
    heads: torch.Tensor | None
    numbers: torch.Tensor | None


@dataclass(frozen=True, eq=False)
class Row:
    """The edits of one row of heads.

    Arguments:
        looks: the attention side.
        gain: what outputs are multiplied by, (H); None: 1.
        constant: what is added to them, (H, d); None: nothing.
        first: what the first row's outputs alone are multiplied by, (H); None: 1.
        heads, maps: heads whose outputs are mapped, (n) int64, and their M, (n, d, d); applied instead of the gain.
    """

    looks: tuple[Look, ...] = ()
    gain: torch.Tensor | None = None
    constant: torch.Tensor | None = None
    first: torch.Tensor | None = None
    heads: torch.Tensor | None = None
    maps: torch.Tensor | None = None

    @property
    def needs_all_queries(self) -> bool:
        """Whether queries of every token are needed, though only some rows are computed."""
        return any(look.name == "queries" for look in self.looks)

    def attend(
        self,
        z: torch.Tensor,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        attention: Attention,
        *,
        queries: slice | None = None,
        all_queries: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The attention side.

        Arguments:
            z: unedited head outputs, (…, H, Q, d).
            q, k, v: (…, H, Q, d), (…, H, N, d) twice, as the block's attention takes them.
            attention: the block's own.
            queries: the rows of the tokens that q and z hold (None: all).
            all_queries: `queries` alone: q of every token, (…, H, N, d), where q holds some.

        Returns:
            z', the shape of z.

        Raises:
            HeadwiseError: `self`, `keys` or `queries` where queries are not tokens.
        """
        for look in self.looks:
            new = self._other(look, z, q, k, v, attention, queries, all_queries)  # (…, n, Q, d)
            z = new if look.heads is None else z.index_copy(-3, look.heads.to(z.device), new.to(z.dtype))
        return z

    def _other(self, look: Look, z, q, k, v, attention: Attention, queries: slice | None, all_queries) -> torch.Tensor:
        def pick(t: torch.Tensor) -> torch.Tensor:
            return t if look.heads is None else t.index_select(-3, look.heads.to(t.device))

        number = None if look.numbers is None else look.numbers.to(z)[:, None, None]  # (n, 1, 1)
        if look.name == "temperature":
            assert number is not None
            return attention(pick(q) * number, pick(k), pick(v))
        if look.name == "keys":
            keys = pick(k)
            return attention(_rows(keys, queries, z, look.name), keys, pick(v))
        if look.name == "queries":
            every = pick(q if all_queries is None else all_queries)
            if every.shape[-2] != v.shape[-2]:
                raise HeadwiseError(_no_tokens(look.name, every, v))
            return attention(_rows(every, queries, z, look.name), every, pick(v))
        values, own = pick(v), pick(z)
        if look.name == "uniform":
            a0v = values.mean(-2, keepdim=True)  # (…, n, 1, d)
        elif look.name == "cls":
            a0v = values[..., :1, :]  # (…, n, 1, d)
        else:
            a0v = _rows(values, queries, z, look.name)  # (…, n, Q, d)
        assert number is not None
        return number * own + (1 - number) * a0v

    def emit(self, z: torch.Tensor, queries: slice | None = None) -> torch.Tensor:
        """The value side: head outputs z (…, H, Q, d) → z', the same shape.

        Arguments:
            queries: the rows of the tokens that z holds (None: all).
        """
        if self.heads is not None:
            assert self.maps is not None
            heads = self.heads.to(z.device)
            mapped = z.index_select(-3, heads) @ self.maps.to(z).mT  # (…, n, Q, d)
            z = z.index_copy(-3, heads, mapped)
        if self.gain is not None:
            z = z * self.gain.to(z)[:, None, None]
        if self.constant is not None:
            z = z + self.constant.to(z)[:, None]
        if self.first is not None and (queries is None or not queries.start):
            z = _first_row(self.first.to(z)[:, None, None], z)
        return z

    def attention(self, weights: torch.Tensor, q, k, scale: float | None = None) -> torch.Tensor:
        """The attention that edited heads have, where it is made whole.

        Arguments:
            weights: A, (B, H, N, N) or of a pooling (B, H, Q, N).
            q, k: (B, H, ·, d).
            scale: of the scores; None: 1/√d.

        Returns:
            A', the attention side's, rows of softmax or mixes of them.
        """
        import torch

        scale = q.shape[-1] ** -0.5 if scale is None else scale
        for look in self.looks:
            heads = torch.arange(weights.shape[1]) if look.heads is None else look.heads
            heads = heads.to(weights.device)
            own = weights[:, heads]  # (B, n, Q, N)
            if look.name in RECOMPUTED:
                one, other = q[:, heads], k[:, heads]
                one, other = {"keys": (other, other), "queries": (one, one)}.get(look.name, (one, other))
                if look.numbers is not None:
                    one = one * look.numbers.to(one)[:, None, None]
                new = softmax(one @ other.mT * scale)
            else:
                assert look.numbers is not None
                g = look.numbers.to(weights)[:, None, None]
                a0 = torch.zeros_like(own)
                if look.name == "uniform":
                    a0 += 1 / own.shape[-1]
                elif look.name == "cls":
                    a0[..., 0] = 1
                else:
                    a0.diagonal(dim1=-2, dim2=-1).fill_(1)
                new = g * own + (1 - g) * a0
            weights = weights.index_copy(1, heads, new)
        return weights

    def shown(self, weights: torch.Tensor) -> torch.Tensor:
        """The attention (B, H, Q, N) that is returned to whoever asked for it: with the gains of the value side in it.
        Constants and maps are no attention and are left out."""
        if self.gain is not None:
            weights = weights * self.gain.to(weights)[:, None, None]
        if self.first is not None:
            weights = _first_row(self.first.to(weights)[:, None, None], weights)
        return weights


NOTHING = Row()


def row_of(edits: Sequence[Edit], width: int, device: torch.device | str = "cpu") -> Row | None:
    """The edits of a row as tensors; None where every head is kept.

    Arguments:
        edits: one a head.
        width: d.
        device: where they are to be used.

    Raises:
        HeadwiseError: an edit whose arrays are missing or have another width.
    """
    import torch

    if all(edit.keeps for edit in edits):
        return None
    groups: dict[str, list[int]] = {}
    gains, firsts = torch.ones(len(edits)), torch.ones(len(edits))  # (H)
    constants = torch.zeros(len(edits), width)  # (H, d)
    mapped: list[tuple[int, torch.Tensor]] = []
    for i, edit in enumerate(edits):
        if edit.attention is not None:
            groups.setdefault(edit.attention.name, []).append(i)
        letter = edit.value
        if letter is None:
            continue
        if not letter.bound or letter.width not in (None, width):
            raise HeadwiseError(
                f"The edit '{letter}' of head {i} "
                + ("has no arrays yet" if not letter.bound else f"is for heads of {letter.width} values")
                + f"; this head emits {width} values. "
                + (
                    "Attach its mean outputs with headwise.evaluation.engine.with_means(mask, means)."
                    * (not letter.bound)
                )
            )
        number = 1.0 if letter.number is None else letter.number
        if letter.name == "cls_row":
            firsts[i] = number
        elif letter.name == "spectral":
            map_, constant = spectral_map(*(torch.tensor(array.numpy()) for _, array in letter.arrays))
            constants[i] = constant
            mapped.append((i, map_))
        else:
            gains[i] = number
            if letter.arrays:
                share = 1 - number if letter.name == "mean" else 1.0
                constants[i] = share * torch.tensor(letter.array("constant").numpy())
    numbers = [1.0 if e.attention is None or e.attention.number is None else e.attention.number for e in edits]
    looks = [
        Look(
            name,
            None if len(heads) == len(edits) else torch.tensor(heads, device=device),
            None if name in ("keys", "queries") else torch.tensor([numbers[i] for i in heads], device=device),
        )
        for name, heads in groups.items()
    ]
    return Row(
        tuple(looks),
        None if bool((gains == 1).all()) else gains.to(device),
        None if not bool(constants.any()) else constants.to(device),
        None if bool((firsts == 1).all()) else firsts.to(device),
        torch.tensor([i for i, _ in mapped], device=device) if mapped else None,
        torch.stack([m for _, m in mapped]).to(device) if mapped else None,
    )


def spectral_map(axes: torch.Tensor, scales: torch.Tensor, centre: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """M = U diag(s) Uᵀ and c = (I − M)·μ.

    Arguments:
        axes: U, (…, d, d), a column an axis.
        scales: s, (…, d).
        centre: μ, (…, d).

    Returns:
        (…, d, d) and (…, d).
    """
    map_ = (axes * scales[..., None, :]) @ axes.mT
    return map_, centre - (map_ @ centre[..., None])[..., 0]


def letter_row(name: str, gates: torch.Tensor, *, mean: torch.Tensor | None = None) -> Row:
    """One letter for every head of a row, its numbers a tensor with gradients.

    Arguments:
        name: a letter with one number.
        gates: (H).
        mean: `mean` alone: the constant outputs, (H, d).

    Raises:
        HeadwiseError: `mean` without its constants.
    """
    if name in ("zero", "scale"):
        return Row(gain=gates)
    if name == "cls_row":
        return Row(first=gates)
    if name == "mean":
        if mean is None:
            raise HeadwiseError("'mean' needs the heads' mean outputs; compute them with engine.head_means.")
        return Row(gain=gates, constant=(1 - gates)[:, None] * mean.to(gates))
    return Row((Look(name, None, gates),))


def softmax(scores: torch.Tensor) -> torch.Tensor:
    """Over the last dimension, in float32 at least, in the scores' precision."""
    import torch

    return scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(scores.dtype)


def _rows(t: torch.Tensor, queries: slice | None, z: torch.Tensor, name: str) -> torch.Tensor:
    """The rows that are computed, (…, n, N, d) → (…, n, Q, d)."""
    t = t if queries is None else t[..., queries, :]
    if t.shape[-2] != z.shape[-2]:
        raise HeadwiseError(_no_tokens(name, z, t))
    return t


def _no_tokens(name: str, z: torch.Tensor, v: torch.Tensor) -> str:
    return (
        f"'{name}' needs a token for every query; here are {z.shape[-2]} queries and {v.shape[-2]} tokens "
        "(attention pooling has none). Use zero, mean, scale, uniform or temperature."
    )


def _first_row(g: torch.Tensor, z: torch.Tensor) -> torch.Tensor:
    import torch

    first = g * z[..., :1, :]  # (…, H, 1, d)
    if z.shape[-2] == 1:
        return first
    return torch.cat([first, z[..., 1:, :].expand(*first.shape[:-2], -1, -1)], dim=-2)

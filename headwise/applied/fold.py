"""What edits change in a model's weights.

    value side    z' = M·z + c:  W_out[:, h] ← W_out[:, h] · M_h,   b_out ← b_out + Σ_h W_out[:, h] · c_h
    temperature   W_q[h] ← τ·W_q[h], b_q[h] ← τ·b_q[h]; 0 is `uniform`: every score is equal
    keys          W_q[h] ← W_k[h], b_q[h] ← b_k[h];     queries  W_k[h] ← W_q[h], b_k[h] ← b_q[h]

W_out (D, H·d), W_q, W_k (H·d, D), [h]: one head's d columns or rows; M_h (d, d), c_h (d). In: a tower and edits. Out:
parameters with their new values, in float32. What does not fold exactly is refused, never approximated. Whether
anything is written is not known here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from headwise.edits.edit import Letter
from headwise.edits.mask import Mask
from headwise.edits.operators import BY_BIAS, BY_SCORES, Row, row_of
from headwise.errors import HeadwiseError
from headwise.towers.base import Tower
from headwise.towers.blocks import Block, HeadWeights
from headwise.towers.fits import check_fits, check_present

if TYPE_CHECKING:
    from headwise.evaluation.engine import Means


@dataclass(frozen=True)
class Change:
    """One part of a parameter that folding changes.

    Arguments:
        name: the parameter's name in the module that was searched.
        parameter: the whole parameter.
        view: the part of it, sharing its memory.
        value: what the part becomes, in float32 (float64 where the parameter is).
    """

    name: str
    parameter: torch.Tensor
    view: torch.Tensor
    value: torch.Tensor

    @property
    def whole(self) -> torch.Tensor:
        """The whole parameter with the part changed, in the value's precision."""
        whole = self.parameter.detach().to(self.value.dtype, copy=True)
        self.put_into(whole)
        return whole

    def put_into(self, whole: torch.Tensor) -> None:
        """Change the part in a copy of the parameter."""
        offset = self.view.storage_offset() - self.parameter.storage_offset()
        whole.as_strided(self.view.shape, self.view.stride(), offset).copy_(self.value)


def check_folds(tower: Tower, mask: Mask) -> None:
    """
    Raises:
        HeadwiseError: the edits do not fold exactly into this tower's weights; the message says which would.
    """
    for text, reason in _obstacles(tower, mask):
        raise HeadwiseError(
            f"{text} does not fold into the weights of {tower.family}: {reason}. Edits that fold into this model: "
            f"{', '.join(tower.foldable) or 'none'}. Search with one of them, or apply these edits in place with "
            "headwise.apply."
        )


def folds(tower: Tower, mask: Mask) -> bool:
    """Whether the edits fold exactly into this tower's weights."""
    return not any(True for _ in _obstacles(tower, mask))


def _obstacles(tower: Tower, mask: Mask) -> Iterator[tuple[str, str]]:
    """What does not fold, as `HEAD=letter`, and why."""
    for head, edit in mask.edits.items():
        for letter in edit.letters:
            if reason := _unfoldable(tower.blocks[mask.grid.row_of(head)], letter):
                yield f"{head}={letter.text()}", reason


def _unfoldable(block: Block, letter: Letter) -> str:
    """Why a letter does not fold into a block; empty where it does."""
    if letter.name == "uniform" and letter.number:
        return "it is a mix of two attentions, which no weights compute (temperature, between 0 and 1, folds)"
    if letter.name not in block.folds:
        if letter.name in BY_SCORES:
            return "queries and keys do not meet as they are projected there"
        return (
            "its heads pass something else before the out-projection"
            if letter.name in BY_BIAS
            else "no weights do that"
        )
    weights = block.weights()
    if letter.name in BY_BIAS and weights.out_bias is None:
        return "the out-projection has no bias to take its constant"
    if letter.name in BY_SCORES and (
        weights.query is None or (letter.name in ("keys", "queries") and weights.key is None)
    ):
        return "the block has no projection of queries of its own"
    return ""


def check_plain(module: nn.Module) -> None:
    """
    Raises:
        HeadwiseError: adapters or computed weights: what is stored is not what the model computes with.
    """
    for name, part in module.named_modules():
        if hasattr(part, "base_layer") or any(child.startswith("lora_") for child, _ in part.named_children()):
            raise HeadwiseError(
                f"The model holds adapters ({name}, a {type(part).__name__} as PEFT adds them), beside the weights that "
                "edits fold into. Merge them first, with model = model.merge_and_unload(), then merge the edits."
            )
        if torch.nn.utils.parametrize.is_parametrized(part):
            raise HeadwiseError(
                f"The weights of {name} are computed from other tensors (torch.nn.utils.parametrize), so nothing can be "
                "folded into them. Remove the parametrization first (remove_parametrizations), then merge the edits."
            )


def changes(tower: Tower, mask: Mask, module: nn.Module | None = None) -> list[Change]:
    """The parameters that edits change.

    Arguments:
        tower: the image tower.
        mask: edits that fold into it (`check_folds`).
        module: the module in which parameters are named and looked for in other places; None: the tower's parts.

    Raises:
        HeadwiseError: weights that are quantized, computed, or shared with another place of the model.
    """
    module = module or tower.parts
    views = [
        (edits[0], *one)
        for row, block in enumerate(tower.blocks)
        if (edits := [head for head in mask.heads if mask.grid.row_of(head) == row])
        for one in _changed(block, row_of(mask.table[row], block.head_dim, tower.device))
    ]
    owners: dict[int, list[tuple[str, torch.Tensor]]] = {}  # where a tensor's memory starts → who uses it
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owners.setdefault(_memory(parameter), []).append((name, parameter))
    found: list[Change] = []
    for where, view, value in views:
        users = owners.get(_memory(view), [])
        if not users:
            raise HeadwiseError(
                f"A weight that the edits fold into ({where}) is not among the model's parameters: it is computed, or "
                "kept elsewhere. Merge adapters and remove parametrizations first, or use headwise.apply."
            )
        if len(users) > 1:
            names = ", ".join(name for name, _ in users)
            raise HeadwiseError(
                f"The weights that the edits fold into ({where}) are tied: {names} are one tensor, so folding would "
                "change other heads, too. Untie them (give each its own copy), or apply the edits in place with "
                "headwise.apply."
            )
        name, parameter = users[0]
        found.append(Change(name, parameter, view, value))
    return found


def _memory(tensor: torch.Tensor) -> int:
    """What tensors share that are one or views of one; a tensor class without memory of its own is itself alone."""
    return tensor.untyped_storage().data_ptr() or id(tensor)


def _changed(block: Block, row: Row | None) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The weights of one row of heads that edits change, as views, each with its new value."""
    weights, found = block.weights(), []
    if row is None:
        return found
    if row.gain is not None or row.maps is not None or row.constant is not None:
        found += _value_side(block, row, weights)
    return found + _attention_side(block, row, weights)


def _value_side(block: Block, row: Row, weights: HeadWeights) -> list[tuple[torch.Tensor, torch.Tensor]]:
    found = []
    out = _wide(weights.out)  # (D, H·d)
    by_head = out.unflatten(1, (block.heads, block.head_dim)).clone()  # (D, H, d)
    if row.heads is not None and row.maps is not None:
        by_head[:, row.heads] = torch.einsum("ohd,hde->ohe", by_head[:, row.heads], row.maps.to(out))
    if row.gain is not None:
        by_head *= row.gain.to(out)[:, None]
    if row.gain is not None or row.maps is not None:
        found.append((weights.out, by_head.flatten(1)))
    if row.constant is not None:
        if weights.out_bias is None:  # check_folds has raised before
            raise HeadwiseError("The out-projection has no bias to take the edits' constants.")
        found.append((weights.out_bias, _wide(weights.out_bias) + out @ row.constant.to(out).flatten()))  # (D)
    return found


CHANGES = {"temperature": "query", "uniform": "query", "keys": "query", "queries": "key"}  # a letter → whose projection


def _attention_side(block: Block, row: Row, weights: HeadWeights) -> list[tuple[torch.Tensor, torch.Tensor]]:
    places = (
        ("query", weights.query, weights.key),
        ("query", weights.query_bias, weights.key_bias),
        ("key", weights.key, weights.query),
        ("key", weights.key_bias, weights.query_bias),
    )
    found = []
    for side, parameter, other in places:
        looks = [look for look in row.looks if CHANGES.get(look.name) == side]
        if parameter is None or not looks:
            continue
        value = _wide(parameter).unflatten(0, (block.heads, block.head_dim)).clone()  # (H, d, …)
        for look in looks:
            heads = torch.arange(block.heads, device=value.device) if look.heads is None else look.heads
            if look.numbers is not None:
                value[heads] *= look.numbers.to(value).view(-1, *[1] * (value.dim() - 1))
            else:  # a copy of the other projection; a bias that is not there is 0
                value[heads] = 0.0 if other is None else _wide(other).view_as(value)[heads]
        found.append((parameter, value.flatten(0, 1)))
    return found


def _wide(parameter: torch.Tensor) -> torch.Tensor:
    """A parameter in the precision that folding computes in: float32, or float64 where it is."""
    return parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32))


_folding: set[int] = set()  # where the memory of parameters starts that are folded just now
_lock = threading.Lock()


@contextmanager
def folded(tower: Tower, mask: Mask, means: Means | None = None, *, check_weights: bool = True) -> Iterator[None]:
    """Inside the context the tower's own parameters contain the edits; after it they are restored bit for bit.

    Unlike `apply`, every thread sees it. One context at a time may fold into the same parameters.

    Arguments:
        tower: changed in place, whatever its device; the arithmetic is float32.
        mask: for the tower's grid.
        means: for edits `mean` without constants of their own: every head's mean output, per row (H, d).
        check_weights: compare the tower's weights with those that the edits were found on.

    Raises:
        HeadwiseError: another grid or other weights; edits that do not fold exactly into this tower; another
            context, of this thread or another, has folded edits into the same parameters.
    """
    if means is not None:
        from headwise.evaluation.engine import with_means

        mask = with_means(mask, means)
    check_present(tower)
    check_fits(tower, mask, check_weights=check_weights)
    check_folds(tower, mask)
    _ = tower.weights_hash  # it is computed once and kept: it has to be that of the unchanged weights
    places = {_memory(edit.parameter) for edit in changes(tower, mask)}
    with _lock:
        if places & _folding:
            raise HeadwiseError(
                "Edits are folded into these weights already, by a context that is still open, here or in another "
                "thread. Fold one at a time, or use headwise.apply, which other threads do not see."
            )
        _folding.update(places)
    saved: list[tuple[torch.Tensor, torch.Tensor]] = []
    try:  # from here on, whatever happens, the places are given back
        edits = changes(tower, mask)
        saved = [(edit.view, edit.view.detach().clone()) for edit in edits]
        with torch.no_grad():
            for edit in edits:
                edit.view.copy_(edit.value)
        yield
    finally:
        with torch.no_grad():
            for view, old in saved:
                view.copy_(old)
        with _lock:
            _folding.difference_update(places)

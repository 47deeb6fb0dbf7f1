"""What a mask changes in a model's weights.

    zero     W_out[:, h] ← g_h · W_out[:, h]
    mean     as zero, and b_out ← b_out + Σ_h (1 − g_h) · W_out[:, h] · mean_h
    uniform  W_q[h] ← 0, b_q[h] ← 0, for g_h = 0: every score is equal, so attention is uniform

W_out (D, H·d), W_q (H·d, D), [h]: one head's d columns or rows. In: a tower and a mask. Out: parameters with their
new values, in float32. What does not fold exactly is refused, never approximated. Whether anything is written is not
known here.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import nn

from headwise.edits.mask import Mask
from headwise.errors import HeadwiseError
from headwise.towers.base import Tower
from headwise.towers.blocks import Block, HeadWeights
from headwise.towers.fits import check_fits, check_present, mean_tensor

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
        HeadwiseError: the mask does not fold exactly into this tower's weights; the message says which would.
    """
    usable = ", ".join(tower.foldable) or "none"
    for row, (block, gates) in enumerate(zip(tower.blocks, mask.gates, strict=True)):
        touched = [index for index, gate in enumerate(gates) if gate < 1.0]
        if not touched:
            continue
        head = mask.grid.head(row, touched[0])
        if mask.operator not in block.folds:
            raise HeadwiseError(
                f"A mask with operator '{mask.operator}' does not fold into the weights of {tower.family} ({head}). "
                f"Operators that fold into this model: {usable}. Search with one of them (--operator), or apply "
                "this mask in place with headwise.apply."
            )
        soft = [index for index in touched if gates[index] > 0.0]
        if mask.operator == "uniform" and soft:
            raise HeadwiseError(
                f"Operator 'uniform' folds for gates of 0 only; {mask.grid.head(row, soft[0])} has the gate "
                f"{gates[soft[0]]:.3g}. Operators that fold into this model: {usable} (zero and mean with any gate). "
                "Round the gates, or apply this mask in place with headwise.apply."
            )
        weights = block.weights()
        if mask.operator == "mean" and weights.out_bias is None:
            raise HeadwiseError(
                f"Operator 'mean' folds into the bias of the out-projection, and the block of {head} has no bias. "
                "Use operator zero, or apply this mask in place with headwise.apply."
            )
        if mask.operator == "uniform" and weights.query is None:
            raise HeadwiseError(
                f"Operator 'uniform' folds into the query projection, and the block of {head} has none of its own. "
                "Use operator zero or mean, or apply this mask in place with headwise.apply."
            )


def check_plain(module: nn.Module) -> None:
    """
    Raises:
        HeadwiseError: adapters or computed weights: what is stored is not what the model computes with.
    """
    for name, part in module.named_modules():
        if hasattr(part, "base_layer") or any(child.startswith("lora_") for child, _ in part.named_children()):
            raise HeadwiseError(
                f"The model holds adapters ({name}, a {type(part).__name__} as PEFT adds them), beside the weights that "
                "a mask folds into. Merge them first, with model = model.merge_and_unload(), then merge the mask."
            )
        if torch.nn.utils.parametrize.is_parametrized(part):
            raise HeadwiseError(
                f"The weights of {name} are computed from other tensors (torch.nn.utils.parametrize), so nothing can be "
                "folded into them. Remove the parametrization first (remove_parametrizations), then merge the mask."
            )


def changes(tower: Tower, mask: Mask, module: nn.Module | None = None) -> list[Change]:
    """The parameters that a mask changes.

    Arguments:
        tower: the image tower.
        mask: one that folds into it (`check_folds`).
        module: the module in which parameters are named and looked for in other places; None: the tower's parts.

    Raises:
        HeadwiseError: weights that are quantized, computed, or shared with another place of the model.
    """
    module = module or tower.parts
    views = [(row, *one) for row in range(len(tower.blocks)) for one in _edits(tower, mask, row)]
    owners: dict[int, list[tuple[str, torch.Tensor]]] = {}  # where a tensor's memory starts → who uses it
    for name, parameter in module.named_parameters(remove_duplicate=False):
        owners.setdefault(_memory(parameter), []).append((name, parameter))
    found = []
    for row, view, value in views:
        users = owners.get(_memory(view), [])
        where = mask.grid.head(row, next(i for i, gate in enumerate(mask.gates[row]) if gate < 1.0))
        if not users:
            raise HeadwiseError(
                f"A weight that the mask folds into ({where}) is not among the model's parameters: it is computed, or "
                "kept elsewhere. Merge adapters and remove parametrizations first, or use headwise.apply."
            )
        if len(users) > 1:
            names = ", ".join(name for name, _ in users)
            raise HeadwiseError(
                f"The weights that the mask folds into ({where}) are tied: {names} are one tensor, so folding would "
                "change other heads, too. Untie them (give each its own copy), or apply the mask in place with "
                "headwise.apply."
            )
        name, parameter = users[0]
        found.append(Change(name, parameter, view, value))
    return found


def _memory(tensor: torch.Tensor) -> int:
    """What tensors share that are one or views of one; a tensor class without memory of its own is itself alone."""
    return tensor.untyped_storage().data_ptr() or id(tensor)


def _edits(tower: Tower, mask: Mask, row: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The weights of one row that the mask changes, as views, each with its new value."""
    gates = torch.tensor(mask.gates[row])  # (H)
    if bool((gates == 1).all()):
        return []
    block, weights = tower.blocks[row], tower.blocks[row].weights()
    gates = gates.to(weights.out.device)
    if mask.operator == "uniform":
        return _uniform_edits(block, weights, gates)
    columns = gates.repeat_interleave(block.head_dim)  # (H·d): one gate per input of the out-projection
    out = _wide(weights.out)  # (D, H·d)
    edits = [(weights.out, out * columns)]
    if mask.operator == "mean":
        constants = mean_tensor(mask, row, block.head_dim, out.device)  # (H, d), 0 for heads that are kept
        if constants is None or weights.out_bias is None:  # check_folds and mean_tensor have raised before
            raise HeadwiseError(f"Row {row} of the mask has no means to fold.")
        emitted = ((1 - gates)[:, None] * constants).flatten().to(out.dtype)  # (H·d)
        edits.append((weights.out_bias, _wide(weights.out_bias) + out @ emitted))  # (D)
    return edits


def _uniform_edits(block: Block, weights: HeadWeights, gates: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
    keep = (gates > 0).repeat_interleave(block.head_dim)  # (H·d): rows of the query projection
    edits = []
    for parameter in (weights.query, weights.query_bias):
        if parameter is not None:
            rows = keep.view(-1, *[1] * (parameter.dim() - 1))  # (H·d, 1) or (H·d)
            value = _wide(parameter)
            edits.append((parameter, torch.where(rows, value, torch.zeros_like(value))))
    return edits


def _wide(parameter: torch.Tensor) -> torch.Tensor:
    """A parameter in the precision that folding computes in: float32, or float64 where it is."""
    return parameter.detach().to(torch.promote_types(parameter.dtype, torch.float32))


_folding: set[int] = set()  # where the memory of parameters starts that are folded just now
_lock = threading.Lock()


@contextmanager
def folded(tower: Tower, mask: Mask, means: Means | None = None, *, check_weights: bool = True) -> Iterator[None]:
    """Inside the context the tower's own parameters contain the mask; after it they are restored bit for bit.

    Unlike `apply`, every thread sees it. One context at a time may fold into the same parameters.

    Arguments:
        tower: changed in place, whatever its device; the arithmetic is float32.
        mask: for the tower's grid.
        means: operator `mean` without constants of its own: every head's mean output, per row (H, d).
        check_weights: compare the tower's weights with those that the mask was found on.

    Raises:
        HeadwiseError: another grid or other weights; a mask that does not fold exactly into this tower; another
            context, of this thread or another, has folded a mask into the same parameters.
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
                "A mask is folded into these weights already, by a context that is still open, here or in another "
                "thread. Fold one at a time, or use headwise.apply, which other threads do not see."
            )
        _folding.update(places)
    edits = changes(tower, mask)
    saved = [edit.view.detach().clone() for edit in edits]
    try:
        with torch.no_grad():
            for edit in edits:
                edit.view.copy_(edit.value)
        yield
    finally:
        with torch.no_grad():
            for edit, old in zip(edits, saved, strict=True):
                edit.view.copy_(old)
        with _lock:
            _folding.difference_update(places)

"""Masks on a user's live model: one mechanism for every library.

    z' = g·z + (1 − g)·A0·v at the attention of every masked row; all around it is the library's own code

In: a model and a mask. Out: a context inside which the calling thread or task sees the mask. Nothing is copied, no
parameter changes. What a forward is replaced by is each library's (`towers/`), who sees it is in `dispatch.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from headwise.applied.dispatch import edited, own_class, with_forward
from headwise.edits.mask import Mask
from headwise.edits.operators import suppress
from headwise.errors import HeadwiseError
from headwise.towers import Model, tower_of
from headwise.towers.base import Tower
from headwise.towers.blocks import UNEDITED, Edit
from headwise.towers.fits import check_fits, check_functions, check_present, mean_tensor
from headwise.towers.tools import unhooked


@contextmanager
def apply(
    model: Model | Tower | nn.Module, mask: Mask, *, check_weights: bool = True, probe: bool = True
) -> Iterator[None]:
    """Run a model with a mask: inside the context its image tower suppresses the mask's heads.

    Nothing is copied and no parameter changes; leaving the context restores the model, also after an
    exception. Contexts nest: the inner mask replaces the outer one in the layers that it touches.

    The mask is seen by the thread or asyncio task that entered the context, and by nobody else: another thread may
    run the same model without a mask, or with one of its own, and contexts may end in any order. A thread that is
    started inside sees the mask when it runs in a copy of the context (`contextvars.copy_context().run`, as
    `asyncio.to_thread` does); DataParallel's replicas and copies (`copy.deepcopy`) that are made inside carry it.

    Hooks, hidden states and attention come from the library's own code around the edited attention: attention
    weights, where the library returns them, are those that the edited outputs are made of, A' = g·A + (1−g)·A0
    (operator `mean`: g·A, the constant being no attention).

    Arguments:
        model: what `headwise.load` returns, or the library's own model object, on any device.
        mask: for the model's own grid.
        check_weights: compare the model's weights with those the mask was found on. Switch it off only for
            the same model in another precision.
        probe: run one random image before and after and raise if the mask changed nothing. Hooks do not see it.

    Raises:
        HeadwiseError: another grid or other weights; an operator the tower has no class token for; weights that are
            not in memory or not numbers that can be computed with; the mask took no effect.
    """
    tower = _tower(model)
    check_present(tower)
    check_fits(tower, mask, check_weights=check_weights)
    if isinstance(model, Model):
        check_functions(model, mask, check_weights=check_weights, image=False)
    touched = [row for row, gates in enumerate(mask.gates) if any(gate < 1.0 for gate in gates)]
    edits = {row: edit(tower, mask, row) for row in touched}
    if probe and touched:
        _check_effect(tower, mask, edits)
    blocks = tower.blocks
    with edited({blocks[row].site: blocks[row].live(one) for row, one in edits.items()}):
        yield


@torch.no_grad()
def _check_effect(tower: Tower, mask: Mask, edits: Mapping[int, Edit]) -> None:
    """One random image with and without the mask, on a twin of the tower that shares its parameters.

    Raises:
        HeadwiseError: both embeddings are the same.
    """
    twin = tower.build(unhooked(tower.parts))
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, tower.resolution, tower.resolution, generator=generator)
    image = image.to(tower.device, tower.dtype)
    embeddings = []
    # without: by the same code, since the library's own kernels round differently, which is no effect
    for chosen in (dict.fromkeys(edits, UNEDITED), edits):
        for row, one in chosen.items():
            site = twin.blocks[row].site
            site.__dict__.pop("forward", None)
            site.__class__ = with_forward(own_class(tower.blocks[row].site), twin.blocks[row].live(one))
        embeddings.append(twin.encode(image))  # (1, E)
    if torch.equal(*embeddings):
        raise HeadwiseError(
            f"The mask {mask} took no effect: a probe image has the same embedding with and without it. "
            "Its heads may emit nothing already, or the model does not call its blocks' forward."
        )


def _tower(model: Model | Tower | nn.Module) -> Tower:
    if isinstance(model, Tower):
        return model
    return model.tower if isinstance(model, Model) else tower_of(model)


def edit(tower: Tower, mask: Mask, row: int) -> Edit:
    """One row of a mask, all query rows present: head outputs (z, v) → z', and attention A → A'."""
    device, block = tower.device, tower.blocks[row]
    gates = torch.tensor(mask.gates[row], device=device)  # (H)
    mean = mean_tensor(mask, row, block.head_dim, device)

    def values(z: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return suppress(mask.operator, z, v, gates, mean=mean)

    def weights(a: torch.Tensor) -> torch.Tensor:
        if mean is not None:
            return gates.to(a)[:, None, None] * a
        # z' is linear in (A·v, v): with the identity for v it is A' itself
        return suppress(mask.operator, a, torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)[None], gates)

    constant = None if mean is None else ((1 - gates)[:, None] * mean)[:, None]  # (H, 1, d)
    return Edit(values, weights, constant)

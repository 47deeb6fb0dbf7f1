"""Masks on a user's live model: one mechanism for every library."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import update_wrapper

import torch
from torch import nn

from headwise.edits.mask import Mask
from headwise.edits.operators import suppress
from headwise.errors import HeadwiseError
from headwise.towers import Model, tower_of
from headwise.towers.base import Tower, evaluating
from headwise.towers.blocks import Transform
from headwise.towers.fits import check_fits, check_functions, mean_tensor


@contextmanager
def apply(
    model: Model | Tower | nn.Module, mask: Mask, *, check_weights: bool = True, probe: bool = True
) -> Iterator[None]:
    """Run a model with a mask: inside the context its image tower suppresses the mask's heads.

    Nothing is copied and no parameter changes; leaving the context restores the model, also after an
    exception. Contexts nest: the inner mask replaces the outer one in the layers that it touches.

    Arguments:
        model: what `headwise.load` returns, or the library's own model object, on any device.
        mask: for the model's own grid.
        check_weights: compare the model's weights with those the mask was found on. Switch it off only for
            the same model in another precision.
        probe: run one random image before and after and raise if the mask changed nothing.

    Raises:
        HeadwiseError: another grid or other weights; an operator the tower has no class token for; the mask
            took no effect.
    """
    tower = _tower(model)
    check_fits(tower, mask, check_weights=check_weights)
    if isinstance(model, Model):
        check_functions(model, mask, check_weights=check_weights, image=False)
    touched = [row for row, gates in enumerate(mask.gates) if any(gate < 1.0 for gate in gates)]
    modules = [tower.blocks[row].module for row in touched]
    old = [(type(module), module.__dict__.pop("forward", None)) for module in modules]
    try:
        before = None
        if probe and touched:
            # compared on the same code path: the library's own kernels round differently, which is no effect
            for row, module, (own, _) in zip(touched, modules, old, strict=True):
                module.__class__ = _with_forward(own, tower.blocks[row].live(lambda z, v: z))
            before = _probe(tower)
        for row, module, (own, _) in zip(touched, modules, old, strict=True):
            module.__class__ = _with_forward(own, tower.blocks[row].live(transform(tower, mask, row)))
        if before is not None and torch.equal(before, _probe(tower)):
            raise HeadwiseError(
                f"The mask {mask} took no effect: a probe image has the same embedding with and without it. "
                "Its heads may emit nothing already, or the model does not call its blocks' forward."
            )
        yield
    finally:
        for module, (own, forward) in zip(modules, old, strict=True):
            module.__class__ = own
            module.__dict__.pop("forward", None)  # one that a library put there meanwhile is the masked one
            if forward is not None:
                module.forward = forward


def _with_forward(own: type[nn.Module], forward: Callable) -> type[nn.Module]:
    """A class that differs from a module's own in `forward` alone.

    Not an attribute of the module: DataParallel's replicas copy attributes, so theirs would compute with the
    parameters of the original, on its device.
    """
    members = {"forward": update_wrapper(forward, own.forward, updated=()), "__module__": own.__module__}
    return type(own.__name__, (own,), members)


def _tower(model: Model | Tower | nn.Module) -> Tower:
    if isinstance(model, Tower):
        return model
    return model.tower if isinstance(model, Model) else tower_of(model)


def transform(tower: Tower, mask: Mask, row: int) -> Transform:
    """The function (z, v) → z' of one row of a mask, all query rows present."""
    device, block = tower.device, tower.blocks[row]
    gates = torch.tensor(mask.gates[row], device=device)  # (H)
    mean = mean_tensor(mask, row, block.head_dim, device)
    return lambda z, v: suppress(mask.operator, z, v, gates, mean=mean)


@torch.no_grad()
def _probe(tower: Tower) -> torch.Tensor:
    """The embedding of one fixed random image by the library's own blocks, (1, E)."""
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, tower.resolution, tower.resolution, generator=generator)
    with evaluating(tower.parts):
        return tower.encode(image.to(tower.device, tower.dtype))

"""Edits on a user's live model: one mechanism for every library.

    z' = M·(A'v) + c at the attention of every edited row; all around it is the library's own code

In: a model and edits. Out: a context inside which the calling thread or task sees them. Nothing is copied, no
parameter changes. What a forward is replaced by is each library's (`towers/`), who sees it is in `dispatch.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import nn

from headwise.applied.dispatch import edited, own_class, with_forward
from headwise.edits.mask import Mask
from headwise.edits.operators import NOTHING, Row, row_of
from headwise.errors import HeadwiseError
from headwise.towers import Model, tower_of
from headwise.towers.base import Tower
from headwise.towers.fits import check_fits, check_functions, check_present
from headwise.towers.tools import unhooked


@contextmanager
def apply(
    model: Model | Tower | nn.Module, mask: Mask, *, check_weights: bool = True, probe: bool = True
) -> Iterator[None]:
    """Run a model with edits: inside the context the heads of its image tower are edited.

    Nothing is copied and no parameter changes; leaving the context restores the model, also after an
    exception. Contexts nest: the inner edits replace the outer ones in the layers that they touch.

    The edits are seen by the thread or asyncio task that entered the context, and by nobody else: another thread may
    run the same model without them, or with others, and contexts may end in any order. A thread that is
    started inside sees the edits when it runs in a copy of the context (`contextvars.copy_context().run`, as
    `asyncio.to_thread` does); DataParallel's replicas and copies (`copy.deepcopy`) that are made inside carry it.

    Hooks, hidden states and attention come from the library's own code around the edited attention: attention
    weights, where the library returns them, are those that the edited outputs are made of, A' times the gain of the
    value side (constants, shifts and spectral maps are no attention).

    Arguments:
        model: what `headwise.load` returns, or the library's own model object, on any device.
        mask: edits for the model's own grid.
        check_weights: compare the model's weights with those the edits were found on. Switch it off only for
            the same model in another precision.
        probe: run one random image before and after and raise if the edits changed nothing. Hooks do not see it.

    Raises:
        HeadwiseError: another grid or other weights; edits that its heads cannot have; weights that are
            not in memory or not numbers that can be computed with; the edits took no effect.
    """
    tower = _tower(model)
    check_present(tower)
    check_fits(tower, mask, check_weights=check_weights)
    if isinstance(model, Model):
        check_functions(model, mask, check_weights=check_weights, image=False)
    blocks = tower.blocks
    compiled = [row_of(edits, block.head_dim, tower.device) for edits, block in zip(mask.table, blocks, strict=True)]
    edits = {row: one for row, one in enumerate(compiled) if one is not None}
    if probe and edits:
        _check_effect(tower, mask, edits)
    with edited({blocks[row].site: blocks[row].live(one) for row, one in edits.items()}):
        yield


@torch.no_grad()
def _check_effect(tower: Tower, mask: Mask, edits: Mapping[int, Row]) -> None:
    """One random image with and without the edits, on a twin of the tower that shares its parameters.

    Raises:
        HeadwiseError: both embeddings are the same.
    """
    twin = tower.build(unhooked(tower.parts))
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, tower.resolution, tower.resolution, generator=generator)
    image = image.to(tower.device, tower.dtype)
    embeddings = []
    # without: by the same code, since the library's own kernels round differently, which is no effect
    for chosen in (dict.fromkeys(edits, NOTHING), edits):
        for row, one in chosen.items():
            site = twin.blocks[row].site
            site.__dict__.pop("forward", None)
            site.__class__ = with_forward(own_class(tower.blocks[row].site), twin.blocks[row].live(one))
        embeddings.append(twin.encode(image))  # (1, E)
    if torch.equal(*embeddings):
        raise HeadwiseError(
            f"The edits {mask} took no effect: a probe image has the same embedding with and without it. "
            "Its heads may emit nothing already, or the model does not call its blocks' forward."
        )


def _tower(model: Model | Tower | nn.Module) -> Tower:
    if isinstance(model, Tower):
        return model
    return model.tower if isinstance(model, Model) else tower_of(model)

"""A tower that was trained, as an ordinary model folder: its weights in place of the model's own, checked like a merge.

In: the model, a tower of the same modules with other weights. Out: a folder that the model's own library loads. The folder
appears under its name after it was loaded again and compared with the trained tower.
"""

from __future__ import annotations

from pathlib import Path

import torch

from headwise.applied.check import compare, embeddings, probe_batch
from headwise.applied.fold import Change, check_plain
from headwise.applied.write import write
from headwise.edits.card import CARD_FILE
from headwise.errors import HeadwiseError
from headwise.files import new_folder
from headwise.towers.base import Model, Tower

TOLERANCE = 1e-4  # relative to the largest value in the embeddings


def write_tuned(model: Model, tuned: Tower, folder: str | Path, card: str) -> Path:
    """Write a model whose image tower was trained.

    Arguments:
        model: what was trained from; unchanged when this returns.
        tuned: its tower with other weights, in float32.
        folder: replaced where it is there.
        card: the text of its model card.

    Raises:
        HeadwiseError: a tower of other modules, or a folder that cannot be written or differs from the trained tower.
    """
    check_plain(model.module)
    changes, batch = _changes(model, tuned), probe_batch(model.tower, None)
    with new_folder(folder) as partial:
        written = write(model, changes, partial)
        (partial / CARD_FILE).write_text(card, encoding="utf-8")
        compare(partial, model, changes, written, batch, embeddings(tuned, batch), TOLERANCE)
    return Path(folder)


def _changes(model: Model, tuned: Tower) -> list[Change]:
    """Every parameter that training changed, whole."""
    names = {id(p): name for name, p in model.module.named_parameters(remove_duplicate=False)}
    ours = dict(model.tower.parts.named_parameters())
    theirs = dict(tuned.parts.named_parameters())
    if ours.keys() != theirs.keys() or any(id(p) not in names for p in ours.values()):
        raise HeadwiseError(
            f"The trained tower has other parameters than {model.name}, so it cannot be written as one."
        )
    found = []
    for name, parameter in ours.items():
        value = theirs[name].detach().to(parameter.device, torch.float32)
        if not torch.equal(value, parameter.detach().float()):
            found.append(Change(names[id(parameter)], parameter, parameter, value))
    return found

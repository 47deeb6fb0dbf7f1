"""inspect: facts about a model, its grid of heads, and what can be done to them.

In: a model, or its name. Out: plain JSON values. Nothing is evaluated but one blank image.
"""

from __future__ import annotations

import torch

from headwise.edits.edit import KINDS
from headwise.edits.mask import Mask
from headwise.evaluation.engine import ffe
from headwise.jobs.steps.findings import Findings
from headwise.jobs.steps.opening import Machine, ModelLike, load_model
from headwise.towers.base import Model, evaluating


def inspect(model: ModelLike, *, machine: Machine | None = None) -> Findings:
    """Facts about a model, as plain JSON values.

    Arguments:
        model: a name, or what `headwise.load` or `headwise.wrap` returns.
        machine: device, and overrides for a model given by name.

    Returns:
        `name`, `family`, `layers` (heads per block), `pool_heads`, `heads` (of all rows), `tokens`, `resolution`,
        `pooling`, `class_token`, `embedding` (E), `parameters` of the image tower and `parameters_total`, `dtype`,
        `device`, `weights_hash`, `text` (whether it has a text tower), `context` (tokens; None: not known), `loss`; `edits`: for each its meaning
        (`what`), the `side` of a head that it edits, where it `applies` (`all heads`, `blocks` for all but the pooling's,
        or `no`), whether it `folds` exactly everywhere, and for each of the `rows` that can have it whether it `folds` or
        only `applies`; `ffe`: cost in full-forward equivalents of a `sweep` over all heads and of the `hook_loop` that
        runs the tower once per head.

    Raises:
        HeadwiseError: a model that cannot be read, a device that is not there, or overrides for a model that is loaded.
    """
    model = load_model(model, machine or Machine())
    tower = model.tower
    masks = [Mask.suppress(tower.grid, [head]) for head in tower.grid]
    blank = torch.zeros(1, 3, tower.resolution, tower.resolution, dtype=tower.dtype, device=tower.device)
    with evaluating(tower.parts), torch.inference_mode():
        embedding = tower.encode(blank).shape[-1]
    facts = {
        "name": model.name,
        "family": tower.family,
        "layers": list(tower.grid.layers),
        "pool_heads": tower.grid.pool,
        "heads": tower.grid.size,
        "tokens": tower.tokens,
        "resolution": tower.resolution,
        "pooling": tower.pooling,
        "class_token": tower.class_token,
        "embedding": embedding,
        "parameters": _count(tower.parts),
        "parameters_total": _count(model.module),
        "dtype": str(tower.dtype).removeprefix("torch."),
        "device": str(tower.device),
        "weights_hash": tower.weights_hash,
        "text": model.encode_texts is not None,
        "context": model.reading.context if model.reading else None,
        "loss": model.loss,
        "edits": {
            name: {
                "what": kind.about,
                "side": kind.side,
                "applies": _applies(model, name),
                "folds": name in tower.foldable,
                "rows": {
                    tower.grid.row_name(row): "folds" if name in block.folds else "applies"
                    for row, block in enumerate(tower.blocks)
                    if name in block.letters and (tower.class_token or not kind.class_token)
                },
            }
            for name, kind in KINDS.items()
        },
        "ffe": {
            "sweep": ffe(tower, [*masks, Mask.identity(tower.grid)]),
            "hook_loop": float(tower.grid.size + 1),
        },
    }
    return Findings(facts)


def _applies(model: Model, letter: str) -> str:
    tower = model.tower
    if letter not in tower.letters:
        return "no"
    return "all heads" if all(letter in block.letters for block in tower.blocks) else "blocks"


def _count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())

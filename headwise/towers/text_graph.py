"""A model's text tower as a plain module: token ids and masks (T, L) → embeddings (T, E), not normalised.

In: a model whose tokens are known. Out: a module with its library's own forward inside, for export.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from headwise.towers.base import Model

METHODS = ("get_text_features", "encode_text")  # transformers' and open_clip's


class TextGraph(nn.Module):
    """The library's own text forward.

    Arguments:
        module: the library's model.
        names: of the inputs, as `Model.tokenize` names them.
    """

    def __init__(self, module: Any, names: tuple[str, ...]):
        super().__init__()
        self.module = module
        self.names = names
        self.eval()

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        """Token ids and masks (T, L) by name → embeddings (T, E)."""
        encode = next(getattr(self.module, name) for name in METHODS if hasattr(self.module, name))
        found = encode(**inputs)
        return getattr(found, "pooler_output", found)  # (T, E)


def text_graph(model: Model) -> TextGraph | None:
    """The text tower of a model in float32 on the CPU; None where there is none, or it is a function of the user's."""
    if model.tokenize is None:
        return None
    module = next((m for m in model.module.modules() if any(hasattr(m, name) for name in METHODS)), None)
    if module is None:
        return None
    parameters = list(module.parameters())
    if any(p.device.type != "cpu" or p.dtype != torch.float32 for p in parameters):
        module = copy.deepcopy(module).to(device="cpu", dtype=torch.float32)
    return TextGraph(module, tuple(model.tokenize(["a photo"])))

"""LoRA on the image tower's attention projections, through `peft`.

    W' = W + (α / r) · B A,  A (r, D_in) random, B (D_out, r) from 0, W frozen

(Hu et al., arXiv 2106.09685.) In: a tower. Out: a copy of it with B A merged into its weights, an ordinary model.
Training itself is `training.train_tower`; this file only adds the layers and takes them out again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import nn

from headwise.baselines.training import FitSettings, Fitted, Progress, fitted_tower, thawed_copy, train_tower, walk
from headwise.errors import HeadwiseError
from headwise.evaluation.engine import Pixels
from headwise.scoring.losses import Captions
from headwise.search.training import Anchors
from headwise.towers.base import Tower, evaluating

if TYPE_CHECKING:
    from peft.tuners.lora import LoraLayer

LEARNING_RATE = 1e-3
PROJECTIONS = frozenset({"q_proj", "k_proj", "v_proj", "out_proj", "qkv", "proj"})


def fit(
    tower: Tower,
    pixels: Pixels,
    captions: Captions,
    settings: FitSettings,
    *,
    anchors: Anchors | None = None,
    progress: Progress | None = None,
) -> Fitted:
    """As `headwise.baselines.fit`.

    Raises:
        HeadwiseError: bad input, no `peft`, or attention without projections of its own that LoRA can be added to.
    """
    tuned = thawed_copy(tower)
    layers = _add(tuned, settings)
    parameters = [parameter for name, parameter in tuned.parts.named_parameters() if ".lora_" in name]
    trained = train_tower(
        tuned,
        parameters,
        pixels,
        captions,
        settings,
        learning_rate=LEARNING_RATE,
        weight_decay=settings.weight_decay,
        anchors=anchors,
        progress=progress,
    )
    for name, layer in layers.items():
        layer.merge()
        _put(tuned.parts, name, layer.get_base_layer())
    return fitted_tower("lora", tuned, captions, parameters, trained)


def _add(tower: Tower, settings: FitSettings) -> dict[str, LoraLayer]:
    """Put LoRA layers into a tower; name in its parts → layer."""
    names = _names(tower)
    from peft import LoraConfig, inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    config = LoraConfig(r=settings.rank, lora_alpha=2 * settings.rank, target_modules=names, lora_dropout=0.0)
    with torch.random.fork_rng(devices=[]):  # peft draws from torch's global generator
        torch.manual_seed(settings.seed)
        inject_adapter_in_model(config, tower.parts)
    tower.parts.eval()
    return {name: module for name, module in tower.parts.named_modules() if isinstance(module, LoraLayer)}


def check(tower: Tower) -> None:
    """Whether there is anything to add layers to: see `fit`."""
    _names(tower)


def _names(tower: Tower) -> list[str]:
    """The attention projections that are layers of their own, by their names in the tower's parts."""
    try:
        import peft  # noqa: F401
    except ImportError as error:
        raise HeadwiseError(
            f"The LoRA baseline needs peft, which is not installed here ({error}). "
            "Install it with: pip install 'headwise[baselines]'"
        ) from error
    inside = {id(module) for block in tower.blocks for module in block.module.modules()}
    layers = {
        name: module
        for name, module in tower.parts.named_modules()
        if isinstance(module, nn.Linear) and id(module) in inside and name.rpartition(".")[2] in PROJECTIONS
    }
    called = _called(tower, list(layers.values()))
    names = [name for name, module in layers.items() if id(module) in called]
    if not names:
        raise HeadwiseError(
            f"The LoRA baseline found no attention projection that is a layer of its own in {tower.family}. "
            "Use a transformers model."
        )
    return names


def _called(tower: Tower, layers: list[nn.Linear]) -> set[int]:
    """Which layers a walk calls, by their ids: others are read by their weights alone (torch's own multi-head attention, timm's
    packed projections where some queries are wanted), and what LoRA adds to them would take no part."""
    found: set[int] = set()
    hooks = [layer.register_forward_pre_hook(lambda layer, _: found.add(id(layer))) for layer in layers]
    try:
        with evaluating(tower.parts), torch.no_grad():
            walk(
                tower,
                torch.zeros(1, 3, tower.resolution, tower.resolution).to(tower.device, tower.dtype),
                FitSettings(),
            )
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _put(parts: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(parts.get_submodule(parent), last, module)
